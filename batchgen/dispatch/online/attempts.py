"""One call: its money on record, sent, read, priced, and told as an attempt.

What comes back is an answer or a Failure, and nothing else does.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from batchgen.dispatch import Attempt, Failure, Received, Recorder
from batchgen.dispatch.api.http import Reply
from batchgen.dispatch.api.replies import Transport, attempt_fields, read_reply
from batchgen.dispatch.limits.admission import Admission, Permit
from batchgen.dispatch.limits.window import Clock
from batchgen.dispatch.online.watchdog import Watchdog
from batchgen.pricing import Prices
from batchgen.requests import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptResult:
    """How a call ended; `sent_at` by the run's clock."""

    result: Received | Failure
    attempt: Attempt
    sent_at: float


class AttemptRunner:
    """Makes the calls of one run."""

    def __init__(
        self,
        *,
        client: Transport,
        ledger: Recorder,
        prices: Prices,
        admission: Admission,
        watch: Watchdog,
        clock: Clock,
    ) -> None:
        self._client, self._ledger, self._prices = client, ledger, prices
        self._admission, self._watch, self._clock = admission, watch, clock

    async def make(
        self, request: Request, ticket: Permit, *, number: int, ready_at: float
    ) -> AttemptResult:
        """Make a row's call `number`, for which it waited since `ready_at`, and settle what its ticket took."""
        if self._admission.capped:
            await self._ledger.reserve(request, number, time.time(), ticket.money)
            self._admission.record_sent(ticket)
        started_at, started = time.time(), self._clock()

        def attempt(**told: Any) -> Attempt:
            wait, elapsed = max(0.0, started - ready_at), self._clock() - started
            return Attempt(number=number, started_at=started_at, wait=wait, elapsed=elapsed, **told)

        try:
            try:
                reply = await self._watch.within(self._client.post(request))
            except TimeoutError:
                message = f"no whole answer within {self._watch.timeout:g} s (retry.timeout)"
                reply = Failure(
                    meaning="timeout", reason="timeout", message=message, may_be_billed=True
                )
            result: Received | Failure
            if isinstance(reply, Reply):
                self._admission.observe_headers(reply.headers)
                result = await read_reply(self._ledger, self._client, request, reply)
            else:
                result = reply
        except asyncio.CancelledError:
            # The run ends now, and what the call came to will never be known; that it was made, will.
            worst = ticket.money if self._admission.capped else None
            self._ledger.abandoned(request, attempt(reason="abandoned", cost=worst))
            raise
        cost = self._cost(request, result, ticket)
        self._admission.settle(ticket, cost)
        return AttemptResult(
            result=result,
            attempt=attempt(cost=cost, **attempt_fields(result, reply)),
            sent_at=started,
        )

    def _cost(self, request: Request, result: Received | Failure, ticket: Permit) -> int | None:
        """Nano-dollars that a call took; at its worst where that is not known and money is capped."""
        worst = ticket.money if self._admission.capped else None
        if isinstance(result, Failure):
            return worst if result.may_be_billed else 0
        cost = self._prices.answer_cost(request, result.answer)
        return worst if cost is None else cost
