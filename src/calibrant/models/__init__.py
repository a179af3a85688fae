"""The models, by the name that requests use."""

from .bates import BATES
from .double_heston import DOUBLE_HESTON
from .double_heston_jump import DOUBLE_HESTON_JUMP
from .heston import HESTON
from .model import Model

MODELS: dict[str, Model] = {model.name: model for model in (HESTON, BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP)}

__all__ = ["BATES", "DOUBLE_HESTON", "DOUBLE_HESTON_JUMP", "HESTON", "MODELS", "Model"]
