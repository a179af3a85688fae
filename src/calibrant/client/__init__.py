"""A client of the service, for threads (`Client`) and for event loops (`AsyncClient`).

    with Client("http://127.0.0.1:8000") as client:
        answer = client.calibrate({"expiry": expiry, "log_moneyness": log_moneyness, "iv": iv})

It needs the extra `client`. Both clients are the same steps (`steps`) with another way to wait.
"""

try:
    import httpx as _httpx  # noqa: F401
    import msgspec as _msgspec  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"calibrant.client needs httpx and msgspec: pip install 'calibrant[client]' ({error})."
    ) from error

from .asynchronous import AsyncClient
from .blocking import Client
from .errors import (
    CalibrantError,
    DeadlineExpired,
    EngineFailed,
    FieldProblem,
    InvalidInput,
    NoAnswer,
    NotAllowed,
    Overloaded,
    RateLimited,
)
from .patience import Retries
from .requests import BarrierOf, Chain, LeverageSettings, Options, PanelRequest, PriorOf, Quotes, TouchSettings
from .results import (
    Arbitrage,
    BatchItem,
    Calibration,
    Caution,
    EarlyExercise,
    Excluded,
    Fit,
    GridInfo,
    Job,
    Leverage,
    LeverageGrid,
    MartingaleError,
    ModelInfo,
    NetworkInfo,
    Outcome,
    Panel,
    PanelExpiry,
    Prices,
    RepricedVanilla,
    Touches,
    TouchPrice,
    Verdict,
    Violation,
)

__all__ = [
    "Arbitrage",
    "AsyncClient",
    "BarrierOf",
    "BatchItem",
    "CalibrantError",
    "Calibration",
    "Caution",
    "Chain",
    "Client",
    "DeadlineExpired",
    "EarlyExercise",
    "EngineFailed",
    "Excluded",
    "FieldProblem",
    "Fit",
    "GridInfo",
    "InvalidInput",
    "Job",
    "Leverage",
    "LeverageGrid",
    "LeverageSettings",
    "MartingaleError",
    "ModelInfo",
    "NetworkInfo",
    "NoAnswer",
    "NotAllowed",
    "Options",
    "Outcome",
    "Overloaded",
    "Panel",
    "PanelExpiry",
    "PanelRequest",
    "Prices",
    "PriorOf",
    "Quotes",
    "RateLimited",
    "RepricedVanilla",
    "Retries",
    "TouchPrice",
    "TouchSettings",
    "Touches",
    "Verdict",
    "Violation",
]
