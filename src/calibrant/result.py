"""What `calibrant.calibrate` returns: what the service answers, as an object to print, to tabulate and to draw."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from .arrays import Matrix, Vector
from .caution import Caution
from .panel import Exclusion, OptionPanel
from .pipeline import Assessment
from .report import calibration_report, notes, stages_us

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


class Fit(NamedTuple):
    """How near the model comes to the quotes used, in volatility."""

    rmse_bp: float
    """Unweighted, of model vol less mid vol, in basis points of vol."""
    max_abs_bp: float
    mape_pct: float
    n_quotes: int
    excluded: tuple[Exclusion, ...]
    """The quotes left out, by their position, each with the reason."""


class Violation(NamedTuple):
    """One static arbitrage."""

    kind: str
    """`butterfly`, `calendar`, `vertical` or `bounds`."""
    expiry: float
    """Years."""
    strike: float
    """In the unit of the quotes; strike / forward where log-moneyness was given."""
    size: float
    """In units of the forward."""


class Verdict(NamedTuple):
    """The outcome of one check for static arbitrage."""

    free: bool
    n_violations: int
    violations: tuple[Violation, ...]
    """The largest, largest first."""


class Arbitrage(NamedTuple):
    quotes: Verdict
    surface: Verdict
    """The fitted one."""

    @property
    def free(self) -> bool:
        return self.quotes.free and self.surface.free


@dataclass(frozen=True, repr=False, eq=False)
class CalibrationResult:
    """A calibrated panel. Its attributes have the names that the answers of the service and of its client have."""

    assessment: Assessment
    """All that is known of the fit, as the pipeline made it."""
    reading: float = 0.0
    """Seconds that the reading of the quotes took."""

    @cached_property
    def _document(self) -> dict[str, Any]:
        timing = stages_us(decode=self.reading, queue=0.0, **self.assessment.seconds._asdict())
        return calibration_report(self.assessment, timing_us=timing, detail=True)

    @property
    def model(self) -> str:
        return self.assessment.calibration.model.name

    @property
    def parameters(self) -> dict[str, float]:
        return dict(self._document["parameters"])

    @property
    def standard_errors(self) -> dict[str, float | None]:
        """None where there is none: `message` says why."""
        return dict(self._document["standard_errors"])

    @property
    def parameter_correlation(self) -> Matrix:
        """(n_params, n_params), NaN where there is none."""
        return self.assessment.calibration.correlation

    @property
    def fit(self) -> Fit:
        return Fit(**{**self._document["fit"], "excluded": self.assessment.calibration.excluded})

    @property
    def feller_ratio(self) -> float:
        """Of the tightest variance factor: above 1 it never reaches zero."""
        return self.assessment.calibration.feller_ratio

    @cached_property
    def arbitrage(self) -> Arbitrage:
        return Arbitrage(**{name: _verdict(found) for name, found in self._document["arbitrage"].items()})

    @property
    def status(self) -> str:
        """`converged`, `network_only`, `budget_exhausted` or `not_converged`."""
        return self.assessment.calibration.status

    @property
    def message(self) -> str | None:
        """What keeps the fit from being more than it is, and what to try."""
        return self.assessment.calibration.message

    @property
    def start(self) -> str:
        """Which start led to the answer: `network`, `fallback` (read off the surface) or `given`."""
        return self.assessment.calibration.start

    @property
    def iterations(self) -> int:
        return self.assessment.calibration.iterations

    @property
    def out_of_domain(self) -> bool:
        """The panel, or the answer, is not of the kind that any network was trained on."""
        return self.assessment.out_of_domain

    @property
    def at_bounds(self) -> tuple[str, ...]:
        """The parameters at an admissible bound, or at one of the bounds given."""
        return self.assessment.calibration.at_bounds

    @property
    def noise_bp(self) -> float | None:
        """Standard deviation of a quote of weight one that the prior was weighed against; None without a prior."""
        return self.assessment.calibration.noise_bp

    @property
    def warnings(self) -> tuple[Caution, ...]:
        """What a desk should look at although the quotes are valid."""
        return self.assessment.cautions

    @property
    def timing_us(self) -> dict[str, float]:
        """Microseconds in each stage, and `total`."""
        return dict(self._document["timing_us"])

    @property
    def model_version(self) -> str | None:
        """Version of the networks; None without any."""
        return self.assessment.model_version

    @property
    def model_iv(self) -> Vector:
        """The model's vols in the order of the quotes given, NaN for those left out."""
        return np.array(self._document["model_iv"], np.float64)

    @property
    def panel(self) -> OptionPanel:
        """The quotes used."""
        return self.assessment.calibration.panel

    def to_dict(self, *, detail: bool = False) -> dict[str, Any]:
        """As `POST /v1/calibrate` answers: lists, strings and numbers, with None for what is not known.

        detail  adds `parameter_correlation` and `model_iv`
        """
        return calibration_report(self.assessment, timing_us=self.timing_us, detail=detail)

    def to_frame(self, of: Literal["parameters", "quotes"] = "parameters") -> "pandas.DataFrame":
        """A pandas data frame.

        of       `parameters`: a row for each, with its standard error and its bounds;
                 `quotes`: a row for each quote used, by its position, with the model's vol and its error
        raises   ImportError without pandas
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("`to_frame` needs pandas: pip install 'calibrant[notebook]'.") from error
        calibration, panel = self.assessment.calibration, self.panel
        if of == "quotes":
            strikes = {} if panel.forward is None else {"strike": panel.forward * np.exp(panel.log_moneyness)}
            forwards = {} if panel.forward is None else {"forward": panel.forward}
            columns = {
                "expiry": panel.expiry,
                **strikes,
                **forwards,
                "log_moneyness": panel.log_moneyness,
                "bid_iv": panel.bid,
                "ask_iv": panel.ask,
                "iv": panel.mid,
                "weight": panel.weight,
                "model_iv": calibration.model_iv,
                "error_bp": 1e4 * (calibration.model_iv - panel.mid),
            }
            return pandas.DataFrame(columns, index=pandas.Index(panel.index, name="quote")).sort_index()
        model = calibration.model
        columns = {
            "value": calibration.parameters,
            "standard_error": calibration.standard_errors,
            "lower": model.lower,
            "upper": model.upper,
        }
        return pandas.DataFrame(columns, index=pandas.Index(model.parameters, name="parameter"))

    def plot(self) -> "list[Axes]":
        """Draw the smile of each expiry: quotes, their spreads where there are any, quotes left out, and the fit.

        returns  the axes, one an expiry; `axes[0].figure` is the figure
        raises   ImportError without matplotlib
        """
        from .plotting import draw_smiles

        return draw_smiles(self.assessment)

    def __repr__(self) -> str:
        calibration = self.assessment.calibration
        width = max(map(len, calibration.model.parameters))
        rows = zip(calibration.model.parameters, calibration.parameters, calibration.standard_errors, strict=True)
        fit = calibration.n_quotes, calibration.n_quotes + len(calibration.excluded), calibration.rmse_bp
        return "\n".join(
            (
                f"{self.model}: {self.status}, from the start `{self.start}`",
                *(f"  {name:{width}} {value:>10.5g}  {_error(error)}" for name, value, error in rows),
                "  {} of {} quotes fitted, root mean square error {:.2f} bp of vol".format(*fit),
                *(f"  {note}" for note in notes(self.assessment)),
            )
        )


def _error(error: float) -> str:
    return "+- unknown" if np.isnan(error) else f"+- {error:.2g}"


def _verdict(found: dict[str, Any]) -> Verdict:
    return Verdict(**{**found, "violations": tuple(Violation(**violation) for violation in found["violations"])})
