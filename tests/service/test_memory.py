"""The memory of requests in hand: reserved before it is taken, no more than there is, and given back."""

import gc
import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any

import msgspec
import numpy as np
import pyarrow
import pytest

from benchmarks.load.arrow import aliased, arrow_stream
from calibrant.errors import InvalidInput
from service.batches.crew import Crew
from service.batches.groups import Groups
from service.engine import Engine
from service.errors import InvalidRequest, Overloaded, ServiceError, TooLarge, bare
from service.memory import Memory, of_body, of_options, of_panel, of_quotes
from service.scheduler import Scheduler
from service.settings import Settings
from service.wire import schema
from service.wire.arrow import ArrowBatch
from service.wire.batch import BatchLimits, DocumentBatch
from service.wire.documents import calibration_document, price_document
from service.wire.formats import JSON, MSGPACK, Format
from service.wire.jobs import calibration_job, price_job
from tests.service.client import Client
from tests.service.test_bad_input import PARAMETERS, panel
from tests.shared import ROOT

MIB = 1 << 20


# The budget -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_what_is_reserved_is_what_is_held_and_never_more_than_there_is(seed: int) -> None:
    rng = random.Random(seed)
    memory, holds = Memory(1000), []
    refused: dict[type[ServiceError], int] = {TooLarge: 0, Overloaded: 0}
    for _ in range(2000):
        match rng.randrange(4):
            case 0:
                holds.append(memory.hold())
            case 1 if holds:
                # Closed, or dropped, which is the same.
                hold = holds.pop(rng.randrange(len(holds)))
                if rng.random() < 0.5:
                    hold.close()
                del hold
            case 2 if holds:
                holds.append(rng.choice(holds).part(rng.randrange(300)))
            case 3 if holds:
                hold = rng.choice(holds)
                before, wanted = hold.n_bytes, rng.randrange(600)
                kind: type[ServiceError] = TooLarge if wanted > 500 else Overloaded
                if kind is TooLarge or memory.reserved - before + wanted > 1000:
                    with pytest.raises(kind) as refusal:
                        hold.resize(wanted)
                    assert hold.n_bytes == before
                    assert kind is TooLarge or refusal.value.headers["retry-after"]
                    refused[kind] += 1
                    # By its traceback it holds what is held.
                    del refusal
                else:
                    hold.resize(wanted)
                    assert hold.n_bytes == wanted
        assert memory.reserved == sum(hold.n_bytes for hold in holds) <= 1000
    assert min(refused.values()) > 10
    holds.clear()
    assert memory.reserved == 0


def test_threads_reserve_together_no_more_than_there_is() -> None:
    memory = Memory(10_000)
    over = []

    def work() -> None:
        for _ in range(3000):
            with memory.hold() as hold:
                try:
                    hold.grow(3000)
                except Overloaded:
                    continue
                if memory.reserved > 10_000:
                    over.append(memory.reserved)

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not over
    assert memory.reserved == 0


def test_large_requests_leave_room_for_small_ones() -> None:
    memory = Memory(40 * MIB)
    with memory.hold() as one, memory.hold() as other, memory.hold() as small:
        one.grow(20 * MIB)
        other.grow(10 * MIB)
        with pytest.raises(Overloaded):
            other.grow(1)
        small.grow(MIB)
        with pytest.raises(Overloaded):
            small.grow(1)


# What is reserved is enough -----------------------------------------------------------------------------------------


@contextmanager
def taken() -> Iterator[Callable[[], int]]:
    """The most bytes that Python and numpy took within, beside what they had."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def quotes_of(n: int, missing: int) -> dict[str, Any]:
    """So many quotes in as few bytes as there can be, most of them missing."""
    good = panel()["quotes"]
    columns = {
        "expiry": good["expiry"],
        "log_moneyness": [round(k / 100.0 - 1.0, 1) for k in good["strike"]],
        "iv": good["iv"],
    }
    fill = {"expiry": 1, "log_moneyness": 0, "iv": None}
    kept = {name: column * ((n - missing) // 6) for name, column in columns.items()}
    return {"quotes": {name: [*column, *[fill[name]] * missing] for name, column in kept.items()}, "detail": True}


def calibrated(engine: Engine, body: bytes, wire: Format) -> bytes:
    asked = wire.decode(body, schema.CalibrateRequest)
    job = calibration_job(asked, None)
    outcome = engine.calibrate(job)
    return wire.encode(calibration_document(asked, outcome, {**outcome.seconds._asdict(), "decode": 0.0, "queue": 0.0}))


def priced(engine: Engine, body: bytes, wire: Format) -> bytes:
    job = price_job(wire.decode(body, schema.PriceRequest))
    return wire.encode(price_document(job, engine.price(job)))


def refused(engine: Engine, body: bytes, wire: Format) -> bytes:
    with pytest.raises(ServiceError):
        wire.decode(body, schema.CalibrateRequest)
    return b""


def options_of(n: int) -> dict[str, Any]:
    return {"parameters": PARAMETERS, "expiry": [1] * n, "log_moneyness": [0] * n, "gradient": True}


LARGE: dict[str, tuple[Any, Callable[[Engine, bytes, Format], bytes], int]] = {
    "quotes": (quotes_of(600, 0), calibrated, of_quotes(600)),
    "a panel of missing quotes": (quotes_of(30_000, 29_940), calibrated, of_quotes(30_000)),
    "options with their gradient": (options_of(20_000), priced, of_options(20_000)),
    "as many options as are priced together": (options_of(300), priced, of_options(300)),
    "a few options": (options_of(30), priced, of_options(30)),
    "an expiry an option": (
        {**options_of(400), "expiry": [round(0.01 * i, 2) for i in range(1, 401)]},
        priced,
        of_options(400),
    ),
    "options far out": (
        {**options_of(1000), "log_moneyness": [round(0.015 * i - 7.5, 3) for i in range(1000)]},
        priced,
        of_options(1000),
    ),
    "a wrong column": ({"quotes": {"expiry": [1] * 90_000, "iv": ["x"]}}, refused, of_quotes(30_000)),
}
"""With what is reserved beside the body."""


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("wire", [JSON, MSGPACK], ids=["JSON", "MessagePack"])
def test_a_request_takes_no_more_than_it_reserves(client: Client, name: str, wire: Format) -> None:
    document, work, beside = LARGE[name]
    packed = msgspec.msgpack.encode(document)
    body = packed if wire is MSGPACK else json.dumps(document, separators=(",", ":")).encode()
    engine = client.app.service.engine
    work(engine, body, wire)
    with taken() as most:
        answer = work(engine, body, wire)
        took = most()
    # The body itself is there twice, in pieces and as a whole, and the answer once more as it is sent. What a fit takes
    # whatever its size there is once for each lane.
    assert took + 2 * len(body) + len(answer) <= of_body(len(body)) + beside + 200_000
    assert beside <= of_panel(len(body)) or work is priced


def stream(n: int, columns: tuple[str, ...], kind: Any, key: Any) -> bytes:
    numbers = {name: pyarrow.array(np.ones(n, kind)) for name in columns}
    return arrow_stream(pyarrow.table({"panel": key, **numbers}))


KEYS: dict[str, Callable[[int], Any]] = {
    "one key": lambda n: pyarrow.array(np.zeros(n, np.int8)),
    "keys in turn": lambda n: pyarrow.array(np.arange(n) % 97, pyarrow.int64()),
    "a dictionary": lambda n: pyarrow.DictionaryArray.from_arrays(np.arange(n, dtype=np.int32) % 50, list("ab" * 25)),
    "strings": lambda n: pyarrow.array([f"panel {i % 1000}" for i in range(n)]),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", [np.int8, np.float64])
@pytest.mark.parametrize("columns", [("expiry",), ("expiry", "log_moneyness", "iv", "weight", "strike", "forward")])
def test_an_arrow_stream_takes_no_more_than_it_reserves(key: str, kind: Any, columns: tuple[str, ...]) -> None:
    n = 200_000
    body = stream(n, columns, kind, KEYS[key](n))
    ArrowBatch(body, BatchLimits(1000, MIB))
    reserved: list[int] = []
    pool = pyarrow.default_memory_pool()
    before = pool.bytes_allocated()
    with taken() as most:
        batch = ArrowBatch(body, BatchLimits(1000, MIB, reserved.append))
        took = most()
    kept = pool.bytes_allocated() - before
    assert batch.n_panels <= 1000
    assert took + kept <= sum(reserved)


def test_a_stream_whose_columns_are_one_buffer_is_refused_before_it_becomes_large() -> None:
    n = 100_001
    body = aliased(n)
    # Of its numbers and indices 80 and more bytes a row are made, for the one byte that is there.
    assert len(body) < 2 * n
    memory = Memory(2 * MIB)
    with memory.hold() as hold, taken() as most:
        with pytest.raises(TooLarge):
            ArrowBatch(body, BatchLimits(100, MIB, hold.grow))
        assert most() < MIB
    assert ArrowBatch(body, BatchLimits(100, 64 * MIB)).n_quotes(0) == n


def test_a_stream_of_many_empty_batches_is_refused_as_they_come() -> None:
    table = pyarrow.table({"panel": [1], "expiry": [0.5], "log_moneyness": [0.0], "iv": [0.2]})
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        for _ in range(2000):
            writer.write(table)
    memory = Memory(2 * MIB)
    with memory.hold() as hold, pytest.raises(TooLarge):
        ArrowBatch(sink.getvalue().to_pybytes(), BatchLimits(100, MIB, hold.grow))


# Batches --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[Client]:
    """A service of little memory."""
    client = Client(Settings(networks=ROOT / "networks", max_memory_bytes=48 * MIB, default_deadline_ms=5000.0))
    yield client
    client.close()


BATCH = "/v1/calibrate/batch"
MISSING = {"quotes": {"expiry": [1] * 2000, "log_moneyness": [0] * 2000, "iv": [*[0.2] * 6, *[None] * 1994]}}


def reserved(client: Client) -> int:
    memory: Memory = client.app.service.memory
    return memory.reserved


def test_an_answer_that_would_take_too_much_is_refused_as_a_whole_and_given_in_lines(small: Client) -> None:
    panels = [{**MISSING, "refine": "none"}] * 200
    refused = small.post(BATCH, {"panels": panels})
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert "application/x-ndjson" in refused.json()["detail"]
    assert reserved(small) == 0
    lines = small.post(BATCH, {"panels": panels}, accept="application/x-ndjson")
    assert lines.status_code == 200
    assert len(lines.content) > 200 * 2000 * 20
    assert reserved(small) == 0


def test_what_is_held_by_others_is_no_reason_to_say_that_a_request_is_too_large(small: Client) -> None:
    memory: Memory = small.app.service.memory
    with ExitStack() as others:
        for _ in range(48):
            others.enter_context(memory.hold()).grow(MIB - 2)
        for path, body in (("/v1/calibrate", panel()), (BATCH, {"panels": [panel()]})):
            response = small.post(path, body)
            assert (response.status_code, response.json()["code"]) == (503, "overloaded")
            assert response.headers["retry-after"]
        assert small.get("/health/ready").status_code == 200
    for path, body in (("/v1/calibrate", panel()), (BATCH, {"panels": [panel()]})):
        assert small.post(path, body).status_code == 200
    assert reserved(small) == 0


def test_every_request_gives_back_what_it_held_however_it_ends(small: Client) -> None:
    table = arrow_stream(pyarrow.table({"panel": [1], "expiry": [0.5]}))
    for path, body, headers in (
        ("/v1/calibrate", b"{", {}),
        ("/v1/calibrate", panel(), {"content_type": "text/plain"}),
        ("/v1/price", {**options_of(10), "expiry": [-1] * 10}, {}),
        (BATCH, b"{", {}),
        (BATCH, {"panels": [0, panel(), {"quotes": {}}]}, {}),
        (BATCH, table, {"content_type": "application/vnd.apache.arrow.stream"}),
        (BATCH, {"panels": [0] * 30_000}, {}),
        ("/v2/models/heston/infer", b"{}", {}),
        ("/nothing", b"{}", {}),
    ):
        small.post(path, body, **headers)
        assert reserved(small) == 0


# Errors that are kept -----------------------------------------------------------------------------------------------


def failing(depth: int) -> None:
    held = bytearray(1000)
    try:
        raise InvalidInput(*InvalidRequest([_problem()]).problems)
    except InvalidInput as error:
        if depth:
            failing(depth - 1)
        raise InvalidRequest(error.problems) from None
    finally:
        del held


def _problem() -> Any:
    with pytest.raises(InvalidInput) as caught:
        calibration_job(schema.CalibrateRequest.model_validate(panel(iv=[0.2])), None)
    return caught.value.problems[0]


def test_an_error_that_is_kept_holds_neither_its_frames_nor_the_errors_behind_it() -> None:
    with pytest.raises(InvalidRequest) as caught:
        failing(3)
    assert caught.value.__context__ is not None
    kept = bare(caught.value)
    assert kept is caught.value
    assert (kept.__traceback__, kept.__context__, kept.__cause__) == (None, None, None)
    assert kept.problems


async def outcomes(groups: Groups, engine: Engine, batch: Any) -> list[Any]:
    return [done async for group in groups.run(engine, batch, lambda _: None, lambda answer: None) for done in group]


def test_the_refused_panels_of_a_batch_keep_no_batch(client: Client) -> None:
    """Each held its batch by its traceback: sixty megabytes until the collector came past."""
    bad = [0, panel(iv=[0.2]), {"quotes": {}}, panel(expiry=[-1.0] * 6), {**panel(), "model": "sabr"}]
    engine = client.app.service.engine
    batch = DocumentBatch(json.dumps({"panels": bad * 10}).encode(), JSON, BatchLimits(100, MIB))
    scheduler = Scheduler()
    gc.collect()
    gc.disable()
    try:
        kept = client.run(outcomes(Groups(scheduler, Crew(1)), engine, batch))
        assert len(kept) == 50
        assert all(isinstance(done.outcome, ServiceError) for done in kept)
        held = [done.outcome for done in kept]
        assert all((e.__traceback__, e.__context__, e.__cause__) == (None, None, None) for e in held)
    finally:
        gc.enable()
        scheduler.stop()
