"""What Triton's own tools ask beside the Open Inference Protocol: configuration, statistics, index of the models."""

from collections import defaultdict
from typing import Any, Literal

from prometheus_client.parser import text_string_to_metric_families
from pydantic import Field, RootModel

from calibrant.models.model import Model

from . import oip
from .schema import Request, Response

_STAGES = {
    "queue": ("queue",),
    "compute_input": ("decode",),
    "compute_infer": ("network", "refine", "diagnostics"),
    "compute_output": ("encode",),
}
"""Triton's names for our stages."""


class ConfigInput(Response):
    """A tensor that a model takes."""

    name: str = Field(description="Its name.")
    data_type: Literal["TYPE_FP64"] = Field(description="Of its values; `TYPE_FP32` is taken as well.")
    dims: list[int] = Field(description="Of one panel, without the batch.")
    optional: bool = Field(False, description="Whether it may be absent.")


class ConfigOutput(Response):
    """A tensor that a model gives."""

    name: str = Field(description="Its name.")
    data_type: Literal["TYPE_FP64", "TYPE_STRING", "TYPE_BOOL"] = Field(description="Of its values.")
    dims: list[int] = Field(description="Of one panel, without the batch.")


class ModelConfig(Response):
    """How a model takes its tensors."""

    name: str = Field(description="Of the model.")
    platform: str = Field(description="What it runs on.")
    backend: str = Field(description="The same.")
    max_batch_size: int = Field(description="Most panels of one request.")
    input: list[ConfigInput] = Field(description="What it takes.")
    output: list[ConfigOutput] = Field(description="What it gives.")


class Duration(Response):
    """How often, and how long in all."""

    count: int = Field(description="Requests.")
    ns: int = Field(description="Nanoseconds, all of them together.")


class InferenceStatistics(Response):
    """Requests of one panel each; `/v1/calibrate` counts as well."""

    success: Duration = Field(description="Those that were answered.")
    fail: Duration = Field(description="Those that were refused once their model was known.")
    queue: Duration = Field(description="Waiting for a thread.")
    compute_input: Duration = Field(description="Reading the request.")
    compute_infer: Duration = Field(description="Network, refinement and checks.")
    compute_output: Duration = Field(description="Writing the answer.")
    cache_hit: Duration = Field(description="There is no cache.")
    cache_miss: Duration = Field(description="There is no cache.")


class ModelStatistics(Response):
    """Of one model."""

    name: str = Field(description="Of the model.")
    version: str = Field(description="Of its network; 0 is none.")
    last_inference: int = Field(description="Milliseconds since 1970; 0 if there was none.")
    inference_count: int = Field(description="Panels calibrated, those of batches included.")
    execution_count: int = Field(description="The same: each panel is calibrated by itself.")
    inference_stats: InferenceStatistics = Field(description="Times.")
    batch_stats: list[Duration] = Field(description="Empty: a batch is as many calibrations.")


class Statistics(Response):
    """Of all workers since the service began."""

    model_stats: list[ModelStatistics] = Field(description="An entry a model.")


class IndexRequest(Request):
    """Which models are to be listed."""

    ready: bool = Field(False, description="Only models that answer; all that there are do.")


class IndexEntry(Response):
    """A model."""

    name: str = Field(description="Of the model.")
    version: str = Field(description="Of its network; 0 is none.")
    state: Literal["READY", "UNAVAILABLE"] = Field(description="Whether it answers.")
    reason: str = Field(description="Why not.")


class RepositoryIndex(RootModel[list[IndexEntry]]):
    """An entry a model."""


def model_config(model: Model, version: str, max_batch: int) -> dict[str, Any]:
    """`ModelConfig`."""
    metadata = oip.model_metadata(model, version)
    data_types = {"FP64": "TYPE_FP64", "BYTES": "TYPE_STRING", "BOOL": "TYPE_BOOL"}
    tensors = {
        kind: [
            {"name": each["name"], "data_type": data_types[each["datatype"]], "dims": each["shape"][1:]}
            for each in metadata[kind]
        ]
        for kind in ("inputs", "outputs")
    }
    for tensor in tensors["inputs"]:
        tensor["optional"] = tensor["name"] in oip.OPTIONAL
    return {
        "name": model.name,
        "platform": metadata["platform"],
        "backend": metadata["platform"],
        "max_batch_size": max_batch,
        "input": tensors["inputs"],
        "output": tensors["outputs"],
    }


class Totals:
    """Sums over all labels that a reader leaves open, of an exposition in Prometheus's format."""

    def __init__(self, exposition: bytes) -> None:
        self._samples: defaultdict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(exposition.decode()):
            for sample in family.samples:
                self._samples[sample.name].append((sample.labels, sample.value))

    def of(self, name: str, **labels: str) -> float:
        return sum(value for has, value in self._samples[f"calibrant_{name}"] if labels.items() <= has.items())


def model_statistics(model: str, version: str, totals: Totals) -> dict[str, Any]:
    """`ModelStatistics`."""
    answered = int(totals.of("compute_duration_seconds_count", model=model))

    def duration(count: int, seconds: float) -> dict[str, int]:
        return {"count": count, "ns": round(1e9 * seconds)}

    stages = {
        name: duration(
            answered, sum(totals.of("model_stage_seconds_total", model=model, stage=stage) for stage in stages)
        )
        for name, stages in _STAGES.items()
    }
    calibrated = int(totals.of("calibrations_total", model=model))
    return {
        "name": model,
        "version": version,
        "last_inference": round(1e3 * totals.of("last_calibration_seconds", model=model)),
        "inference_count": calibrated,
        "execution_count": calibrated,
        "inference_stats": {
            "success": duration(answered, totals.of("model_stage_seconds_total", model=model)),
            "fail": duration(
                int(totals.of("refusal_duration_seconds_count", model=model)),
                totals.of("refusal_duration_seconds_sum", model=model),
            ),
            **stages,
            # There is no cache.
            "cache_hit": duration(0, 0.0),
            "cache_miss": duration(0, 0.0),
        },
        "batch_stats": [],
    }
