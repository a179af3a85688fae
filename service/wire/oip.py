"""The Open Inference Protocol (KServe v2) with the binary tensor extension: a JSON header, then raw tensors.

The header is decoded by the same rules as every JSON body, the tensors are copied out of the bytes behind it. Tensors
of shape [n] are one panel, of shape [b, n] a panel a row. What the header says of lengths is compared with what is
there before anything is read by it. JSON tensors may hold `NaN`, which is no JSON but what clients write for one.

The options of a request are plain strings and numbers, and so a prior is a string of JSON; what was left out and what
is doubtful are outputs of the same kind, which come if they are asked for.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import to_json

from calibrant.arrays import IntVector, Matrix, Vector
from calibrant.errors import InvalidInput, Path, Problem, name_of, shown
from calibrant.models.model import Model
from calibrant.options import CalibrationOptions, Prior
from calibrant.panel import OptionPanel
from calibrant.pipeline import Assessment
from calibrant.report import exclusions, warnings

from ..engine import NO_NETWORK, CalibrationJob
from ..errors import InvalidRequest, ServiceError
from ..headers import whole_number
from .batch import Deadline, PanelRequest
from .documents import Echo
from .jobs import prior_in_text
from .json import decode_thoroughly
from .schema import LIST_TAG, NUMBER_TAG, Request, Response
from .validation import bad_body

HEADER_LENGTH = "inference-header-content-length"
JSON, BINARY = "application/json", "application/octet-stream"
MEDIA_TYPES = (JSON, BINARY)
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]

REQUIRED = ("log_moneyness", "expiry", "iv")
OPTIONAL = ("weight",)
_KNOWN = (*REQUIRED, *OPTIONAL)
DATATYPES: dict[str, np.dtype[Any]] = {"FP64": np.dtype("<f8"), "FP32": np.dtype("<f4")}


def _row_or_rows(value: Any) -> str:
    return LIST_TAG if isinstance(value, list) and value and isinstance(value[0], list) else NUMBER_TAG


# null is NaN's other spelling: JSON has only the one, rapidjson writes the other.
_Number = Annotated[float, Field(allow_inf_nan=True)] | None
_Row = Annotated[list[_Number], Field(fail_fast=True)]
_Rows = Annotated[list[_Row], Field(fail_fast=True)]
_Data = Annotated[Annotated[_Row, Tag(NUMBER_TAG)] | Annotated[_Rows, Tag(LIST_TAG)], Discriminator(_row_or_rows)]
# Above, no product of two is anything that a body could hold, and a number of thousands of digits cannot be printed.
_Size = Annotated[int, Field(ge=0, le=2**31)]


def _or_null(parameters: type[Request]) -> BeforeValidator:
    """Null for no parameters: what clients write that have a field for them and nothing to say."""
    return BeforeValidator(lambda value: {} if value is None else value, json_schema_input_type=parameters | None)


class TensorParameters(Request):
    """Other parameters of a tensor are notes of its client and are let through."""

    model_config = ConfigDict(extra="ignore")

    binary_data_size: _Size | None = Field(None, description="Bytes of this tensor behind the header.")
    shared_memory_region: str | None = Field(None, description="Not supported.")


class InferInput(Request):
    """One tensor, row by row, little-endian where it is binary."""

    name: str = Field(description="log_moneyness, expiry, iv, or optionally weight.")
    shape: list[_Size] = Field(description="[n] for one panel, [b, n] for a panel a row.")
    datatype: Literal["FP64", "FP32"] = Field(description="Of its numbers.")
    parameters: Annotated[TensorParameters, _or_null(TensorParameters)] = Field(
        TensorParameters(), description="Where its numbers are."
    )
    data: _Data | None = Field(None, description="Flat or nested; absent where the tensor is binary.")


class OutputParameters(Request):
    """How a tensor is wanted."""

    binary_data: bool | None = Field(None, description="By default as `binary_data_output` of the request says.")
    classification: int | None = Field(None, description="Not supported.")
    shared_memory_region: str | None = Field(None, description="Not supported.")


class InferOutput(Request):
    """A tensor that is wanted."""

    name: str = Field(description="One of those that the model's metadata list.")
    parameters: Annotated[OutputParameters, _or_null(OutputParameters)] = Field(
        OutputParameters(), description="How it is wanted."
    )


class InferParameters(Request):
    """How the panels are to be calibrated."""

    refine: Literal["lm", "lbfgs", "none"] = Field("lm", description="As that of `/v1/calibrate`.")
    loss: Literal["squared", "huber"] = Field("squared", description="As that of `/v1/calibrate`.")
    prior: str | None = Field(None, description="The `prior` of `/v1/calibrate` as a string of JSON, for every panel.")
    timeout: int = Field(0, ge=0, le=2**63, description="Microseconds from the first byte received; 0 is none.")
    binary_data_output: bool = Field(False, description="Whether outputs are binary where they do not say.")
    priority: int = Field(0, ge=0, le=2**63, description="Accepted and not used: every request of a panel is urgent.")


class InferRequest(Request):
    """A calibration as an inference: tensors in, tensors out."""

    id: str | None = Field(None, description="Echoed.")
    parameters: Annotated[InferParameters, _or_null(InferParameters)] = Field(
        InferParameters(), description="How the panels are to be calibrated."
    )
    inputs: list[InferInput] = Field(description="`log_moneyness`, `expiry`, `iv` and optionally `weight`.")
    outputs: list[InferOutput] | None = Field(
        None, description="If absent, all of them but `excluded` and `warnings`, which hold a JSON list for each panel."
    )


class OutputTensor(Response):
    """An answered tensor."""

    name: str = Field(
        description="`parameters`, `standard_errors`, `rmse_bp`, `status`, `arbitrage_free`, `message`, ..."
    )
    datatype: str = Field(description="`FP64`, `BYTES` or `BOOL`.")
    shape: list[int] = Field(description="A row per panel.")
    parameters: dict[str, int] | None = Field(None, description="`binary_data_size`, if it is behind the header.")
    data: list[float | None] | list[str] | list[bool] | None = Field(None, description="Its values, if it is not.")


class InferResponse(Response):
    """The calibrated panels."""

    model_name: str = Field(description="That was calibrated.")
    model_version: str = Field(description="Of its network; 0 is none.")
    id: str | None = Field(None, description="The request's.")
    outputs: list[OutputTensor] = Field(description="In the order in which they were asked for.")


class TensorMetadata(Response):
    """A tensor of a model."""

    name: str = Field(description="Its name.")
    datatype: str = Field(description="Of its values.")
    shape: list[int] = Field(description="-1 is any number.")


class ModelMetadata(Response):
    """The tensors of a model."""

    name: str = Field(description="Of the model.")
    versions: list[str] = Field(description="The one that is served.")
    platform: str = Field(description="What it runs on.")
    inputs: list[TensorMetadata] = Field(description="That it takes.")
    outputs: list[TensorMetadata] = Field(description="That it gives.")


class ServerMetadata(Response):
    """What answers here."""

    name: str = Field(description="`calibrant`.")
    version: str = Field(description="Of this program.")
    extensions: list[str] = Field(description="Of the protocol, that it knows.")


@dataclass(frozen=True)
class Inference:
    """A decoded request: a batch of as many panels as its tensors have rows."""

    model: Model
    asked: InferRequest
    tensors: dict[str, Matrix]
    """(b, n) each, float64."""
    rows: bool
    """Whether the shape was [b, n] and not [n]."""
    prior: Prior | None

    @property
    def n_panels(self) -> int:
        return len(self.tensors["iv"])

    @property
    def largest_panel(self) -> int:
        return sum(tensor[0].nbytes for tensor in self.tensors.values())

    def n_quotes(self, i: int) -> int:
        return int(self.tensors["iv"].shape[1])

    def panel(self, i: int, deadline: Deadline) -> PanelRequest:
        """The panel of one row.

        raises  InvalidRequest that points into the inputs
        """
        quotes: dict[str, Vector] = {name: tensor[i] for name, tensor in self.tensors.items()}
        # Where expiry has no NaN nothing is padding, and almost always nothing is.
        places = None
        if np.isnan(quotes["expiry"]).any():
            padding = np.logical_and.reduce([np.isnan(column) for column in quotes.values()])
            places = np.flatnonzero(~padding)
            quotes = {name: column[places] for name, column in quotes.items()}
        try:
            panel = OptionPanel.from_quotes(**quotes, path=())
        except InvalidInput as error:
            raise InvalidRequest([self._located(problem, i, places) for problem in error.problems]) from None
        if places is not None:
            panel = panel.renumbered(places)
        asked = self.asked.parameters
        due = deadline(1e-3 * asked.timeout if asked.timeout else None)
        options = CalibrationOptions(refine=asked.refine, prior=self.prior, loss=asked.loss)
        return PanelRequest(CalibrationJob(model=self.model, panel=panel, options=options, deadline=due), _ECHO)

    def refusal(self, i: int, problems: Sequence[Problem]) -> InvalidRequest:
        return InvalidRequest([self._located(problem, i, None) for problem in problems])

    def _located(self, problem: Problem, row: int, places: IntVector | None) -> Problem:
        """A problem of a row's panel as one of the request; the sentence goes on naming the tensor.

        places  (n_quotes,), where in the row the panel's quotes are; None if that is where they were
        """
        name, *index = problem.path
        if name in InferParameters.model_fields:
            return Problem.at(("parameters", name), problem.detail.split("` ", 1)[1])
        if index and places is not None:
            index = [int(places[int(index[0])])]
        if self.rows:
            index = [row, *index]
        detail = f"`{name_of((name, *index))}` {problem.detail.split('` ', 1)[1]}"
        names = [tensor.name for tensor in self.asked.inputs]
        # What is wrong with a panel as a whole is no one tensor's.
        return Problem(("inputs", names.index(str(name)), "data", *index) if name in names else ("inputs",), detail)


_ECHO = Echo()


def header_length(value: str | None) -> int | None:
    """Of the header `Inference-Header-Content-Length`; None if the body is all JSON.

    raises  InvalidInput if that is no whole number
    """
    if value is None:
        return None
    length = whole_number(value)
    if length is None:
        needed = f"must be a whole number of bytes, but is {shown(value)!r}."
        raise InvalidInput(Problem((), f"The header Inference-Header-Content-Length {needed}"))
    return length


def decode_request(body: bytes, header_bytes: int | None, model: Model) -> Inference:
    """A body, not compressed, with a header of so many bytes (None: it is all header).

    raises  InvalidRequest
    """
    if header_bytes is None:
        header_bytes = len(body)
    elif header_bytes > len(body):
        raise bad_body(f"must begin with a header of {header_bytes} bytes, but has {len(body)} bytes in all.")
    asked = decode_thoroughly(body[:header_bytes], InferRequest)
    problems = _input_problems(asked.inputs)
    if asked.outputs is not None:
        problems += _output_problems(asked.outputs)
    if problems:
        raise InvalidRequest(problems)
    given = asked.parameters.prior
    prior = None if given is None else prior_in_text(model, given, ("parameters", "prior"))
    shape = asked.inputs[0].shape
    as_rows = shape if len(shape) == 2 else (1, shape[0])
    n = prod(shape)
    tensors: dict[str, Matrix] = {}
    place = header_bytes
    for i, tensor in enumerate(asked.inputs):
        size = tensor.parameters.binary_data_size
        if size is None:
            flat = _from_json(tensor, i, n)
        else:
            flat = _from_bytes(tensor, i, n, body, place)
            place += size
        tensors[tensor.name] = flat.reshape(as_rows)
    if place != len(body):
        behind = len(body) - header_bytes
        raise bad_body(f"has {behind} bytes behind its header, but its tensors take {place - header_bytes}.")
    return Inference(model, asked, tensors, len(shape) == 2, prior)


def _input_problems(inputs: Sequence[InferInput]) -> list[Problem]:
    """Each tensor must be there once, those that are needed in any case, all of one shape."""
    problems = []
    names: set[str] = set()
    for i, tensor in enumerate(inputs):
        if tensor.name not in _KNOWN:
            problems.append(_problem(("inputs", i, "name"), f"must be one of {', '.join(_KNOWN)}, but is", tensor.name))
        elif tensor.name in names:
            problems.append(Problem.at(("inputs", i, "name"), f"must not name {tensor.name} a second time."))
        names.add(tensor.name)
        if len(tensor.shape) not in (1, 2):
            problems.append(_problem(("inputs", i, "shape"), "must be [n] or [b, n], but is", tensor.shape))
        elif tensor.shape[0] == 0:
            problems.append(Problem.at(("inputs", i, "shape"), "must hold at least one quote, but is empty."))
        elif tensor.shape != inputs[0].shape:
            needed = f"must be that of `inputs[0]`, {shown(inputs[0].shape)}, but is"
            problems.append(_problem(("inputs", i, "shape"), needed, tensor.shape))
        if tensor.parameters.shared_memory_region is not None:
            place = ("inputs", i, "parameters", "shared_memory_region")
            problems.append(Problem.at(place, "must be absent: this service reads no shared memory."))
    for name in REQUIRED:
        if name not in names:
            problems.append(Problem.at(("inputs",), f"must hold {', '.join(REQUIRED)}, but {name} is absent."))
    return problems


def _output_problems(outputs: Sequence[InferOutput]) -> list[Problem]:
    problems = []
    for i, output in enumerate(outputs):
        if output.name not in OUTPUTS:
            needed = f"must be one of {', '.join(OUTPUTS)}, but is"
            problems.append(_problem(("outputs", i, "name"), needed, output.name))
        for name in ("classification", "shared_memory_region"):
            if getattr(output.parameters, name) is not None:
                problems.append(Problem.at(("outputs", i, "parameters", name), "must be absent: it is not supported."))
    return problems


def _from_bytes(tensor: InferInput, i: int, n: int, body: bytes, place: int) -> Vector:
    """The n values of a tensor whose bytes begin at a place of the body."""
    dtype, size = DATATYPES[tensor.datatype], tensor.parameters.binary_data_size
    if size != n * dtype.itemsize:
        where = ("inputs", i, "parameters", "binary_data_size")
        needed = f"must be {n * dtype.itemsize} for {tensor.datatype} of shape {tensor.shape}, but is"
        raise InvalidRequest([_problem(where, needed, size)])
    if tensor.data is not None:
        raise InvalidRequest([Problem.at(("inputs", i, "data"), "must be absent where the tensor is binary.")])
    if size > len(body) - place:
        where = ("inputs", i, "parameters", "binary_data_size")
        needed = f"must be at most the {len(body) - place} bytes that are left behind the header, but is"
        raise InvalidRequest([_problem(where, needed, size)])
    # Copied even if it is float64 already: it may begin at any byte, and the kernels are compiled for aligned numbers.
    return np.frombuffer(body, dtype, n, place).astype(np.float64)


def _from_json(tensor: InferInput, i: int, n: int) -> Vector:
    if tensor.data is None:
        raise InvalidRequest([Problem.at(("inputs", i, "data"), "is required, or `binary_data_size`.")])
    data: Any = tensor.data
    if data and isinstance(data[0], list):
        if [len(data), *{len(row) for row in data}] != tensor.shape:
            needed = f"must be of shape {tensor.shape}, but has rows of other lengths or another number of them."
            raise InvalidRequest([Problem.at(("inputs", i, "data"), needed)])
        data = [value for row in data for value in row]
    if len(data) != n:
        needed = f"must hold {n} values for the shape {tensor.shape}, but holds {len(data)}."
        raise InvalidRequest([Problem.at(("inputs", i, "data"), needed)])
    values = np.array(data, np.float64)
    if tensor.datatype == "FP32":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32).astype(np.float64)
    return values


def _problem(path: Path, needed: str, came: object) -> Problem:
    return Problem.at(path, f"{needed} {shown(came)}.")


# Answers --------------------------------------------------------------------------------------------------------------

OUTPUTS = {
    "parameters": "FP64",
    "standard_errors": "FP64",
    "rmse_bp": "FP64",
    "status": "BYTES",
    "arbitrage_free": "BOOL",
    "message": "BYTES",
    "excluded": "BYTES",
    "warnings": "BYTES",
}
"""In the order in which they are answered. `message` is the answer's, or what a row was refused for; or empty."""
_IF_ASKED = ("excluded", "warnings")
_PER_PARAMETER = ("parameters", "standard_errors")

Row = dict[str, list[Any]]
"""The values of every output for one panel; NaN where there is no number."""


def row_of(outcome: Assessment | ServiceError, inference: Inference) -> Row:
    """What one panel has to say. One that was refused has no numbers, and its problem's code for a status."""
    row = _row_of(outcome, inference.model.n_params)
    for name, _ in _wanted(inference.asked):
        if name in _IF_ASKED:
            listed: list[Any] = []
            if not isinstance(outcome, ServiceError):
                listed = exclusions(outcome.calibration) if name == "excluded" else warnings(outcome)
            row[name] = [to_json(listed).decode()]
    return row


def _row_of(outcome: Assessment | ServiceError, n_params: int) -> Row:
    if isinstance(outcome, ServiceError):
        return {
            "parameters": [math.nan] * n_params,
            "standard_errors": [math.nan] * n_params,
            "rmse_bp": [math.nan],
            "status": [outcome.code],
            "arbitrage_free": [False],
            "message": [outcome.detail],
        }
    calibration = outcome.calibration
    return {
        "parameters": calibration.parameters.tolist(),
        "standard_errors": calibration.standard_errors.tolist(),
        "rmse_bp": [calibration.rmse_bp],
        "status": [calibration.status],
        "arbitrage_free": [outcome.quotes.free and outcome.surface.free],
        "message": [calibration.message or ""],
    }


def encode_answer(inference: Inference, version: str, rows: Sequence[Row]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its header if tensors follow it."""
    asked = inference.asked
    described, binary = [], []
    for name, is_binary in _wanted(asked):
        shape = [len(rows)] if inference.rows or name not in _PER_PARAMETER else []
        if name in _PER_PARAMETER:
            shape.append(inference.model.n_params)
        values = [value for row in rows for value in row[name]]
        entry: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": shape}
        if is_binary:
            binary.append(_to_bytes(values, OUTPUTS[name]))
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            # NaN becomes null, which numpy reads as NaN again.
            entry["data"] = values
        described.append(entry)
    header: dict[str, Any] = {"model_name": inference.model.name, "model_version": version}
    if asked.id is not None:
        header["id"] = asked.id
    head = to_json({**header, "outputs": described}, inf_nan_mode="null")
    return b"".join((head, *binary)), len(head) if binary else None


def _wanted(asked: InferRequest) -> list[tuple[str, bool]]:
    """The outputs asked for, and whether each is to be binary."""
    by_default = asked.parameters.binary_data_output
    if asked.outputs is None:
        return [(name, by_default) for name in OUTPUTS if name not in _IF_ASKED]
    given = [(output.name, output.parameters.binary_data) for output in asked.outputs]
    return [(name, by_default if binary is None else binary) for name, binary in given]


def _to_bytes(values: list[Any], datatype: str) -> bytes:
    if datatype == "FP64":
        return np.array(values, "<f8").tobytes()
    if datatype == "BOOL":
        return bytes(values)
    encoded = [value.encode() for value in values]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))


def model_metadata(model: Model, version: str) -> dict[str, Any]:
    """`ModelMetadata`: the shapes are those of b panels of n quotes."""
    inputs = [{"name": name, "datatype": "FP64", "shape": [-1, -1]} for name in (*REQUIRED, *OPTIONAL)]
    outputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": [-1, model.n_params] if name in _PER_PARAMETER else [-1],
        }
        for name, datatype in OUTPUTS.items()
    ]
    return {
        "name": model.name,
        "versions": [version],
        "platform": "numba" if version == NO_NETWORK else "onnxruntime",
        "inputs": inputs,
        "outputs": outputs,
    }
