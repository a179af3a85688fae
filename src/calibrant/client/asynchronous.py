"""The client for asyncio."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
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


class AsyncClient:
    """As `Client`, to be awaited: close it with `aclose`, or use it in an `async with` statement.

    A call that is cancelled closes its connection, which tells the service that nobody waits any more.
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
        transport: httpx.AsyncBaseTransport | None = None,
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
        self._transport = transport or httpx.AsyncHTTPTransport(verify=verify, limits=limits(connections))

    async def calibrate(
        self, quotes: Quotes, *, deadline_ms: float | None = None, **options: Unpack[Options]
    ) -> Calibration:
        """As `Client.calibrate`."""
        return await self._result(self._calls.calibrate(quotes, deadline_ms, options))

    async def calibrate_batch(
        self, panels: Iterable[PanelRequest], *, deadline_ms: float | None = None
    ) -> list[Outcome]:
        """As `Client.calibrate_batch`."""
        return await self._result(self._calls.calibrate_batch(panels, deadline_ms))

    async def stream_batch(
        self, panels: Iterable[PanelRequest], *, deadline_ms: float | None = None
    ) -> AsyncIterator[BatchItem]:
        """As `Client.stream_batch`. To leave it early use `contextlib.aclosing`."""
        async with aclosing(self._delivered(self._calls.stream_batch(panels, deadline_ms), BatchItem)) as items:
            async for item in items:
                yield item

    async def submit_batch(self, panels: Iterable[PanelRequest]) -> Job:
        """As `Client.submit_batch`."""
        return await self._result(self._calls.submit_batch(panels))

    async def job(self, job_id: str) -> Job:
        """As `Client.job`."""
        return await self._result(self._calls.job(job_id, "GET"))

    async def watch_job(self, job_id: str) -> AsyncIterator[Job]:
        """As `Client.watch_job`."""
        async with aclosing(self._delivered(self._calls.watch_job(job_id), Job)) as jobs:
            async for job in jobs:
                yield job

    async def job_outcomes(self, job_id: str) -> list[Outcome]:
        """As `Client.job_outcomes`."""
        return await self._result(self._calls.job_outcomes(job_id))

    async def cancel_job(self, job_id: str) -> Job:
        """As `Client.cancel_job`."""
        return await self._result(self._calls.job(job_id, "DELETE"))

    async def panel(self, chain: Chain, *, deadline_ms: float | None = None, **settings: Any) -> Panel:
        """As `Client.panel`."""
        return await self._result(self._calls.panel(chain, deadline_ms, settings))

    async def price(
        self,
        parameters: Mapping[str, float],
        *,
        expiry: ArrayLike,
        log_moneyness: ArrayLike,
        model: str = "heston",
        gradient: bool = False,
        deadline_ms: float | None = None,
    ) -> Prices:
        """As `Client.price`."""
        return await self._result(self._calls.price(parameters, expiry, log_moneyness, model, gradient, deadline_ms))

    async def leverage(
        self, surface: Mapping[str, Any], *, deadline_ms: float | None = None, **settings: Unpack[LeverageSettings]
    ) -> Leverage:
        """As `Client.leverage`."""
        return await self._result(self._calls.leverage(surface, deadline_ms, settings))

    async def submit_leverage(self, surface: Mapping[str, Any], **settings: Unpack[LeverageSettings]) -> Job:
        """As `Client.submit_leverage`."""
        return await self._result(self._calls.submit_leverage(surface, settings))

    async def leverage_of(self, job_id: str) -> Leverage:
        """As `Client.leverage_of`."""
        return await self._result(self._calls.leverage_of(job_id))

    async def one_touch(
        self, barriers: Iterable[BarrierOf], *, deadline_ms: float | None = None, **settings: Unpack[TouchSettings]
    ) -> Touches:
        """As `Client.one_touch`."""
        return await self._result(self._calls.one_touch(barriers, deadline_ms, settings))

    async def submit_one_touch(self, barriers: Iterable[BarrierOf], **settings: Unpack[TouchSettings]) -> Job:
        """As `Client.submit_one_touch`."""
        return await self._result(self._calls.submit_one_touch(barriers, settings))

    async def touches_of(self, job_id: str) -> Touches:
        """As `Client.touches_of`."""
        return await self._result(self._calls.touches_of(job_id))

    async def models(self) -> tuple[ModelInfo, ...]:
        """As `Client.models`."""
        return await self._result(self._calls.models())

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._result(self._calls.ready())

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _result(self, steps: Steps[T]) -> T:
        exchange = _Exchange(self._requests, self._transport)
        event: Event = None
        try:
            while True:
                try:
                    step = steps.send(event)
                except StopIteration as end:
                    result: T = end.value
                    return result
                event = await exchange.perform(step)
        finally:
            await exchange.close()

    async def _delivered(self, steps: Steps[None], kind: type[D]) -> AsyncGenerator[D, None]:
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
                    event = await exchange.perform(step)
        finally:
            await exchange.close()


class _Exchange:
    """Does the steps of one call; at most one response is open."""

    def __init__(self, requests: Requests, transport: httpx.AsyncBaseTransport) -> None:
        self._requests = requests
        self._transport = transport
        self._response: httpx.Response | None = None
        self._parts: AsyncIterator[bytes] | None = None

    async def perform(self, step: Step) -> Event:
        try:
            match step:
                case Pause(seconds):
                    await self.close()
                    await asyncio.sleep(seconds)
                case Send():
                    await self.close()
                    response = await self._transport.handle_async_request(self._requests.made(step))
                    self._response, self._parts = response, response.aiter_bytes()
                    return Head(response.status_code, response.headers)
                case Read():
                    assert self._parts is not None
                    return await anext(self._parts, b"")
        except httpx.HTTPError as error:
            return Lost(error)
        return None

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = None
