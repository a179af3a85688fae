"""The image for processors, built and run; that for GPUs as far as it can be without one."""

import re
import subprocess
import tarfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import PurePosixPath
from threading import Event, Thread
from time import monotonic
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
from llvmlite.binding import get_host_cpu_features  # type: ignore[import-untyped]

from benchmarks.load.arrow import arrow_stream, quote_table
from deploy.tests.docker import CONFINED, Container, container, docker
from deploy.tests.images import BASE, REVISION, VERSION, build
from tests.shared import ROOT

DAX = msgspec.json.decode((ROOT / "examples" / "dax_20020705.json").read_bytes())
ARROW = "application/vnd.apache.arrow.stream"
# The machine of the tests may keep a thread waiting for longer than the 50 ms of a quoting path.
PATIENT = ("--env", "CALIBRANT_DEFAULT_DEADLINE_MS=5000")
READY_S = 5.0
"""From `docker run` to the first answer that says so."""
LARGEST_MB = 850
COMPILERS = r"(.*-)?(gcc|cc|cpp|[cg]\+\+|clang(\+\+)?|ld(\.(bfd|gold|lld))?|lld|as|[gc]?make|rustc|go|tcc)(-[\d.]+)?"
PACKAGES = {"pip", "setuptools", "wheel", "ensurepip", "torch", "pytest"}
LIBRARIES = {"site-packages", "dist-packages", "python3", "python3.11"}
"""Folders of installed packages; scipy has a folder `torch` of its own, which is none."""


@pytest.fixture(scope="module")
def service(service_image: str) -> Iterator[Container]:
    """One that says which compiled kernels it reads, and audits all its answers."""
    told = ("NUMBA_DEBUG_CACHE=1", "PYTHONUNBUFFERED=1", "CALIBRANT_AUDIT_SHARE=1")
    options = [option for variable in told for option in ("--env", variable)]
    with container(service_image, *PATIENT, *options) as running:
        running.until(running.ready)
        yield running


@pytest.fixture(scope="module")
def files(service_image: str) -> list[tarfile.TarInfo]:
    """All that a container of the image holds."""
    name = docker("create", service_image)
    try:
        with (
            subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as export,
            tarfile.open(fileobj=export.stdout, mode="r|") as archive,
        ):
            return list(archive)
    finally:
        docker("rm", name)


def test_a_container_that_may_nothing_answers(service: Container) -> None:
    assert service.inspect(".HostConfig.ReadonlyRootfs") is True
    assert service.inspect(".HostConfig.CapDrop") == ["ALL"]
    assert service.inspect(".Mounts") == []
    identity = docker("exec", service.name, "cat", "/proc/1/status")
    assert re.search(r"^Uid:\s+10001\s", identity, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", identity, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", identity, re.MULTILINE)
    answer = httpx.post(f"{service.url}/v1/calibrate", json=DAX, timeout=30.0).json()
    assert answer["status"] == "converged"
    assert answer["fit"]["rmse_bp"] == pytest.approx(131.70, abs=0.01)


def test_no_request_of_any_kind_compiles_anything(service: Container) -> None:
    quotes = {name: column[:40] if isinstance(column, list) else column for name, column in DAX["quotes"].items()}
    variants: list[dict[str, Any]] = [
        {},
        {"refine": "lbfgs"},
        {"refine": "none"},
        {"detail": True, "budget_ms": 2000},
        {"fixed": {"rho": -0.5}, "bounds": {"kappa": [1.0, 20.0]}},
        {"prior": {"parameters": {"kappa": 5.0}, "standard_deviations": {"kappa": 2.0}}},
        {"start": {"kappa": 5.0, "theta": 0.07, "xi": 1.0, "rho": -0.5, "v0": 0.2}},
    ]
    with httpx.Client(base_url=service.url, timeout=60.0) as http:
        for variant in variants:
            request = {"quotes": quotes, **variant}
            for content, kind in (
                (msgspec.json.encode(request), "application/json"),
                (msgspec.msgpack.encode(request), "application/msgpack"),
            ):
                answer = http.post("/v1/calibrate", content=content, headers={"content-type": kind})
                assert answer.status_code == 200, answer.text
        batch = msgspec.json.encode({"panels": [{"quotes": quotes}] * 3})
        table = arrow_stream(quote_table({"a": {name: column for name, column in quotes.items() if column}}))
        for content, kind, accept in (
            (batch, "application/json", "application/json"),
            (batch, "application/json", "application/x-ndjson"),
            (msgspec.msgpack.encode(msgspec.json.decode(batch)), "application/msgpack", "application/msgpack"),
            (table, ARROW, ARROW),
        ):
            headers = {"content-type": kind, "accept": accept}
            answer = http.post("/v1/calibrate/batch", content=content, headers=headers)
            assert answer.status_code == 200, answer.text
            assert b"problem" not in answer.content
        parameters = {"kappa": 2.0, "theta": 0.04, "xi": 0.5, "rho": -0.7, "v0": 0.05}
        for gradient in (False, True):
            request = {"parameters": parameters, "expiry": [0.5], "log_moneyness": [0.1], "gradient": gradient}
            answer = http.post("/v1/price", json=request)
            assert answer.status_code == 200, answer.text
    infer(service)
    service.until(lambda: audits(service) > 0)
    log = service.logs()
    assert "data loaded from" in log
    assert " saved to " not in log
    assert "compiled beforehand" not in log
    assert "Traceback" not in log
    assert "telemetry" not in log


def infer(service: Container) -> None:
    """By the Open Inference Protocol, in both precisions."""
    client = triton.InferenceServerClient(service.url.removeprefix("http://"))
    columns = {"log_moneyness": [-0.1, 0.0, 0.1] * 2, "expiry": [0.5] * 3 + [1.0] * 3, "iv": [0.24, 0.2, 0.18] * 2}
    for datatype, dtype in (("FP64", np.float64), ("FP32", np.float32)):
        for shape in ((6,), (2, 6)):
            inputs = []
            for name, values in columns.items():
                tensor = triton.InferInput(name, list(shape), datatype)
                tensor.set_data_from_numpy(np.broadcast_to(np.array(values, dtype), shape))
                inputs.append(tensor)
            assert np.isfinite(client.infer("heston", inputs).as_numpy("parameters")).all()
    client.close()


def audits(service: Container) -> int:
    text = httpx.get(f"{service.url}/metrics").text
    carried_out = r'^calibrant_audits_total\{.*outcome="(?:confirmed|better_found|failed)"\} (\S+)'
    return sum(int(float(n)) for n in re.findall(carried_out, text, re.MULTILINE))


def test_a_container_is_ready_within_five_seconds(service_image: str) -> None:
    took = []
    for _ in range(3):
        began = monotonic()
        with container(service_image) as started:
            started.until(started.ready)
            took.append(monotonic() - began)
    # The least of them: what else the machine does can only add to it.
    assert min(took) < READY_S, took


def test_the_health_check_turns_healthy(service: Container) -> None:
    service.until(lambda: service.inspect(".State.Health.Status") == "healthy")


def test_told_to_stop_it_answers_what_comes_until_the_drain_ends_and_ends_with_0(service_image: str) -> None:
    answers, stopped, failures = [], Event(), []
    with container(service_image, *PATIENT, "--env", "CALIBRANT_DRAIN_S=2") as draining:
        draining.until(draining.ready)

        def ask() -> None:
            with httpx.Client(base_url=draining.url, timeout=30.0) as http:
                while True:
                    try:
                        answer = http.post("/v1/calibrate", json=DAX)
                    except httpx.ConnectError:
                        return
                    except httpx.HTTPError as error:
                        failures.append(error)
                        return
                    answers.append((answer.status_code, stopped.is_set()))

        thread = Thread(target=ask)
        thread.start()
        draining.until(lambda: len(answers) > 2)
        stopped.set()
        docker("stop", "--time", "30", draining.name)
        thread.join()
        assert draining.inspect(".State.ExitCode") == 0
    assert failures == []
    assert {code for code, _ in answers} == {200}
    assert any(late for _, late in answers)


def test_a_processor_that_lacks_something_is_refused(service_image: str) -> None:
    lacking = next(name for name, there in sorted(get_host_cpu_features().items()) if not there)
    told = ("--env", f"NUMBA_CPU_FEATURES=+avx2,+{lacking}")
    run = subprocess.run(["docker", "run", "--rm", *CONFINED, *told, service_image], capture_output=True, text=True)
    assert run.returncode == 1
    assert f"compiled for processors with {lacking}, which this one" in run.stderr


def test_without_a_gpu_a_container_told_to_use_one_is_not_ready_and_says_why(service_image: str) -> None:
    with container(service_image, "--env", "CALIBRANT_PROVIDER=cuda") as wanting:

        def health() -> subprocess.CompletedProcess[str]:
            command = ["docker", "exec", wanting.name, "python", "-m", "service.health"]
            return subprocess.run(command, capture_output=True, text=True)

        # Its port opens a moment after it has come to know.
        wanting.until(lambda: "not ready" in wanting.logs() and "No answer" not in health().stdout)
        check = health()
        assert check.returncode == 1
        assert "The networks could not be loaded: " in check.stdout
        assert "CUDAExecutionProvider" in check.stdout


def test_no_compiler_no_header_no_installer_no_torch_and_no_test_is_in_it(files: list[tarfile.TarInfo]) -> None:
    paths = [PurePosixPath(file.name) for file in files]
    executable = {path.name for path, file in zip(paths, files, strict=True) if file.mode & 0o111 and not file.isdir()}
    assert len(paths) > 5000
    assert "python3.11" in executable
    assert [name for name in executable if re.fullmatch(COMPILERS, name)] == []
    assert [str(path) for path in paths if path.suffix in {".h", ".hpp", ".a", ".pyx"}] == []
    assert [str(p) for p in paths if p.parent.name in LIBRARIES and p.name.partition("-")[0] in PACKAGES] == []
    kept = [path for path, file in zip(paths, files, strict=True) if file.isfile()]
    assert [str(path) for path in kept if {"tests", "include"} & set(path.parts[:-1])] == []
    # Debian's Python has a few helpers for tests of one's own.
    of_debian = PurePosixPath("usr/lib")
    tests = [path for path in paths if path.name.startswith(("test_", "conftest")) and of_debian not in path.parents]
    assert tests == []


def test_the_service_can_write_nowhere_it_reads_from(files: list[tarfile.TarInfo]) -> None:
    kept = [file for file in files if file.isfile() or file.isdir()]
    # In a folder with the sticky bit, as /tmp, each writes only what is his.
    writable = [file.name for file in kept if file.mode & 0o002 and not file.mode & 0o1000]
    assert [file.name for file in kept if file.uid == 10001] + writable == []


def test_the_image_holds_the_versions_that_were_tested(service_image: str) -> None:
    code = "from importlib.metadata import distributions as d; print(*sorted(f'{x.name}=={x.version}' for x in d()))"
    installed = set(docker("run", "--rm", service_image, "python", "-c", code).lower().replace("_", "-").split())
    pinned = set((ROOT / "constraints.txt").read_text().lower().replace("_", "-").split())
    assert installed - pinned == {f"calibrant=={version('calibrant')}"}


def test_the_image_lists_what_it_holds(service_image: str) -> None:
    document = msgspec.json.decode(docker("run", "--rm", service_image, "cat", "/opt/calibrant/sbom.cdx.json"))
    assert document["bomFormat"] == "CycloneDX"
    root = document["metadata"]["component"]
    told = {f"{part['name']}=={part['version']}" for part in (root, *document["components"])}
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    assert told == set(docker("run", "--rm", service_image, "python", "-c", code).split())
    assert {part["purl"].partition("@")[0] for part in document["components"]} >= {"pkg:pypi/numpy", "pkg:pypi/scipy"}


def test_the_newest_network_is_in_it_and_no_older_one(service_image: str) -> None:
    newest = max((ROOT / "networks" / "heston").iterdir(), key=lambda folder: int(folder.name)).name
    assert docker("run", "--rm", service_image, "ls", "networks/heston") == newest


def test_labels_say_which_version_it_is_and_its_size_stays_in_bounds(service_image: str) -> None:
    labels, size = (
        docker("inspect", "--format", part, service_image) for part in ("{{json .Config.Labels}}", "{{.Size}}")
    )
    said = msgspec.json.decode(labels)
    assert said["org.opencontainers.image.version"] == VERSION
    assert said["org.opencontainers.image.revision"] == REVISION
    assert said["org.opencontainers.image.base.name"] == BASE
    assert int(size) < LARGEST_MB * 10**6


def test_the_target_for_gpus_can_make_what_engines_are_verified_with(base_image: str, service_image: str) -> None:
    # Its own packages are not to be had without an index of the vendor; what it adds to the other target is the same.
    image = build(base_image, "calibrant-gpu:test", "gpu")
    code = "import training.domain, training.panels; print('made')"
    assert docker("run", "--rm", *CONFINED, image, "python", "-c", code) == "made"
