"""The models, by the name that requests use."""

import copyreg
from typing import Any

from .bates import BATES
from .double_heston import DOUBLE_HESTON
from .double_heston_jump import DOUBLE_HESTON_JUMP
from .heston import HESTON
from .model import Model

MODELS: dict[str, Model] = {model.name: model for model in (HESTON, BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP)}

__all__ = ["BATES", "DOUBLE_HESTON", "DOUBLE_HESTON_JUMP", "HESTON", "MODELS", "Model"]


def _listed(name: str) -> Model:
    return MODELS[name]


def _reduced(model: Model) -> str | tuple[Any, ...]:
    return (_listed, (model.name,)) if MODELS.get(model.name) is model else object.__reduce_ex__(model, 4)


# To another process a model of this list goes by its name: there it is the same one, with its functions.
copyreg.pickle(Model, _reduced)
