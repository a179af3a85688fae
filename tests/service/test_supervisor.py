"""Faults in real processes: a worker killed, stopped, hanging; an artefact damaged; a reload and an end under load."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.load.tensors import inference
from service.supervisor import bound
from tests.service.faulty import HANGS, NOT_A_NUMBER, RAISES
from tests.service.process import Server
from tests.shared import ROOT


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released") / "networks"
    shutil.copytree(ROOT / "networks", folder)
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "log"


@pytest.fixture(scope="module")
def server(networks: Path, log: Path) -> Iterator[Server]:
    # The patience of the service would have more to say about the machine of the tests than about the service.
    settings = {"workers": 2, "networks": networks, "default_deadline_ms": 30_000, "drain_s": 0.5}
    server = Server("tests.service.faulty", log, **settings)
    try:
        server.wait_ready(workers=2)
        yield server
    finally:
        server.kill()


def test_an_address_that_is_taken_is_refused() -> None:
    with bound("127.0.0.1", 0) as listener:
        listener.listen()
        with pytest.raises(OSError, match="in use"):
            bound("127.0.0.1", listener.getsockname()[1])


def panel(n_quotes: int) -> dict[str, Any]:
    k = [0.02 * (i - n_quotes // 2) for i in range(n_quotes)]
    return {"quotes": {"expiry": [0.5] * n_quotes, "log_moneyness": k, "iv": [0.2 - 0.1 * x for x in k]}}


class Load:
    """Clients that send requests one after the other, each over a connection of its own, until told to stop."""

    def __init__(self, server: Server, body: dict[str, Any], n_clients: int = 4) -> None:
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._server, self._body = server, body
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(n_clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=60.0) as http:
            while not self._stop.is_set():
                try:
                    self.statuses.append(http.post("/v1/calibrate", json=self._body).status_code)
                except httpx.ConnectError:
                    # Nobody listens any more: nothing was sent.
                    return
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    return
                time.sleep(0.01)


def answered_series(route: str) -> str:
    return f'calibrant_requests_total{{code="200",route="{route}"}}'


def answered(server: Server) -> float:
    return server.metric(answered_series("/v1/calibrate"))


def test_one_scrape_sums_the_workers(server: Server, dax: dict[str, Any]) -> None:
    before = answered(server)
    for i in range(12):
        # A connection each: whichever worker takes it.
        assert httpx.post(f"{server.url}/v1/calibrate", json={**dax, "id": str(i)}).status_code == 200
        assert answered(server) == before + i + 1


def test_until_the_first_worker_has_started_no_other_is(server: Server, log: Path) -> None:
    """Or both would compile the same kernels."""
    # By their times: each process writes its own when it comes to it.
    lines = "\n".join(sorted(log.read_text().splitlines()))
    # The one that compiled kernels gives way first: by itself, not to be counted as lost, and once.
    compiling, first, *others = (lines.index(f" {i} is process") for i in (1, 2, 3, 4))
    assert compiling < lines.index("compiled 1 kernels") < lines.index("worker 1 gives way") < first
    assert first < lines.index("loading the networks", first) < lines.index("serving heston", first) < min(others)
    assert lines.count("gives way") == 1
    assert "has ended with" not in lines
    assert server.metric("calibrant_workers_ended_total") == 0


def test_a_killed_worker_is_replaced_and_its_counts_stay(server: Server, dax: dict[str, Any]) -> None:
    # What it counted since its last snapshot, two seconds at most, goes with it; a scrape takes one.
    before = answered(server)
    ended = server.metric("calibrant_workers_ended_total")
    victim, survivor = server.workers()
    os.kill(victim, signal.SIGKILL)
    for _ in range(5):
        assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200
    server.until(lambda: survivor in server.workers() and len(set(server.workers()) - {victim}) == 2)
    assert answered(server) == before + 5
    server.wait_ready(workers=2)
    assert server.metric("calibrant_workers") == 2
    assert server.metric("calibrant_workers_ended_total") == ended + 1


def test_a_worker_that_falls_silent_is_replaced_within_ten_seconds(server: Server) -> None:
    victim = server.workers()[0]
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    server.until(lambda: victim not in server.workers())
    assert time.monotonic() - began < 10.0
    server.wait_ready(workers=2)


def test_an_engine_that_raises_is_a_problem_and_no_more(server: Server) -> None:
    before = server.metric("calibrant_engine_failures_total")
    response = httpx.post(f"{server.url}/v1/calibrate", json=panel(RAISES))
    assert (response.status_code, response.json()["code"]) == (500, "engine_failed")
    assert "secret" not in response.text
    assert httpx.post(f"{server.url}/v1/calibrate", json=panel(RAISES + 4)).status_code == 200
    assert server.metric("calibrant_engine_failures_total") == before + 1


def test_a_reload_loses_no_request_and_a_damaged_artefact_is_not_taken(
    server: Server, networks: Path, dax: dict[str, Any]
) -> None:
    sound = sorted(networks.rglob("*.onnx"))
    assert sound
    contents = {path: path.read_bytes() for path in sound}
    version = httpx.post(f"{server.url}/v1/calibrate", json=dax).json()["model_version"]
    with Load(server, dax) as load:
        for path, whole in contents.items():
            path.write_bytes(whole[:-1])
        server.process.send_signal(signal.SIGHUP)
        # Two workers and the job process.
        server.until(lambda: server.metric('calibrant_reloads_total{outcome="failed"}') == 3)
        assert server.metric("calibrant_last_reload_successful") == 0
        for path, whole in contents.items():
            path.write_bytes(whole)
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: server.metric('calibrant_reloads_total{outcome="done"}') == 3)
        assert server.metric("calibrant_last_reload_successful") == 1
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert httpx.post(f"{server.url}/v1/calibrate", json=dax).json()["model_version"] == version


def test_those_who_wait_for_a_hanging_engine_get_an_answer_and_it_is_replaced(
    server: Server, dax: dict[str, Any]
) -> None:
    before = set(server.workers())
    began = time.monotonic()
    # All over one connection each, at once: some wait behind the one that hangs, on the same worker.
    with Load(server, dax) as load:
        response = httpx.post(f"{server.url}/v1/calibrate", json=panel(HANGS), timeout=30.0)
        assert (response.status_code, response.json()["code"]) == (504, "deadline_expired")
        server.until(lambda: len(before - set(server.workers())) == 1)
        assert time.monotonic() - began < 10.0
    assert set(load.statuses) <= {200, 504}
    server.wait_ready(workers=2)
    assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200


def test_no_number_that_is_none_leaves_the_service(server: Server) -> None:
    response = httpx.post(f"{server.url}/v1/calibrate", json=panel(NOT_A_NUMBER))
    assert (response.status_code, response.json()["code"]) == (500, "engine_failed")


def batch_of(server: Server, n: int) -> httpx.Response:
    body = {"panels": [{**panel(20), "id": str(i)} for i in range(n)]}
    return httpx.post(f"{server.url}/v1/calibrate/batch", json=body, timeout=60.0)


def processor_ticks(pid: int) -> int:
    """Hundredths of a second, usually, that a process has had of the processors."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def test_a_batch_is_calibrated_by_a_worker_that_lets_all_others_go_first(server: Server, dax: dict[str, Any]) -> None:
    (worker,) = server.job_processes()
    policies = {os.sched_getscheduler(int(thread)) for thread in os.listdir(f"/proc/{worker}/task")}
    assert policies == {os.SCHED_IDLE}
    counted = ("calibrant_batch_size_count", "calibrant_batch_size_sum", "calibrant_refinement_iterations_count")
    series = [*counted[:2], f'{counted[2]}{{model="heston"}}', answered_series("/v1/calibrate/batch")]
    before = [server.metric(name) for name in series]
    alone = httpx.post(f"{server.url}/v1/calibrate", json=dax).json()
    together = httpx.post(f"{server.url}/v1/calibrate/batch", json={"panels": [dax, {}, dax]}).json()["results"]
    assert [result.get("parameters") for result in together] == [alone["parameters"], None, alone["parameters"]]
    assert [server.metric(name) - was for name, was in zip(series, before, strict=True)] == [1, 3, 3, 1]
    assert server.metric("calibrant_ready") == server.metric("calibrant_workers") == 2


def test_tensors_of_many_rows_are_a_batch(server: Server) -> None:
    columns = {name: np.array(values) for name, values in panel(20)["quotes"].items()}
    url = f"{server.url}/v2/models/heston/infer"

    def parameters(rows: int) -> Any:
        tensors = {name: np.tile(values, (rows, 1)) for name, values in columns.items()}
        body, headers = inference(tensors)
        answer = httpx.post(url, content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        (output,) = [x for x in answer.json()["outputs"] if x["name"] == "parameters"]
        return np.array(output["data"]).reshape(output["shape"]).tolist()

    assert parameters(3) == parameters(1) * 3


def test_a_batch_that_fails_the_engine_is_a_problem_of_its_panel(server: Server) -> None:
    body = {"panels": [panel(20), panel(RAISES), panel(NOT_A_NUMBER)]}
    results = httpx.post(f"{server.url}/v1/calibrate/batch", json=body).json()["results"]
    assert [result.get("code") for result in results] == [None, "engine_failed", "engine_failed"]


def test_a_batch_whose_worker_ends_is_refused_and_interactive_requests_do_not_notice(
    server: Server, dax: dict[str, Any]
) -> None:
    (victim,) = server.job_processes()
    answers: list[httpx.Response] = []
    batch = threading.Thread(target=lambda: answers.append(batch_of(server, 20_000)))
    with Load(server, dax) as load:
        before = processor_ticks(victim)
        batch.start()
        server.until(lambda: processor_ticks(victim) > before + 30)
        os.kill(victim, signal.SIGKILL)
        batch.join()
        (refused,) = answers
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_failed")
        assert int(refused.headers["retry-after"]) >= 1
        # The next one waits for what takes its place, as a client that heeds this does.
        server.until(lambda: batch_of(server, 2).status_code == 200, 60.0)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert victim not in server.job_processes()
    assert server.metric("calibrant_ready") == 2


def test_a_worker_that_has_nothing_to_serve_takes_no_connection_from_one_that_has(
    server: Server, networks: Path, log: Path, dax: dict[str, Any]
) -> None:
    def not_ready() -> int:
        return log.read_text().count("calibrant.service: not ready\n")

    files = {path: path.read_bytes() for path in networks.rglob("*.onnx")}

    def statuses(n: int) -> set[int]:
        # A connection each: whoever takes it.
        return {httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code for _ in range(n)}

    first, second = server.workers()
    try:
        for path, whole in files.items():
            path.write_bytes(whole[:-1])
        os.kill(first, signal.SIGKILL)
        server.until(lambda: not_ready() == 1, 60.0)
        assert statuses(60) == {200}
        # With none that serves, whoever is asked says why.
        os.kill(second, signal.SIGKILL)
        server.until(lambda: httpx.get(f"{server.url}/health/ready").status_code == 503, 60.0)
        answer = httpx.get(f"{server.url}/health/ready")
        assert "could not be loaded" in answer.json()["detail"]
    finally:
        for path, whole in files.items():
            path.write_bytes(whole)
    # And when they serve again they take connections again.
    server.process.send_signal(signal.SIGHUP)
    server.wait_ready(workers=2)
    assert statuses(20) == {200}


def test_audits_are_for_the_process_that_lets_all_others_go_first(networks: Path, dax: dict[str, Any]) -> None:
    server = Server(networks=networks, audit_share=1.0, default_deadline_ms=30_000)
    try:
        server.wait_ready(workers=1)
        (auditor,) = server.job_processes()
        confirmed = 'calibrant_audits_total{model="heston",outcome="confirmed"}'

        def ask() -> None:
            assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200

        ask()
        server.until(lambda: server.metric(confirmed) == 1.0)
        os.kill(auditor, signal.SIGSTOP)
        # Two wait for it; nobody waits for them.
        for _ in range(5):
            ask()
        assert server.metric('calibrant_audits_total{model="heston",outcome="passed_over"}') == 3.0
        time.sleep(1.0)
        assert server.metric(confirmed) == 1.0
        os.kill(auditor, signal.SIGCONT)
        server.until(lambda: server.metric(confirmed) == 3.0)
    finally:
        server.kill()


def test_the_end_under_load_loses_no_request(server: Server, dax: dict[str, Any]) -> None:
    # Last of this module: the server is not needed after it.
    with Load(server, dax) as load, httpx.Client(base_url=server.url) as http:
        answers: list[httpx.Response] = []
        batch = threading.Thread(target=lambda: answers.append(batch_of(server, 2000)))
        batch.start()
        time.sleep(0.5)
        assert http.get("/health/ready").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        ready = http.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert "draining" in ready.json()["detail"]
        assert server.process.wait(30) == 0
        batch.join()
    assert [result["status"] for result in answers[0].json()["results"]] == ["converged"] * 2000
    assert load.failures == []
    assert set(load.statuses) == {200}
