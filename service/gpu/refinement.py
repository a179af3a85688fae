"""Batches refined on the GPU. What that needs only the extra `gpu` installs: it is imported when it is asked for."""

from collections.abc import Sequence

from calibrant.models import HESTON
from calibrant.models.model import Model
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel
from calibrant.pipeline import Begun


def refines(model: Model) -> bool:
    """Whether there are kernels for a model; batches of others are refined on the processor."""
    return model is HESTON


def require_gpu() -> None:
    """raises  RuntimeError with the reason why there is none"""
    try:
        from calibrant.gpu.target import ON_GPU
    except ImportError as error:
        raise RuntimeError("Refinement on the GPU needs numba-cuda: pip install 'calibrant[gpu]'.") from error
    if not ON_GPU:
        raise RuntimeError("Refinement on the GPU is asked for, but numba finds no GPU that it can use.")


def sharpened(
    model: Model, panels: Sequence[OptionPanel], begun: Sequence[Begun], options: Sequence[CalibrationOptions]
) -> list[Begun]:
    """The networks' proposals moved to their optima on the GPU, all in one call."""
    from calibrant.gpu.sharpen import sharpen

    better = sharpen(model, panels, [of_panel.proposals for of_panel in begun], options)
    return [of_panel._replace(proposals=proposals) for of_panel, proposals in zip(begun, better, strict=True)]
