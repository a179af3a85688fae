import dataclasses
from typing import Any

import numpy as np
import pytest

from calibrant.arrays import Vector, column_of
from calibrant.black import vega
from calibrant.errors import InvalidInput
from calibrant.panel import MAX_PROBLEMS, Exclusion, OptionPanel, identifiable

NAN = float("nan")


def _quotes(**changed: Any) -> dict[str, Any]:
    """Four sound quotes; a value of None takes a field away."""
    quotes = {
        "expiry": [0.1, 0.1, 0.5, 0.5],
        "strike": [90.0, 110.0, 95.0, 105.0],
        "forward": 100.0,
        "iv": [0.25, 0.22, 0.24, 0.23],
    } | changed
    return {name: values for name, values in quotes.items() if values is not None}


def _random_quotes(n: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mid = rng.uniform(0.1, 0.6, n)
    half = rng.uniform(0.0, 0.01, n)
    return {
        "expiry": rng.choice([0.05, 0.1, 0.5, 2.0], n),
        "strike": rng.choice(np.linspace(60.0, 160.0, 41), n),
        "forward": rng.uniform(95.0, 105.0, n),
        "bid_iv": mid - half,
        "ask_iv": mid + half,
    }


def _fields(panel: OptionPanel) -> list[Vector]:
    return [panel.expiry, panel.log_moneyness, panel.mid, panel.bid, panel.ask, panel.weight]


def test_strikes_and_forwards_become_log_moneyness() -> None:
    panel = OptionPanel.from_quotes(**_quotes())
    # Within rounding: numpy's logarithm of an array is another where the processor has AVX-512.
    np.testing.assert_allclose(panel.log_moneyness, np.log(np.array([0.9, 1.1, 0.95, 1.05])), rtol=1e-15)
    np.testing.assert_array_equal(panel.mid, [0.25, 0.22, 0.24, 0.23])
    np.testing.assert_array_equal(panel.weight, 1.0)
    assert np.isnan(panel.bid).all()
    assert np.isnan(panel.ask).all()
    assert panel.weights_from == "nothing"
    assert panel.excluded == ()


def test_log_moneyness_alone_gives_the_same_panel() -> None:
    by_strike = OptionPanel.from_quotes(**_quotes())
    k = np.log(np.array([0.9, 1.1, 0.95, 1.05]))
    by_moneyness = OptionPanel.from_quotes(**_quotes(strike=None, forward=None, log_moneyness=k))
    np.testing.assert_allclose(by_strike.log_moneyness, by_moneyness.log_moneyness, rtol=1e-15)


def test_a_forward_per_quote_is_taken_quote_by_quote() -> None:
    panel = OptionPanel.from_quotes(**_quotes(forward=[100.0, 100.0, 101.0, 101.0]))
    np.testing.assert_allclose(panel.log_moneyness, np.log([0.9, 1.1, 95 / 101, 105 / 101]), rtol=1e-15)


def test_a_forward_stays_with_its_quote_whatever_the_order() -> None:
    quotes = _random_quotes(60, 5)
    quotes["bid_iv"][::7] = np.nan
    panel = OptionPanel.from_quotes(**quotes)
    assert panel.forward is not None
    assert panel.n_quotes < 60
    np.testing.assert_array_equal(panel.forward, quotes["forward"][panel.index])
    np.testing.assert_allclose(quotes["strike"][panel.index] / panel.forward, np.exp(panel.log_moneyness), rtol=1e-14)


def test_a_panel_has_every_field_and_changes_none() -> None:
    panel = OptionPanel.from_quotes(**_quotes())
    assert vars(panel).keys() == {field.name for field in dataclasses.fields(OptionPanel)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        panel.mid = panel.ask  # type: ignore[misc]


@pytest.mark.parametrize("values", [[], [0.1], [0.1, None, 3.0], [None], [1, 2**53, -0.0, 1e-320]])
def test_a_column_is_what_numpy_makes_of_it(values: list[float | None]) -> None:
    column, expected = column_of(values), np.asarray(values, np.float64)
    assert column.dtype == expected.dtype
    assert column.tobytes() == expected.tobytes()
    assert column.flags.writeable


def test_the_unit_of_strikes_and_forwards_cancels() -> None:
    quotes = _random_quotes(500, seed=1)
    scaled = quotes | {"strike": 1000.0 * quotes["strike"], "forward": 1000.0 * quotes["forward"]}
    one, other = OptionPanel.from_quotes(**quotes), OptionPanel.from_quotes(**scaled)
    for a, b in zip(_fields(one), _fields(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=1e-15)


def test_the_order_of_the_quotes_leaves_no_trace() -> None:
    quotes = _random_quotes(1000, seed=2)
    shuffle = np.random.default_rng(3).permutation(1000)
    one = OptionPanel.from_quotes(**quotes)
    other = OptionPanel.from_quotes(**{name: values[shuffle] for name, values in quotes.items()})
    for a, b in zip(_fields(one), _fields(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(quotes["bid_iv"][one.index], one.bid)
    np.testing.assert_array_equal(quotes["bid_iv"][shuffle][other.index], other.bid)


def test_the_canonical_order_is_by_expiry_moneyness_mid_and_weight() -> None:
    panel = OptionPanel.from_quotes(**_random_quotes(1000, seed=4))
    keys = list(zip(*_fields(panel), strict=True))
    assert keys == sorted(keys)


def test_offsets_delimit_the_quotes_of_every_expiry() -> None:
    panel = OptionPanel.from_quotes(**_random_quotes(200, seed=5))
    np.testing.assert_array_equal(panel.expiries, [0.05, 0.1, 0.5, 2.0])
    assert panel.offsets.dtype == np.int64
    for i, expiry in enumerate(panel.expiries):
        np.testing.assert_array_equal(panel.expiry[panel.offsets[i] : panel.offsets[i + 1]], expiry)
    assert panel.offsets[0] == 0
    assert panel.offsets[-1] == panel.n_quotes == 200


def test_missing_quotes_are_left_out_and_named() -> None:
    panel = OptionPanel.from_quotes(**_quotes(iv=[0.25, None, NAN, 0.23]))
    np.testing.assert_array_equal(panel.index, [0, 3])
    assert [(e.index, e.reason) for e in panel.excluded] == [(1, "missing quote"), (2, "missing quote")]


def test_a_lone_bid_or_ask_is_a_missing_quote_unless_the_mid_is_given() -> None:
    sides = {"bid_iv": [0.24, None, 0.23, 0.22], "ask_iv": [None, 0.23, 0.25, 0.24]}
    panel = OptionPanel.from_quotes(**_quotes(iv=None, **sides))
    np.testing.assert_allclose(panel.mid, [0.24, 0.23], rtol=1e-15)
    assert [e.index for e in panel.excluded] == [0, 1]
    assert all("one-sided" in e.reason for e in panel.excluded)
    assert OptionPanel.from_quotes(**_quotes(**sides)).excluded == ()


def test_a_given_mid_beats_the_mean_of_bid_and_ask() -> None:
    panel = OptionPanel.from_quotes(
        **_quotes(iv=[0.25, None, 0.24, 0.23], bid_iv=[0.2, 0.2, 0.2, 0.2], ask_iv=[0.26, 0.24, 0.26, 0.26])
    )
    np.testing.assert_allclose(panel.mid, [0.25, 0.22, 0.24, 0.23], rtol=1e-15)


def test_default_weights_are_inverse_squared_spreads_of_one_basis_point_at_least() -> None:
    bid = np.array([0.24, 0.21, 0.2399, 0.23])
    ask = np.array([0.25, 0.23, 0.2399, 0.23005])
    panel = OptionPanel.from_quotes(**_quotes(bid_iv=bid, ask_iv=ask))
    np.testing.assert_allclose(panel.weight, [1e4, 2.5e3, 1e8, 1e8], rtol=1e-10)
    assert panel.weights_from == "spreads"


def test_quotes_without_a_spread_weigh_as_much_as_the_median_of_those_with_one() -> None:
    panel = OptionPanel.from_quotes(**_quotes(bid_iv=[0.24, 0.21, 0.23, None], ask_iv=[0.25, 0.23, 0.24, None]))
    np.testing.assert_allclose(panel.weight, [1e4, 2.5e3, 1e4, 1e4], rtol=1e-10)


def test_given_weights_are_kept_and_a_zero_leaves_the_quote_out() -> None:
    panel = OptionPanel.from_quotes(**_quotes(weight=[1.0, 0.0, 3.0, 0.5], bid_iv=[0.1] * 4, ask_iv=[0.3] * 4))
    np.testing.assert_array_equal(panel.weight, [1.0, 3.0, 0.5])
    assert panel.weights_from == "request"
    assert [(e.index, e.reason) for e in panel.excluded] == [(1, "weight is zero")]


def test_duplicates_at_one_strike_and_expiry_all_enter() -> None:
    panel = OptionPanel.from_quotes(expiry=[0.5] * 3, log_moneyness=[0.1] * 3, iv=[0.22, 0.2, 0.21])
    np.testing.assert_array_equal(panel.mid, [0.2, 0.21, 0.22])
    np.testing.assert_array_equal(panel.index, [1, 2, 0])


def test_one_quote_is_a_panel() -> None:
    panel = OptionPanel.from_quotes(expiry=[0.5], strike=[100.0], forward=100.0, iv=[0.2])
    assert panel.n_quotes == 1
    np.testing.assert_array_equal(panel.offsets, [0, 1])


def test_ten_thousand_quotes_are_a_panel() -> None:
    panel = OptionPanel.from_quotes(**_random_quotes(10_000, seed=6))
    assert panel.n_quotes == 10_000
    np.testing.assert_array_equal(np.sort(panel.index), np.arange(10_000))


def test_a_regular_grid_gives_the_panel_of_its_nodes() -> None:
    iv = np.array([[0.3, NAN, 0.25], [0.28, 0.26, 0.24]])
    panel = OptionPanel.from_grid(expiry=[0.1, 1.0], log_moneyness=[-0.1, 0.0, 0.1], iv=iv)
    np.testing.assert_array_equal(panel.index, [0, 2, 3, 4, 5])
    np.testing.assert_array_equal(panel.expiry, [0.1, 0.1, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(panel.log_moneyness, [-0.1, 0.1, -0.1, 0.0, 0.1])
    np.testing.assert_array_equal(panel.mid, iv[np.isfinite(iv)])
    assert [e.index for e in panel.excluded] == [1]


@pytest.mark.parametrize(
    ("changed", "pointer", "detail"),
    [
        (
            {"expiry": [0.1, NAN, 0.5, 0.5]},
            "/quotes/expiry/1",
            "must be a finite number of years, but is missing or not a number.",
        ),
        ({"expiry": [0.1, None, 0.5, 0.5]}, "/quotes/expiry/1", "`quotes.expiry[1]` must be a finite number of years"),
        (
            {"expiry": [0.1, 200.0, 0.5, 0.5]},
            "/quotes/expiry/1",
            "at most 100 years (30 days are 0.082), but is 200.0.",
        ),
        ({"expiry": [0.1, np.inf, 0.5, 0.5]}, "/quotes/expiry/1", "must be a finite number of years, but is inf."),
        ({"expiry": [0.1, -np.inf, 0.5, 0.5]}, "/quotes/expiry/1", "must be a finite number of years, but is -inf."),
        ({"iv": [0.25, np.inf, 0.24, 0.23]}, "/quotes/iv/1", "`quotes.iv[1]` must be a finite number, but is inf."),
        ({"bid_iv": [None, -np.inf, None, None]}, "/quotes/bid_iv/1", "must be a finite number, but is -inf."),
        ({"iv": None, "bid_iv": [0.2] * 4, "ask_iv": [np.inf] + [0.3] * 3}, "/quotes/ask_iv/0", "a finite number"),
        ({"strike": [90.0, 0.0, 95.0, 105.0]}, "/quotes/strike/1", "must be a finite number > 0, but is 0.0."),
        ({"strike": [90.0, np.inf, 95.0, 105.0]}, "/quotes/strike/1", "must be a finite number > 0, but is inf."),
        ({"strike": [90.0, 1e9, 95.0, 105.0]}, "/quotes/strike/1", "within a factor of e^10 of the forward"),
        ({"forward": -1.0}, "/quotes/forward", "`quotes.forward` must be a finite number > 0, but is -1.0."),
        ({"forward": NAN}, "/quotes/forward", "must be a finite number > 0, but is missing or not a number."),
        ({"forward": [100.0, 100.0, NAN, 100.0]}, "/quotes/forward/2", "must be a finite number > 0"),
        ({"weight": [1.0, -1.0, 1.0, 1.0]}, "/quotes/weight/1", "`quotes.weight[1]` must be >= 0, but is -1.0."),
        ({"weight": [1.0, None, 1.0, 1.0]}, "/quotes/weight/1", "must be >= 0, but is missing or not a number."),
        ({"weight": [1.0, np.inf, 1.0, 1.0]}, "/quotes/weight/1", "must be at most 1e+30, but is inf."),
        (
            {"strike": None, "forward": None, "log_moneyness": [0.0, 0.1, 11.0, 0.2]},
            "/quotes/log_moneyness/2",
            "must lie within +-10, but is 11.0.",
        ),
        ({"strike": [90.0, 110.0, 95.0]}, "/quotes/strike", "as many values as `quotes.expiry` (4), but has 3."),
        ({"forward": [100.0, 100.0]}, "/quotes/forward", "as many values as `quotes.expiry` (4), but has 2."),
        ({"iv": [0.25] * 5}, "/quotes/iv", "`quotes.iv` must have as many values as `quotes.expiry` (4), but has 5."),
        ({"weight": [1.0]}, "/quotes/weight", "as many values as `quotes.expiry` (4), but has 1."),
        ({"expiry": [], "strike": [], "iv": []}, "/quotes/expiry", "must hold at least one quote, but is empty."),
        (
            {"iv": [None] * 4},
            "/quotes",
            "must hold at least one usable quote, but all 4 are left out (4 missing quote).",
        ),
        ({"iv": [None, 0.0, 0.0, 7.0]}, "/quotes", "(2 vol is zero or negative, 1 missing quote, 1 vol above 5)."),
        ({"iv": [25.0, 22.0, 24.0, 23.0]}, "/quotes", "(4 vol above 5). Vols are decimals: 0.25 for 25 %."),
        ({"iv": [None, 42.94, None, None]}, "/quotes", "Vols are decimals: 0.25 for 25 %."),
        ({"exclude": [0, 1, 2, 3]}, "/quotes", "(4 excluded by the request)."),
        ({"exclude": [0, 4]}, "/exclude/1", "`exclude[1]` must be the position of a quote, 0 to 3, but is 4."),
        ({"exclude": [-1]}, "/exclude/0", "must be the position of a quote, 0 to 3, but is -1."),
        ({"exclude": [1.0]}, "/exclude", "`exclude` must be a list of positions"),
        ({"exclude": [True]}, "/exclude", "`exclude` must be a list of positions"),
        ({"exclude": 1}, "/exclude", "`exclude` must be a list of positions"),
        ({"exclude": [[1], [2, 3]]}, "/exclude", "`exclude` must be a list of positions"),
        ({"iv": None}, "/quotes/iv", "`quotes.iv` must be given, or `bid_iv` and `ask_iv`."),
        ({"forward": None}, "/quotes/forward", "`quotes.forward` must be given with `strike`."),
        ({"strike": None, "forward": None}, "/quotes/strike", "must be given with `forward`, or `log_moneyness`"),
        ({"log_moneyness": [0.0] * 4}, "/quotes/log_moneyness", "must be given alone"),
        ({"strike": [90.0, "x", 95.0, 105.0]}, "/quotes/strike/1", "must be a number, but is 'x'."),
        (
            {"iv": [[0.25, 0.22], [0.24, 0.23]]},
            "/quotes/iv",
            "must be a one-dimensional array, but has the shape (2, 2).",
        ),
        ({"expiry": 0.5}, "/quotes/expiry", "must be a one-dimensional array"),
    ],
)
def test_bad_input_is_refused_with_field_and_index(changed: dict[str, Any], pointer: str, detail: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        OptionPanel.from_quotes(**_quotes(**changed))
    assert caught.value.problems[0].pointer == pointer
    assert detail in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        OptionPanel.from_quotes(**_quotes(expiry=[0.1, NAN, 0.5, 101.0], strike=[-6.0, 90.0, 90.0, 90.0]))
    assert [p.pointer for p in caught.value.problems] == ["/quotes/expiry/1", "/quotes/expiry/3", "/quotes/strike/0"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"expiry": [0.1, -0.02, 0.5, 0.5]}, "expired"),
        ({"expiry": [0.1, 0.0, 0.5, 0.5]}, "expired"),
        ({"iv": [0.25, 5.1, 0.24, 0.23]}, "vol above 5"),
        ({"iv": [0.25, 0.0, 0.24, 0.23]}, "vol is zero or negative"),
        ({"iv": [0.25, -0.2, 0.24, 0.23]}, "vol is zero or negative"),
        ({"bid_iv": [None, 0.2, None, None], "ask_iv": [None, 7.0, None, None]}, "vol above 5"),
        ({"bid_iv": [None, -0.2, None, None]}, "vol is zero or negative"),
        ({"bid_iv": [None, 0.0, None, None], "ask_iv": [None, 0.0, None, None]}, "vol is zero or negative"),
        ({"bid_iv": [None, 0.23, None, None], "ask_iv": [None, 0.22, None, None]}, "ask below bid"),
        ({"bid_iv": [None, 0.17, None, None], "ask_iv": [None, 0.19, None, None]}, "mid outside its bid and ask"),
        (
            {"iv": None, "bid_iv": [0.2, 0.0, 0.2, 0.2], "ask_iv": [0.3, 5.0, 0.3, 0.3]},
            "no bid: its vol is zero, and no iv",
        ),
        ({"iv": None, "bid_iv": [0.2, 0.31, 0.2, 0.2], "ask_iv": [0.3] * 4}, "ask below bid"),
        ({"iv": None, "bid_iv": [0.2] * 4, "ask_iv": [0.3, 20.0, 0.3, 0.3]}, "vol above 5"),
        ({"exclude": [1, 1]}, "excluded by the request"),
        ({"exclude": np.array([1], np.uint8)}, "excluded by the request"),
        ({"exclude": [1], "strike": [90.0, -1.0, 95.0, 105.0]}, "excluded by the request"),
    ],
)
def test_a_quote_that_cannot_be_used_is_left_out_with_its_reason(changed: dict[str, Any], reason: str) -> None:
    panel = OptionPanel.from_quotes(**_quotes(**changed))
    np.testing.assert_array_equal(panel.index, [0, 2, 3])
    assert [(e.index, e.reason) for e in panel.excluded] == [(1, reason)]


def test_a_bid_of_zero_beside_a_mid_is_no_bid() -> None:
    sides = {"bid_iv": [0.24, 0.0, 0.235, 0.22], "ask_iv": [0.26, 0.21, 0.245, 0.24]}
    panel = OptionPanel.from_quotes(**_quotes(**sides))
    assert panel.excluded == ()
    np.testing.assert_array_equal(panel.bid, [0.24, NAN, 0.235, 0.22])
    # The weight is the median of the others', whose spreads are 2, 1 and 2 points: no spread is known.
    np.testing.assert_allclose(panel.weight, [2.5e3, 2.5e3, 1e4, 2.5e3], rtol=1e-10)


@pytest.mark.parametrize(("bid", "ask"), [(0.23, 0.24), (0.20, 0.21), (0.2201, 0.2201), (0.2199, 0.2199)])
def test_a_mid_within_a_spread_or_a_basis_point_of_its_bid_and_ask_is_used(bid: float, ask: float) -> None:
    sides = {"bid_iv": [None, bid, None, None], "ask_iv": [None, ask, None, None]}
    assert OptionPanel.from_quotes(**_quotes(**sides)).excluded == ()
    further = 0.011 if bid > 0.22 else -0.011
    away = {"bid_iv": [None, bid + further, None, None], "ask_iv": [None, ask + further, None, None]}
    (exclusion,) = OptionPanel.from_quotes(**_quotes(**away)).excluded
    assert exclusion.reason == "mid outside its bid and ask"


BREAKAGES: dict[str, dict[str, float]] = {
    "expired": {"expiry": -0.01},
    "vol above 5": {"ask_iv": 20.0},
    "no bid: its vol is zero, and no iv": {"bid_iv": 0.0},
    "vol is zero or negative": {"bid_iv": -0.01},
    "ask below bid": {"ask_iv": 0.001},
    "missing quote": {"bid_iv": NAN, "ask_iv": NAN},
    "one-sided quote: a bid or an ask alone, and no iv": {"ask_iv": NAN},
}


@pytest.mark.parametrize("seed", range(20))
def test_what_cannot_be_used_leaves_no_trace_in_the_rest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 120))
    quotes = _random_quotes(n, seed)
    broken = np.flatnonzero(rng.random(n) < rng.choice([0.1, 0.9]))[: n - 1]
    reasons = rng.choice(sorted(BREAKAGES), broken.size).tolist()
    given = {name: column.copy() for name, column in quotes.items()}
    for i, reason in zip(broken, reasons, strict=True):
        for name, value in BREAKAGES[reason].items():
            given[name][i] = value
    panel = OptionPanel.from_quotes(**given)
    assert [(e.index, e.reason) for e in panel.excluded] == list(zip(broken.tolist(), reasons, strict=True))
    kept = np.delete(np.arange(n), broken)
    rest = OptionPanel.from_quotes(**{name: column[kept] for name, column in quotes.items()})
    by_request = OptionPanel.from_quotes(**quotes, exclude=broken)
    for other, index in ((rest, kept[rest.index]), (by_request, by_request.index)):
        np.testing.assert_array_equal(panel.index, index)
        for a, b in zip(_fields(panel), _fields(other), strict=True):
            np.testing.assert_array_equal(a, b)
    unusable = sum("missing" not in reason and "one-sided" not in reason for reason in reasons)
    assert ("many_quotes_excluded" in {c.code for c in panel.cautions}) == (unusable > kept.size)


def test_a_panel_renumbered_is_the_same_panel_of_a_longer_list() -> None:
    panel = OptionPanel.from_quotes(**_quotes(iv=[0.25, None, 0.24, 0.23]))
    moved = panel.renumbered(np.array([3, 5, 8, 9]), [Exclusion(4, "none")])
    np.testing.assert_array_equal(moved.index, [3, 8, 9])
    assert [(e.index, e.reason) for e in moved.excluded] == [(4, "none"), (5, "missing quote")]
    assert vars(moved).keys() == vars(panel).keys()
    for a, b in zip(_fields(panel), _fields(moved), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ten_thousand_problems_are_cut_to_a_hundred() -> None:
    quotes = _random_quotes(10_000, seed=7)
    with pytest.raises(InvalidInput) as caught:
        OptionPanel.from_quotes(**(quotes | {"strike": -quotes["strike"]}))
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_problems_of_a_grid_point_at_its_axes_and_nodes() -> None:
    with pytest.raises(InvalidInput) as caught:
        OptionPanel.from_grid(
            expiry=[0.1, 101.0],
            log_moneyness=[0.0, 0.1, 20.0],
            iv=np.full((2, 3), 0.2),
            weight=[[1.0, 1.0, 1.0], [1.0, -7.0, 1.0]],
            path=("quotes",),
        )
    pointers = [p.pointer for p in caught.value.problems]
    assert pointers == ["/quotes/expiry/1", "/quotes/log_moneyness/2", "/quotes/weight/1/1"]
    assert caught.value.problems[2].detail == "`quotes.weight[1][1]` must be >= 0, but is -7.0."
    with pytest.raises(InvalidInput, match=r"`iv` must have the shape .* \(2, 3\), but has \(3, 2\)"):
        OptionPanel.from_grid(expiry=[0.1, 1.0], log_moneyness=[0.0, 0.1, 0.2], iv=np.full((3, 2), 0.2))


def test_quotes_with_next_to_no_vega_are_split_off() -> None:
    k = np.array([-0.8, -0.1, 0.0, 0.1, 0.8])
    panel = OptionPanel.from_quotes(expiry=[0.1] * 6, log_moneyness=[*k, 0.0], iv=[0.2] * 5 + [None])
    used = identifiable(panel)
    slim = vega(k, 0.1, 0.2) < 1e-3
    np.testing.assert_array_equal(slim, [True, False, False, False, True])
    np.testing.assert_array_equal(used.index, np.flatnonzero(~slim))
    np.testing.assert_array_equal(used.log_moneyness, k[~slim])
    assert [e.index for e in used.excluded] == [0, 4, 5]
    assert used.excluded[0].reason == "vega below 0.001 of the forward"
    assert used.excluded[2].reason == "missing quote"


def test_a_panel_of_identifiable_quotes_is_left_as_it_is() -> None:
    panel = OptionPanel.from_quotes(**_quotes())
    assert identifiable(panel) is panel


def test_a_panel_without_an_identifiable_quote_is_refused() -> None:
    panel = OptionPanel.from_quotes(expiry=[0.01, -1.0], log_moneyness=[1.0, 1.0], iv=[0.2, 0.2])
    told = (
        r"`quotes` must hold a quote whose vega is 0\.001 of the forward or more, .* \(1 expired, 1 vega below 0\.001"
    )
    with pytest.raises(InvalidInput, match=told):
        identifiable(panel)
