"""The paper's augmentation has the statistics the paper gives it."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.augment import BASIS_POINT, AugmentOptions, augment, quote  # noqa: E402


def flat_panels(n: int) -> Any:
    return torch.full((n, 8, 10), 0.2, dtype=torch.float64)


def test_noise_spread_and_masking_have_the_stated_sizes() -> None:
    quotes = quote(flat_panels(2000), torch.Generator().manual_seed(1), AugmentOptions())
    missing = quotes.mid.isnan()
    # 160,000 quotes: the standard errors are 0.05 % of masking, 0.00125 bp of noise and 0.01 bp of spread.
    assert float(missing.double().mean()) == pytest.approx(0.05, abs=0.002)
    noise = (quotes.mid - 0.2)[~missing] / BASIS_POINT
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.006)
    assert float(noise.std()) == pytest.approx(0.5, abs=0.005)
    half = ((quotes.ask - quotes.bid) / 2)[~missing] / BASIS_POINT
    assert float(half.min()) >= 0.0
    assert float(half.max()) <= 15.0
    assert float(half.mean()) == pytest.approx(7.5, abs=0.05)


def test_the_mid_lies_in_the_middle_and_a_missing_quote_has_no_side() -> None:
    quotes = quote(flat_panels(50), torch.Generator().manual_seed(2), AugmentOptions())
    there = ~quotes.mid.isnan()
    torch.testing.assert_close(((quotes.bid + quotes.ask) / 2)[there], quotes.mid[there])
    assert bool((quotes.bid.isnan() == quotes.mid.isnan()).all())
    assert bool((quotes.ask.isnan() == quotes.mid.isnan()).all())


def test_the_stated_share_of_panels_stays_clean() -> None:
    iv = flat_panels(4000)
    out = augment(iv, torch.Generator().manual_seed(3), AugmentOptions(clean=0.5))
    clean = (out == iv).all(2).all(1)
    assert float(clean.double().mean()) == pytest.approx(0.5, abs=0.03)


def test_cropping_leaves_a_window_of_at_least_half() -> None:
    options = AugmentOptions(clean=0.0, masked=0.0, cropped=1.0)
    there = ~augment(flat_panels(500), torch.Generator().manual_seed(4), options).isnan()
    rows, columns = there.any(2), there.any(1)
    assert bool((there == rows[:, :, None] & columns[:, None, :]).all())
    assert int(rows.sum(1).min()) == 4
    assert int(columns.sum(1).min()) == 5
    assert int(rows.sum(1).max()) == 8


def test_the_same_seed_gives_the_same_batch() -> None:
    first, second, other = (
        augment(flat_panels(20), torch.Generator().manual_seed(seed), AugmentOptions()) for seed in (5, 5, 6)
    )
    assert torch.equal(first.nan_to_num(), second.nan_to_num())
    assert not torch.equal(first.nan_to_num(), other.nan_to_num())
