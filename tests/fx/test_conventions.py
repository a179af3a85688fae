import pytest

from calibrant.errors import InvalidInput
from calibrant.fx import Conventions, conventions_of


@pytest.mark.parametrize(
    ("pair", "adjusted"),
    [
        ("EURUSD", False), ("gbp/usd", False), ("AUD-USD", False), ("XAUUSD", False),
        ("USDJPY", True), ("USD/CAD", True), ("EURGBP", True), ("EURJPY", True), ("EURBRL", True), ("USDRUB", True),
        ("AUDNZD", True), ("GBPEUR", False), ("NOKSEK", True),
    ],
)  # fmt: skip
def test_a_delta_is_premium_adjusted_where_the_premium_is_in_the_foreign_currency(pair: str, adjusted: bool) -> None:
    assert conventions_of(pair) == Conventions(premium_adjusted=adjusted)


def test_spot_deltas_end_after_one_year_unless_a_setting_says_so() -> None:
    default = conventions_of("EURUSD")
    assert [default.spot_delta_at(t) for t in (0.1, 1.0, 366.0 / 365.0, 1.5)] == [True, True, True, False]
    assert not conventions_of("EURUSD", {"delta": "forward"}).spot_delta_at(0.1)
    assert conventions_of("EURUSD", {"delta": "spot"}).spot_delta_at(10.0)
    assert conventions_of("EURUSD", {"spot_delta_until": 2.0}).spot_delta_at(2.0)


def test_what_is_given_goes_before_the_market() -> None:
    given = {"premium_adjusted": True, "atm": "forward", "butterfly": "smile"}
    assert conventions_of("EURUSD", given) == Conventions(premium_adjusted=True, atm="forward", butterfly="smile")
    assert conventions_of(None, {"premium_adjusted": False}) == Conventions(premium_adjusted=False)


@pytest.mark.parametrize(
    ("pair", "given", "pointer"),
    [
        (None, None, "/pair"),
        ("EUR", None, "/pair"),
        ("EUREUR", None, "/pair"),
        (7, None, "/pair"),
        ("EURUSD", {"atm": "strike"}, "/conventions/atm"),
        ("EURUSD", {"butterfly": None}, "/conventions/butterfly"),
        ("EURUSD", {"premium_adjusted": 1}, "/conventions/premium_adjusted"),
        ("EURUSD", {"delta": ["spot"]}, "/conventions/delta"),
        ("EURUSD", {"spot_delta_until": -1.0}, "/conventions/spot_delta_until"),
        ("EURUSD", {"at_the_money": "spot"}, "/conventions/at_the_money"),
        ("EURUSD", "spot", "/conventions"),
    ],
)
def test_what_is_no_convention_is_refused_by_its_field(pair: object, given: object, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        conventions_of(pair, given)
    assert [problem.pointer for problem in refused.value.problems] == [pointer]
