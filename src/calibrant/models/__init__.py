"""The models, by the name that requests use."""

from .heston import HESTON
from .model import Model

MODELS: dict[str, Model] = {HESTON.name: HESTON}

__all__ = ["HESTON", "MODELS", "Model"]
