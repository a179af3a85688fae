"""Settings, each from an environment variable `CALIBRANT_<NAME>`."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, FilePath
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "CALIBRANT_"

_ORIGIN = "[a-z][a-z0-9+.-]*://[^A-Z/, ]+"
"""As browsers write it: in lower case, without a path."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    networks: Path = Field(
        Path("networks"),
        description="Folder of the released networks, `<model>/<version>`; the highest version of each model is "
        "served.",
    )
    provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        "cpu", description="What runs the networks; if it cannot, the service does not start on another."
    )
    precision: Literal["fp32", "fp16"] = Field("fp32", description="Precision of the networks' TensorRT engines.")
    gpu_refinement: bool = Field(
        False, description="Refine batches of Heston on the GPU, thousands of panels in one call."
    )
    max_body_bytes: int = Field(4 << 20, ge=1, description="Largest request body; a larger one gets 413.")
    max_batch_body_bytes: int = Field(64 << 20, ge=1, description="Largest body of a batch; a larger one gets 413.")
    max_memory_bytes: int = Field(
        384 << 20,
        ge=1 << 20,
        description="What the requests that one process has in hand may take of its memory, beside what it takes "
        "itself; the next get 503, and 413 what alone would take more than half of it.",
    )
    max_batch_panels: int = Field(20_000, ge=1, description="Most panels of one batch; one with more gets 413.")
    batch_threads: int | None = Field(
        None, ge=1, description="Threads that share a batch's work; by default one less than there are cores."
    )
    max_work: float = Field(
        300_000.0,
        gt=0.0,
        description="Quotes times evaluations of the model after which a calibration ends with the best so far, "
        "`budget_exhausted`, about a second's worth; for a panel of more than 1,000 quotes, and a model of several "
        "factors, proportionally more.",
    )
    default_deadline_ms: float = Field(
        1000.0,
        gt=0.0,
        description="A short job whose client gave no deadline waits no longer than this for its turn; once begun "
        "it gets its whole answer.",
    )
    long_job_ms: float = Field(3.0, gt=0.0, description="Processor time after which a job lets waiting ones go first.")
    long_queue_s: float = Field(
        10.0, gt=0.0, description="A long job without a deadline is refused where others would delay it by more."
    )
    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks of proxies, separated by commas, or `*`, whose `X-Forwarded-For` names "
        "the client; by default that header is ignored.",
    )
    cors_origins: str | None = Field(
        None,
        pattern=f"^(\\*|{_ORIGIN}( *, *{_ORIGIN})*)$",
        description="Origins as `https://desk.example`, separated by commas, or `*`, whose pages may ask from a "
        "browser (CORS); by default none may.",
    )
    rate_limit: float | None = Field(None, gt=0.0, description="Requests a second that one key, or address, may make.")
    rate_burst: int = Field(20, ge=1, description="Requests that a client may make at once under the rate limit.")
    api_keys: FilePath | None = Field(None, description="File made with `python -m service.auth`; else open to all.")
    tls_certificate: FilePath | None = Field(None, description="PEM file of the certificate chain, for HTTPS.")
    tls_key: FilePath | None = Field(None, description="PEM file of the certificate's private key.")
    header_timeout_s: float = Field(5.0, gt=0.0, description="A request's headers must have arrived within this time.")
    body_timeout_s: float = Field(10.0, gt=0.0, description="A request's body must have arrived within this time.")
    write_timeout_s: float = Field(10.0, gt=0.0, description="A client that reads no answer for so long is cut off.")
    keep_alive_s: int = Field(75, ge=1, description="A connection without requests is closed after this.")
    max_connections: int = Field(4096, ge=1, description="Connections that one worker keeps; the next get 503.")
    workers: int = Field(1, ge=1, description="Worker processes; each has its own engine and serves the same port.")
    drain_s: float = Field(5.0, ge=0.0, description="After SIGTERM it is not ready, and goes on accepting for so long.")
    stop_s: float = Field(30.0, gt=0.0, description="After `drain_s` the time that requests in flight are given.")
    max_jobs: int = Field(1000, ge=1, description="Jobs known at a time; the oldest that has ended is forgotten.")
    max_job_bytes: int = Field(
        128 << 20, ge=1, description="Memory for the results of all jobs; the oldest job that has ended is forgotten."
    )
    max_job_s: float = Field(
        600.0, gt=0.0, description="Processor time that a leverage or its prices may be expected to take; 413 beyond."
    )
    job_result_s: float = Field(3600.0, gt=0.0, le=3600.0, description="A job that has ended is known for so long.")
    audit_share: float = Field(0.0, ge=0.0, le=1.0, description="Share of the answers that audits calibrate again.")
    audit_starts: int = Field(12, ge=1, description="Random starts of one audit, beside those read off the surface.")
    audit_seed: int = Field(0, description="Seed of the choice of answers to audit and of the random starts.")
    log_requests: bool = Field(False, description="A line in the log for every request.")
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or a JSON object a line.")
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field("info", description="Least level kept.")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{_PREFIX}{name.upper()}"


def unknown(variables: Iterable[str]) -> dict[str, str]:
    """Those of some environment variables that look like settings and are none, each with the nearest that is one: a
    misspelt limit would otherwise be no limit."""
    settings = list(map(variable, Settings.model_fields))
    # In any case of letters, as pydantic reads them.
    strange = [name for name in variables if name.upper().startswith(_PREFIX) and name.upper() not in settings]
    return {name: difflib.get_close_matches(name.upper(), settings, n=1, cutoff=0.0)[0] for name in sorted(strange)}
