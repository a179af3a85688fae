"""Jobs over sockets and two workers: found whichever is asked, told how far they are, cancelled, kept within bounds."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.service.client import Client
from tests.service.process import Server
from tests.service.test_bad_input import panel
from tests.service.test_simulations import CLOSED_FORM
from tests.shared import ROOT

BATCH = "/v1/calibrate/batch"
ASYNC = {"content-type": "application/json", "prefer": "respond-async"}


def batch(n: int) -> bytes:
    return json.dumps({"panels": [panel()] * n}).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(workers=2)
    try:
        server.wait_ready(workers=2)
        yield server
    finally:
        server.kill()


def ask(server: Server, method: str, path: str, **kwargs: Any) -> httpx.Response:
    """On a connection of its own, so that either worker may have it."""
    return httpx.request(method, server.url + path, timeout=60.0, **kwargs)


def begin(server: Server, body: bytes, kind: str = "batch", at: str = BATCH, **headers: str) -> str:
    """The path of a new job."""
    response = ask(server, "POST", at, content=body, headers={**ASYNC, **headers})
    assert response.status_code == 202, response.text
    assert response.headers["preference-applied"] == "respond-async"
    document, path = response.json(), response.headers["location"]
    assert path == f"/v1/jobs/{document['id']}"
    assert (document["kind"], document["state"] in ("queued", "running")) == (kind, True)
    return str(path)


def begin_leverage(server: Server) -> str:
    """One that takes minutes."""
    body = {"surface": CLOSED_FORM, "maturity": 2.0, "n_particles": 500_000}
    return begin(server, json.dumps(body).encode(), "leverage", "/v1/leverage")


def state(server: Server, path: str) -> Any:
    return ask(server, "GET", path).json()


def events_of(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Server-sent events: their names and data."""
    name = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def watched(server: Server, path: str) -> list[tuple[str, Any]]:
    with httpx.stream("GET", f"{server.url}{path}/events", timeout=60.0) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events_of(response))


def test_a_batch_that_became_a_job_has_the_results_that_it_would_have_had(server: Server) -> None:
    body = batch(40)
    at_once = ask(server, "POST", BATCH, content=body, headers={"content-type": "application/json"}).json()
    path = begin(server, body)
    (*before, (name, last)) = watched(server, path)
    assert (name, last["state"], last["progress"]) == ("done", "done", 1.0)
    assert all(name == "progress" for name, _ in before)
    shares = [document["progress"] for _, document in before]
    assert shares == sorted(shares)
    for _ in range(8):
        assert state(server, path) == last
        result = ask(server, "GET", f"{path}/result")
        assert (result.status_code, result.headers["content-type"]) == (200, "application/json")
        later = result.json()
        for one, other in zip(at_once["results"], later["results"], strict=True):
            assert {**one, "timing_us": 0} == {**other, "timing_us": 0}


def test_a_result_comes_in_the_format_that_was_asked_for(server: Server) -> None:
    path = begin(server, batch(3), accept="application/x-ndjson")
    assert watched(server, path)[-1][0] == "done"
    result = ask(server, "GET", f"{path}/result")
    assert result.headers["content-type"] == "application/x-ndjson"
    assert sorted(json.loads(line)["index"] for line in result.text.splitlines()) == [0, 1, 2]


def test_a_job_that_is_cancelled_leaves_nothing_behind_and_is_told(server: Server) -> None:
    path = begin(server, batch(20_000))
    server.until(lambda: state(server, path)["progress"] > 0.0)
    running = state(server, path)
    assert running["state"] == "running"
    assert running["eta_s"] > 0.0
    early = ask(server, "GET", f"{path}/result")
    assert (early.status_code, early.json()["code"], early.headers["retry-after"]) == (404, "not_found", "1")
    told: list[tuple[str, Any]] = []
    watching = threading.Thread(target=lambda: told.extend(watched(server, path)))
    watching.start()
    assert ask(server, "DELETE", path).json()["state"] == "cancelled"
    watching.join(30.0)
    assert told[-1][0] == "cancelled"
    assert state(server, path)["state"] == "cancelled"
    assert ask(server, "GET", f"{path}/result").status_code == 404
    server.until(lambda: server.metric('calibrant_memory_reserved_bytes{kind="job process"}') == 0)
    server.until(lambda: server.metric('calibrant_queue_depth{priority="bulk"}') == 0)
    assert server.metric('calibrant_jobs_ended_total{kind="batch",state="cancelled"}') >= 1
    # A second time it is forgotten.
    assert ask(server, "DELETE", path).status_code == 200
    assert ask(server, "GET", path).status_code == 404


def test_a_leverage_that_is_cancelled_leaves_nothing_behind(server: Server) -> None:
    path = begin_leverage(server)
    server.until(lambda: state(server, path)["progress"] > 0.0)
    assert server.metric('calibrant_memory_reserved_bytes{kind="job process"}') > 0
    assert ask(server, "DELETE", path).json()["state"] == "cancelled"
    assert ask(server, "GET", f"{path}/result").status_code == 404
    server.until(lambda: server.metric('calibrant_memory_reserved_bytes{kind="job process"}') == 0)
    server.until(lambda: server.metric('calibrant_queue_depth{priority="job"}') == 0)
    assert server.metric('calibrant_jobs_ended_total{kind="leverage",state="cancelled"}') == 1
    touch = {"leverage": path.rsplit("/", 1)[1], "barriers": [{"level": 2.0, "direction": "up", "expiry": 1.0}]}
    refused = ask(server, "POST", "/v1/one-touch", json=touch)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/leverage")


def test_a_job_whose_batch_is_none_has_failed_for_the_reason_it_would_have_been_refused(server: Server) -> None:
    path = begin(server, b'{"panels": []}')
    name, document = watched(server, path)[-1]
    assert (name, document["problem"]["code"]) == ("failed", "invalid_input")
    result = ask(server, "GET", f"{path}/result")
    assert (result.status_code, result.json()["code"]) == (422, "invalid_input")


def test_what_is_not_known_or_not_a_format_is_refused(server: Server) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("GET", "/result"), ("DELETE", "")):
        response = ask(server, method, f"/v1/jobs/{'0' * 40}{path}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")
    refused = ask(server, "POST", BATCH, content=b"", headers={**ASYNC, "content-type": "text/plain"})
    assert refused.status_code == 415
    assert ask(server, "POST", "/v1/jobs/x").headers["allow"] == "DELETE, GET, HEAD"


def test_who_only_watches_is_not_in_flight(server: Server) -> None:
    path = begin(server, batch(20_000))
    with httpx.stream("GET", f"{server.url}{path}/events", timeout=60.0) as response:
        next(events_of(response))
        assert server.metric("calibrant_in_flight") == 1
    ask(server, "DELETE", path)


def test_a_job_whose_process_is_killed_is_gone_and_who_asks_is_told(server: Server) -> None:
    lost_too, path = begin_leverage(server), begin(server, batch(20_000))
    (process,) = server.job_processes()
    with httpx.stream("GET", f"{server.url}{path}/events", timeout=60.0) as response:
        events = events_of(response)
        next(events)
        os.kill(process, signal.SIGKILL)
        *_, (name, document) = events
    assert (name, document["problem"]["code"]) == ("failed", "engine_failed")
    # While another one is being started there is nobody to ask.
    server.until(lambda: ask(server, "GET", path).status_code != 503, 120.0)
    for each in (path, lost_too):
        lost = ask(server, "GET", each)
        assert (lost.status_code, "process has ended" in lost.json()["detail"]) == (404, True)
    # And the next one is answered.
    assert watched(server, begin(server, batch(2)))[-1][0] == "done"
    for worker in server.workers():
        files = [os.readlink(link) for link in Path(f"/proc/{worker}/fd").iterdir() if link.exists()]
        assert not [file for file in files if "memfd" in file]


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Few jobs, few bytes, two keys."""
    import hashlib

    path = tmp_path_factory.mktemp("keys") / "keys.json"
    entries = {
        name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": ["batch"]} for name in ("desk", "risk")
    }
    path.write_text(json.dumps(entries))
    settings = Settings(networks=ROOT / "networks", api_keys=path, max_jobs=4, max_job_bytes=20_000, job_result_s=5.0)
    client = Client(settings)
    yield client
    client.close()


def begun(client: Client, n: int, key: str = "desk") -> str:
    response = client.post(BATCH, batch(n), prefer="respond-async", authorization=f"Bearer {key}")
    assert response.status_code == 202, response.text
    return str(response.headers["location"])


def asked(client: Client, path: str, key: str = "desk", method: str = "GET") -> httpx.Response:
    return client.request(method, path, headers={"authorization": f"Bearer {key}"})


def ended(client: Client, path: str, key: str = "desk") -> Any:
    return json.loads(asked(client, f"{path}/events", key).text.split("data: ")[-1])


def test_a_job_belongs_to_the_key_that_made_it(bounded: Client) -> None:
    path = begun(bounded, 1)
    assert ended(bounded, path)["state"] == "done"
    for what, method in (("", "GET"), ("/events", "GET"), ("/result", "GET"), ("", "DELETE")):
        assert asked(bounded, path + what, "risk", method).status_code == 404
        assert bounded.request(method, path + what).status_code == 401
    assert asked(bounded, f"{path}/result").status_code == 200


def test_results_are_bounded_in_number_bytes_and_time(bounded: Client) -> None:
    first = begun(bounded, 1)
    assert ended(bounded, first)["state"] == "done"
    paths = [begun(bounded, 1) for _ in range(4)]
    for path in paths:
        assert ended(bounded, path)["state"] == "done"
    # The oldest makes room.
    assert asked(bounded, first).status_code == 404
    known = [path for path in paths if asked(bounded, path).status_code == 200]
    assert known == paths[-len(known) :]
    metrics = bounded.app.service.metrics
    assert 0 < metrics.jobs_result_bytes.values[()][0] <= 20_000
    # One that alone is too large fails, and no other has to go for it.
    problem = ended(bounded, begun(bounded, 50))["problem"]
    assert problem["code"] == "too_large"
    assert asked(bounded, f"{paths[-1]}/result").status_code == 200

    import time

    until = time.monotonic() + 30.0
    while any(metrics.jobs.values[(state,)][0] for state in ("done", "failed", "running", "queued")):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert metrics.jobs_result_bytes.values[()][0] == 0
    assert asked(bounded, paths[-1]).status_code == 404


def test_ids_cannot_be_guessed(bounded: Client) -> None:
    ids = [begun(bounded, 1).rsplit("/", 1)[1] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(bytes.fromhex(each)) == 20 for each in ids)
