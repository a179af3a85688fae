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
    name: str
    data_type: Literal["TYPE_FP64"]
    dims: list[int] = Field(description="Of one panel, without the batch.")
    optional: bool = False


class ConfigOutput(Response):
    name: str
    data_type: Literal["TYPE_FP64", "TYPE_STRING", "TYPE_BOOL"]
    dims: list[int]


class ModelConfig(Response):
    """How a model takes its tensors."""

    name: str
    platform: str
    backend: str
    max_batch_size: int = Field(description="Most panels of one request.")
    input: list[ConfigInput]
    output: list[ConfigOutput]


class Duration(Response):
    count: int
    ns: int


class InferenceStatistics(Response):
    """Requests of one panel each; `/v1/calibrate` counts as well."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class ModelStatistics(Response):
    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 if there was none.")
    inference_count: int = Field(description="Panels calibrated, those of batches included.")
    execution_count: int = Field(description="The same: each panel is calibrated by itself.")
    inference_stats: InferenceStatistics
    batch_stats: list[Duration]


class Statistics(Response):
    """Of all workers since the service began."""

    model_stats: list[ModelStatistics]


class IndexRequest(Request):
    ready: bool = Field(False, description="Only models that answer; all that there are do.")


class IndexEntry(Response):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


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
