"""What is asked of every panel of a backlog, and what a run is known by."""

from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from ..cluster import digest_of
from ..models import MODELS
from ..models.model import Model
from ..options import CalibrationOptions
from ..release import Release, release_for, release_in_reach

Block = Literal["day", "month", "year"]
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The same for all panels."""

    model: str = "heston"
    options: CalibrationOptions = field(default_factory=CalibrationOptions)
    block: Block = "month"
    """Dates of an underlying that make a unit; their series of starts begins anew with each."""
    warm: bool = True
    """Whether the answer before, of the same unit, is a start where the network's leaves doubt, or there is none."""
    network: Path | None = None
    """A released version; None for the newest in reach."""

    def of_model(self) -> Model:
        return MODELS[self.model]

    def release(self) -> Release | None:
        """raises  ArtefactError, as `release_for`"""
        if self.network is None:
            return release_in_reach(self.of_model())
        return _release(self.model, self.network)

    def document(self) -> dict[str, Any]:
        """All that the answers depend on besides the quotes, for JSON: where the networks lie is no part of it."""
        options, release = self.options, self.release()
        prior = options.prior
        return {
            "model": self.model,
            "model_version": None if release is None else release.version,
            "refine": options.refine,
            "loss": options.loss,
            "bounds": None if options.bounds is None else options.bounds.tolist(),
            "fixed": None if options.fixed is None else dict(options.fixed),
            "prior": None
            if prior is None
            else {
                "parameters": prior.parameters.tolist(),
                "standard_deviations": [str(each) for each in prior.standard_deviations.tolist()],
                "noise_bp": prior.noise_bp,
            },
            "block": self.block,
            "warm": self.warm,
            "calibrant": version("calibrant"),
            "code": _code(),
        }


@lru_cache
def _release(model: str, network: Path) -> Release | None:
    return release_for(MODELS[model], network)


@lru_cache
def _code() -> str:
    return digest_of(_PACKAGE)
