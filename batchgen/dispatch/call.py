"""One call: its money on record, sent, read, priced, and told as an attempt.

What comes back is an answer or a Failure, and nothing else does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from batchgen.dispatch import LARGE_REPLY, Attempt, Failure, Ledger, Received, Receiver
from batchgen.dispatch.admission import Admission, Ticket
from batchgen.dispatch.limits import Clock
from batchgen.dispatch.retry import QUOTED, classify, complaint
from batchgen.dispatch.watch import Watch
from batchgen.dispatch.wire import Reply
from batchgen.kinds import Unreadable
from batchgen.pricing import Prices
from batchgen.requests import Request


class Caller(Protocol):
    """What sends one request: dispatch.transport.Client."""

    async def post(self, request: Request) -> Reply | Failure:
        """Send one request, once. Raises only CancelledError."""

    def clean(self, failure: Failure) -> Failure:
        """The failure with its message redacted and cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """How a call ended; `sent_at` by the run's clock."""

    result: Received | Failure
    attempt: Attempt
    sent_at: float


class Calls:
    """Makes the calls of one run."""

    def __init__(
        self, *, client: Caller, ledger: Ledger, prices: Prices, admission: Admission, watch: Watch, clock: Clock
    ) -> None:
        self._client, self._ledger, self._prices = client, ledger, prices
        self._admission, self._watch, self._clock = admission, watch, clock

    async def make(self, request: Request, ticket: Ticket, *, number: int, ready_at: float) -> Called:
        """Make a row's call `number`, for which it waited since `ready_at`, and settle what its ticket took."""
        if self._admission.capped:
            await self._ledger.reserve(request, number, time.time(), ticket.money)
            self._admission.leaves(ticket)
        started_at, started = time.time(), self._clock()

        def attempt(**told: Any) -> Attempt:
            wait, elapsed = max(0.0, started - ready_at), self._clock() - started
            return Attempt(number=number, started_at=started_at, wait=wait, elapsed=elapsed, **told)

        try:
            try:
                reply = await self._watch.within(self._client.post(request))
            except TimeoutError:
                message = f"no whole answer within {self._watch.timeout:g} s (retry.timeout)"
                reply = Failure(meaning="timeout", reason="timeout", message=message, unknown=True)
            result: Received | Failure
            if isinstance(reply, Reply):
                self._admission.heard(reply.headers)
                result = await read(self._ledger, self._client, request, reply)
            else:
                result = reply
        except asyncio.CancelledError:
            # The run ends now, and what the call came to will never be known; that it was made, will.
            worst = ticket.money if self._admission.capped else None
            self._ledger.abandoned(request, attempt(reason="abandoned", cost=worst))
            raise
        cost = self._cost(request, result, ticket)
        self._admission.settle(ticket, cost)
        return Called(result=result, attempt=attempt(cost=cost, **audit(result, reply)), sent_at=started)

    def _cost(self, request: Request, result: Received | Failure, ticket: Ticket) -> int | None:
        """Nano-dollars that a call took; at its worst where that is not known and money is capped."""
        worst = ticket.money if self._admission.capped else None
        if isinstance(result, Failure):
            return worst if result.unknown else 0
        cost = self._prices.of_answer(request, result.answer)
        return worst if cost is None else cost


async def read(ledger: Receiver, client: Caller, request: Request, reply: Reply) -> Received | Failure:
    """What a reply of status 200 says, its pictures stored: an answer, or why it is none."""
    try:
        large = len(reply.body) > LARGE_REPLY
        body = await asyncio.to_thread(json.loads, reply.body) if large else json.loads(reply.body)
    except (ValueError, RecursionError):
        return _unreadable(client, reply, "the reply is not JSON")
    return await understood(ledger, client, request, body, reply)


async def understood(ledger: Receiver, client: Caller, request: Request, body: Any, reply: Reply) -> Received | Failure:
    """What a reply of status 200 says, its pictures stored; `body` is its JSON: an answer, or why it is none."""
    try:
        if complaint(body) is not None:
            return client.clean(classify(200, reply.body, reply.headers))
        if not isinstance(body, Mapping):
            raise Unreadable(f"the reply is {type(body).__name__}, not an object")
        return await ledger.receive(request, body, reply.body)
    except Unreadable as error:
        return _unreadable(client, reply, str(error), final=error.final)
    except (ValueError, RecursionError):
        return _unreadable(client, reply, "the reply is not JSON")


def _unreadable(client: Caller, reply: Reply, told: str, *, final: bool = False) -> Failure:
    return client.clean(
        Failure(
            meaning="row" if final else "transient",
            reason="invalid_response",
            message=f"{told}: {reply.body[:QUOTED].decode('utf-8', 'replace')}",
            status=200,
            request_id=reply.headers.get("x-request-id"),
            unknown=True,
        )
    )


def audit(result: Received | Failure, reply: Reply | Failure) -> dict[str, Any]:
    """How a call ended, as its attempt tells it."""
    if isinstance(result, Failure):
        return {
            "status": result.status,
            "code": result.code,
            "reason": result.reason,
            "request_id": result.request_id,
        }
    assert isinstance(reply, Reply)
    usage = result.answer.usage
    return {
        "status": 200,
        "request_id": reply.headers.get("x-request-id"),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
