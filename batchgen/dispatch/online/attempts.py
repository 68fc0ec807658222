"""Makes one attempt: records its highest cost, sends the request, reads the reply, prices it."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple

from batchgen.dispatch import Attempt, Failure, Received, Recorder
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.replies import Transport, attempt_fields, read_reply
from batchgen.dispatch.limits.admission import Admission, Permit
from batchgen.dispatch.limits.window import Clock
from batchgen.dispatch.online.watchdog import Watchdog
from batchgen.pricing import Prices
from batchgen.requests import Request


class AttemptResult(NamedTuple):
    """How an attempt ended; `sent_at` by the run's clock, in seconds."""

    attempt: Attempt
    result: Received | Failure
    sent_at: float


class AttemptRunner:
    """Makes the attempts of one run."""

    def __init__(
        self,
        *,
        transport: Transport,
        recorder: Recorder,
        prices: Prices,
        admission: Admission,
        watchdog: Watchdog,
        clock: Clock,
    ) -> None:
        """Prepare the attempts of a run.

        transport: sends one request, once.
        recorder: records what a call may cost, and calls that are cancelled.
        prices: what an answer costs.
        admission: gets back what a permit reserved.
        watchdog: enforces the deadline.
        clock: the run's clock, in seconds.
        """
        self._transport, self._recorder, self._prices = transport, recorder, prices
        self._admission, self._watchdog, self._clock = admission, watchdog, clock

    async def run(
        self, request: Request, permit: Permit, *, number: int, ready_at: float
    ) -> AttemptResult:
        """Send a request once, as the row's attempt `number`, and settle its permit.

        `ready_at` is when the request began to wait. Failures are returned, not raised.
        """
        if permit.money is not None:
            await self._recorder.reserve(request, number, time.time(), permit.money)
            self._admission.record_sent(permit)
        started_at, sent_at = time.time(), self._clock()

        def attempt(**fields: Any) -> Attempt:
            return Attempt(
                number=number,
                started_at=started_at,
                wait=max(0.0, sent_at - ready_at),
                elapsed=self._clock() - sent_at,
                **fields,
            )

        try:
            reply = await self._exchange(request)
            result: Received | Failure
            if isinstance(reply, Reply):
                self._admission.observe_headers(reply.headers)
                result = await read_reply(self._recorder, self._transport, request, reply)
            else:
                result = reply
        except asyncio.CancelledError:
            # The run ends now. That the call was made is recorded; its result will stay unknown.
            cancelled = attempt(reason="abandoned", cost=permit.money)
            self._recorder.abandoned(request, cancelled)
            raise
        cost = self._cost(request, result, permit)
        self._admission.settle(permit, cost, answered=isinstance(result, Received))
        made = attempt(cost=cost, **attempt_fields(result, reply))
        return AttemptResult(attempt=made, result=result, sent_at=sent_at)

    async def _exchange(self, request: Request) -> Reply | Failure:
        try:
            return await self._watchdog.within(self._transport.post(request))
        except TimeoutError:
            message = f"no whole answer within {self._watchdog.timeout:g} s (retry.timeout)"
            return Failure(meaning="timeout", reason="timeout", message=message, may_be_billed=True)

    def _cost(self, request: Request, result: Received | Failure, permit: Permit) -> int | None:
        """Nano-dollars that an attempt cost.

        An unknown cost counts as the highest possible if there is a cap, and else as None.
        """
        if isinstance(result, Received):
            cost = self._prices.answer_cost(request, result.answer)
        elif result.usage is not None:
            cost = self._prices.usage_cost(request, result.usage)
        else:
            cost = None if result.may_be_billed else 0
        return permit.money if cost is None else cost
