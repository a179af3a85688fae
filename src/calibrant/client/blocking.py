"""The client for threads: one may be shared by many."""

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import httpx
from numpy.typing import ArrayLike

from .patience import Retries
from .requests import BarrierOf, Chain, LeverageSettings, Options, PanelRequest, Quotes, TouchSettings
from .results import BatchItem, Calibration, Job, Leverage, ModelInfo, Outcome, Panel, Prices, Touches
from .steps import Calls, Deliver, Event, Head, Lost, Pause, Read, Send, Step, Steps, Terms
from .transport import Requests, limits

T = TypeVar("T")
D = TypeVar("D", BatchItem, Job)


class Client:
    """Asks a service. Close it, or use it in a `with` statement: it keeps its connections open.

    Every call raises `CalibrantError`, of the class that says what can be done about it.

    base_url     `http://127.0.0.1:8000`
    key          sent as `Authorization: Bearer KEY`
    deadline_ms  of every call that has none of its own: in all, retries included. The service is told what is left of
                 it, and refuses or ends in time. None: it has the service's defaults, and `timeout_s` here
    timeout_s    after which a call without a deadline is given up
    network_ms   of a deadline kept back for the way there and back
    wire         `msgpack`, or `json` for what stands between and reads along
    connections  kept open at most; a call beyond waits for one
    verify       a TLS context, or whether to check certificates
    transport    another way to the service, such as httpx.HTTPTransport(uds=...) or (proxy=...): proxies are not taken
                 from the environment
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        deadline_ms: float | None = None,
        timeout_s: float = 30.0,
        network_ms: float = 2.0,
        retries: Retries | None = None,
        wire: Literal["msgpack", "json"] = "msgpack",
        connections: int = 64,
        verify: ssl.SSLContext | bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._calls = Calls(
            Terms(
                key=key,
                deadline_ms=deadline_ms,
                timeout_s=timeout_s,
                network_ms=network_ms,
                retries=retries or Retries(),
                wire=wire,
            )
        )
        self._requests = Requests(base_url)
        self._transport = transport or httpx.HTTPTransport(verify=verify, limits=limits(connections))

    def calibrate(self, quotes: Quotes, *, deadline_ms: float | None = None, **options: Unpack[Options]) -> Calibration:
        """Calibrate one panel; `quotes` are its columns by name."""
        return self._result(self._calls.calibrate(quotes, deadline_ms, options))

    def calibrate_batch(self, panels: Iterable[PanelRequest], *, deadline_ms: float | None = None) -> list[Outcome]:
        """Calibrate many panels; the outcome of each in their order. A bad one is its own error, and not raised."""
        return self._result(self._calls.calibrate_batch(panels, deadline_ms))

    def stream_batch(self, panels: Iterable[PanelRequest], *, deadline_ms: float | None = None) -> Iterator[BatchItem]:
        """Calibrate many panels; the outcome of each as soon as it is there."""
        return self._delivered(self._calls.stream_batch(panels, deadline_ms), BatchItem)

    def submit_batch(self, panels: Iterable[PanelRequest]) -> Job:
        """Have many panels calibrated without waiting for them; the job that does it."""
        return self._result(self._calls.submit_batch(panels))

    def job(self, job_id: str) -> Job:
        """A job as it is now."""
        return self._result(self._calls.job(job_id, "GET"))

    def watch_job(self, job_id: str) -> Iterator[Job]:
        """A job once a second as it is then, for the last time when it has ended."""
        return self._delivered(self._calls.watch_job(job_id), Job)

    def job_outcomes(self, job_id: str) -> list[Outcome]:
        """Of the panels of a job that is done, as `calibrate_batch` gives them."""
        return self._result(self._calls.job_outcomes(job_id))

    def cancel_job(self, job_id: str) -> Job:
        """End a job; one that has ended is forgotten."""
        return self._result(self._calls.job(job_id, "DELETE"))

    def panel(self, chain: Chain, *, deadline_ms: float | None = None, **settings: Any) -> Panel:
        """Make a panel of a chain of quotes.

        chain     columns by any usual name: `expiration` in dates or years, `type`, `strike`, `bid` and `ask`, ...
        settings  `as_of`, `spot`, `rate`, `exercise`, ...: what the chain leaves open
        """
        return self._result(self._calls.panel(chain, deadline_ms, settings))

    def price(
        self,
        parameters: Mapping[str, float],
        *,
        expiry: ArrayLike,
        log_moneyness: ArrayLike,
        model: str = "heston",
        gradient: bool = False,
        deadline_ms: float | None = None,
    ) -> Prices:
        """Prices and implied volatilities; `log_moneyness` is log(strike / forward)."""
        return self._result(self._calls.price(parameters, expiry, log_moneyness, model, gradient, deadline_ms))

    def leverage(
        self, surface: Mapping[str, Any], *, deadline_ms: float | None = None, **settings: Unpack[LeverageSettings]
    ) -> Leverage:
        """Calibrate a leverage to a `surface`, as `POST /v1/leverage` takes it. One that takes long becomes a job,
        which is waited for, whatever the deadline of the request."""
        return self._result(self._calls.leverage(surface, deadline_ms, settings))

    def submit_leverage(self, surface: Mapping[str, Any], **settings: Unpack[LeverageSettings]) -> Job:
        """Have a leverage calibrated without waiting for it; the job that does it."""
        return self._result(self._calls.submit_leverage(surface, settings))

    def leverage_of(self, job_id: str) -> Leverage:
        """Of a job that is done, as `leverage` gives it."""
        return self._result(self._calls.leverage_of(job_id))

    def one_touch(
        self, barriers: Iterable[BarrierOf], *, deadline_ms: float | None = None, **settings: Unpack[TouchSettings]
    ) -> Touches:
        """Price barriers under a `surface`, or a `leverage` by its id; waited for as a leverage is."""
        return self._result(self._calls.one_touch(barriers, deadline_ms, settings))

    def submit_one_touch(self, barriers: Iterable[BarrierOf], **settings: Unpack[TouchSettings]) -> Job:
        """Have barriers priced without waiting for it; the job that does it."""
        return self._result(self._calls.submit_one_touch(barriers, settings))

    def touches_of(self, job_id: str) -> Touches:
        """Of a job that is done, as `one_touch` gives them."""
        return self._result(self._calls.touches_of(job_id))

    def models(self) -> tuple[ModelInfo, ...]:
        """What the service calibrates."""
        return self._result(self._calls.models())

    def ready(self) -> bool:
        """Whether it answers calibrations now; False too where nothing answers at all."""
        return self._result(self._calls.ready())

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _result(self, steps: Steps[T]) -> T:
        exchange = _Exchange(self._requests, self._transport)
        event: Event = None
        try:
            while True:
                event = exchange.perform(steps.send(event))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            exchange.close()

    def _delivered(self, steps: Steps[None], kind: type[D]) -> Iterator[D]:
        exchange = _Exchange(self._requests, self._transport)
        event: Event = None
        try:
            while True:
                try:
                    step = steps.send(event)
                except StopIteration:
                    return
                if isinstance(step, Deliver):
                    assert isinstance(step.item, kind)
                    yield step.item
                    event = None
                else:
                    event = exchange.perform(step)
        finally:
            exchange.close()


class _Exchange:
    """Does the steps of one call; at most one response is open."""

    def __init__(self, requests: Requests, transport: httpx.BaseTransport) -> None:
        self._requests = requests
        self._transport = transport
        self._response: httpx.Response | None = None
        self._parts: Iterator[bytes] = iter(())

    def perform(self, step: Step) -> Event:
        try:
            match step:
                case Pause(seconds):
                    self.close()
                    time.sleep(seconds)
                case Send():
                    self.close()
                    response = self._transport.handle_request(self._requests.made(step))
                    self._response, self._parts = response, response.iter_bytes()
                    return Head(response.status_code, response.headers)
                case Read():
                    return next(self._parts, b"")
        except httpx.HTTPError as error:
            return Lost(error)
        return None

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None
