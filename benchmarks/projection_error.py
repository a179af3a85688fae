"""How far the projection onto the network's grid is from what it stands for, on every real panel.

    python -m benchmarks.projection_error

reads the panels of ../shared/market with strikes and forwards, each date apart, and writes docs/results/projection.md.
Three errors, in basis points of vol, all through `calibrant.grid.project` itself:

* strikes: every fifth strike of an expiry (never its outermost) is held out and compared with the projection of the
  rest onto it. The quotes' own noise is part of this error, so the median half spread stands beside it;
* expiries: every expiry but the first and the last is held out in turn, and its quotes compared likewise;
* Heston: exact surfaces of random parameters (the paper's box), sampled at the panel's own expiries and strikes, and
  compared at the unmasked nodes of the network's grid: between the quoted expiries, and outside of them.

Quotes whose vega is below 1e-3 of the forward are left out, as in a calibration.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calibrant.arrays import BoolVector, Vector
from calibrant.black import implied_volatility
from calibrant.errors import InvalidInput
from calibrant.grid import EXPIRY_REACH, STRIKE_REACH, Grid, project
from calibrant.models import HESTON
from calibrant.panel import OptionPanel, identifiable
from calibrant.pricing.fourier import call_prices
from calibrant.quotes_csv import read_csv

ROOT = Path(__file__).resolve().parents[1]
MARKET = ROOT.parent / "shared" / "market"
REPORT = ROOT / "docs" / "results" / "projection.md"
GRID = Grid(expiry=np.linspace(0.1, 2.0, 8), log_moneyness=np.log(np.linspace(0.8, 1.2, 10)))
# The paper's section 4.4: kappa, theta, xi, rho, v0.
BOX = np.array([[0.5, 8.0], [0.02, 0.5], [0.1, 1.5], [-0.95, -0.05], [0.01, 0.4]])
FEWEST_STRIKES = 6


class Errors(NamedTuple):
    """One line of the table; errors in basis points of vol."""

    label: str
    n_quotes: int
    n_expiries: int
    coverage: float
    half_spread: float
    strikes: Vector
    expiries: Vector
    heston_inside: Vector
    heston_outside: Vector


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the projection's error and write docs/results/projection.md.")
    parser.add_argument("--market", type=Path, default=MARKET, help="folder of the market panels")
    parser.add_argument("--draws", type=int, default=20, help="Heston surfaces per panel")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    lines = []
    for label, panel in market_panels(options.market):
        lines.append(measure(label, panel, options.draws, generator))
        print(row(lines[-1]), flush=True)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report(lines, options.draws, options.seed))


def market_panels(folder: Path) -> list[tuple[str, OptionPanel]]:
    """Every panel with strikes and forwards, by label."""
    panels = []
    for path in sorted(folder.glob("*.csv")):
        if not path.stem.endswith("_rejected"):
            try:
                panels += [(label, identifiable(panel)) for label, panel in read_csv(path)]
            except InvalidInput:
                continue  # FX panels quoted by delta
    return panels


def measure(label: str, panel: OptionPanel, n_draws: int, generator: np.random.Generator) -> Errors:
    inside, outside = heston_errors(panel, n_draws, generator)
    half_spread = 0.5e4 * (panel.ask - panel.bid)
    return Errors(
        label=label,
        n_quotes=panel.n_quotes,
        n_expiries=panel.expiries.size,
        coverage=float(project(panel, GRID).mask.mean()),
        half_spread=float(np.nanmedian(half_spread)) if np.isfinite(half_spread).any() else float("nan"),
        strikes=held_out_strikes(panel),
        expiries=held_out_expiries(panel),
        heston_inside=inside,
        heston_outside=outside,
    )


def held_out_strikes(panel: OptionPanel) -> Vector:
    """Errors at every fifth strike of every expiry with enough of them."""
    errors = [np.empty(0)]
    for expiry in panel.expiries:
        here = panel.expiry == expiry
        strikes = np.unique(panel.log_moneyness[here])
        if strikes.size >= FEWEST_STRIKES:
            held = here & np.isin(panel.log_moneyness, strikes[2:-1:5])
            errors.append(errors_at(panel, held))
    return np.concatenate(errors)


def held_out_expiries(panel: OptionPanel) -> Vector:
    """Errors at the quotes of each expiry but the first and the last, from the other expiries."""
    return np.concatenate([np.empty(0), *(errors_at(panel, panel.expiry == t) for t in panel.expiries[1:-1])])


def errors_at(panel: OptionPanel, held: BoolVector) -> Vector:
    """Errors at the quotes held out, all of one expiry, from the rest; one per strike."""
    rest = ~held
    seen = OptionPanel.from_quotes(
        expiry=panel.expiry[rest],
        log_moneyness=panel.log_moneyness[rest],
        iv=panel.mid[rest],
        weight=panel.weight[rest],
    )
    strikes, position = np.unique(panel.log_moneyness[held], return_inverse=True)
    quoted = np.bincount(position, panel.mid[held]) / np.bincount(position)
    found = project(seen, Grid(expiry=panel.expiry[held][:1], log_moneyness=strikes))
    return np.asarray(1e4 * np.abs(found.iv[0] - quoted)[found.mask[0]])


def heston_errors(panel: OptionPanel, n_draws: int, generator: np.random.Generator) -> tuple[Vector, Vector]:
    """Errors at the unmasked nodes between the quoted expiries, and at those outside of them."""
    expiry, k = (nodes.ravel() for nodes in np.meshgrid(GRID.expiry, GRID.log_moneyness, indexing="ij"))
    between = (expiry >= panel.expiries[0]) & (expiry <= panel.expiries[-1])
    inside, outside = [], []
    for _ in range(n_draws):
        params = BOX[:, 0] + (BOX[:, 1] - BOX[:, 0]) * generator.random(5)
        vols = heston_vols(params, panel.expiry, panel.log_moneyness)
        seen = OptionPanel.from_quotes(expiry=panel.expiry, log_moneyness=panel.log_moneyness, iv=vols)
        found = project(seen, GRID).iv.ravel()
        away = 1e4 * np.abs(found - heston_vols(params, expiry, k))
        inside.append(away[between & np.isfinite(away)])
        outside.append(away[~between & np.isfinite(away)])
    return np.concatenate(inside), np.concatenate(outside)


def heston_vols(params: Vector, expiry: Vector, k: Vector) -> Vector:
    """Exact implied vols; NaN, a missing quote, where the time value carries none."""
    return implied_volatility(call_prices(HESTON, k, expiry, params), k, expiry, price_error=1e-13).volatility


def spread_of(errors: Vector) -> str:
    """Median and 90 % quantile."""
    return f"{np.median(errors):.1f} / {np.quantile(errors, 0.9):.1f}" if errors.size else "-"


def row(line: Errors) -> str:
    half_spread = "-" if np.isnan(line.half_spread) else f"{line.half_spread:.1f}"
    cells = [line.label, str(line.n_quotes), str(line.n_expiries), f"{line.coverage:.0%}", half_spread]
    cells += [spread_of(errors) for errors in (line.strikes, line.expiries, line.heston_inside, line.heston_outside)]
    return f"| {' | '.join(cells)} |"


def report(lines: list[Errors], n_draws: int, seed: int) -> str:
    together = Errors(
        label="**all panels**",
        n_quotes=sum(line.n_quotes for line in lines),
        n_expiries=sum(line.n_expiries for line in lines),
        coverage=float(np.mean([line.coverage for line in lines])),
        half_spread=float("nan"),
        strikes=np.concatenate([line.strikes for line in lines]),
        expiries=np.concatenate([line.expiries for line in lines]),
        heston_inside=np.concatenate([line.heston_inside for line in lines]),
        heston_outside=np.concatenate([line.heston_outside for line in lines]),
    )
    table = "\n".join(row(line) for line in [*lines, together])
    return f"""# Error of the projection onto the network's grid

Written by `python -m benchmarks.projection_error` (seed {seed}, {n_draws} Heston surfaces per panel); how the
projection works is said in `src/calibrant/grid.py`. Median / 90 % quantile of the absolute error, in bp of vol.

- `coverage`: share of the grid's 80 nodes that the panel fills; the others are masked: more than {STRIKE_REACH:g}
  at-the-money standard deviations outside the quoted strikes, or a factor of {EXPIRY_REACH:g} outside the expiries.
- `half spread`: median of the panel's quotes; where it is given.
- `strikes`: every fifth strike of each expiry held out, against the projection of the rest. Quote noise is part of it.
- `expiries`: each expiry but the first and last held out.
- `Heston between`, `Heston outside`: exact Heston surfaces (parameters uniform in the paper's box) quoted at the
  panel's own points, at the unmasked nodes between its first and last expiry and outside of them.

| panel | quotes | expiries | coverage | half spread | strikes | expiries | Heston between | Heston outside |
|---|---|---|---|---|---|---|---|---|
{table}
"""


if __name__ == "__main__":
    main()
