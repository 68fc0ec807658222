"""Everything that one call needs before it is sent, taken together and given back together.

Money first and the governor last: whatever is waited for in between, a call leaves only when the server may be asked now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchgen.dispatch import Failure
from batchgen.dispatch.limits import SLOT, Bucket, Clock, Governor, Purse, TokenBucket
from batchgen.errors import LimitError
from batchgen.kinds import Usage
from batchgen.pricing import Prices
from batchgen.requests import Request

# Seconds between being counted and being sent that move no window by more than it forgives.
PROMPT = SLOT / 2


class NeverFits(Exception):  # noqa: N818 - named for the request
    """A request that is larger than a whole minute's limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What was taken for one call: `money` in nano-dollars is reserved, `amounts` of each limit were counted as sent at
    `counted_at` by the run's clock; `probe` says that it probes an outage."""

    money: int
    amounts: Mapping[str, float]
    probe: bool
    counted_at: float


class Admission:
    """The limits of one run: ceilings a minute (None: none), purses, and the governor. One caller at a time is admitted."""

    def __init__(
        self,
        *,
        requests: float | None,
        tokens: float | None,
        pictures: float | None,
        purses: Sequence[Purse],
        prices: Prices,
        clock: Clock,
    ) -> None:
        self.governor = Governor(clock)
        self.capped = bool(purses)
        self._clock = clock
        self._waiting_for = ""
        self._purses, self._prices = purses, prices
        self._tokens = TokenBucket(tokens) if tokens else None
        self._buckets: dict[str, Bucket] = {}
        if requests:
            self._buckets["requests_per_minute"] = Bucket(requests)
        if pictures:
            self._buckets["images_per_minute"] = Bucket(pictures)
        if self._tokens:
            self._buckets["tokens_per_minute"] = self._tokens

    async def admit(self, request: Request) -> Ticket:
        """Wait for everything that a call needs. Raises NeverFits, or LimitError when the money will never be enough, or
        nobody can tell."""
        amounts = self._amounts(request)
        money = self._money(request)
        reserved = []
        try:
            for purse in self._purses:
                self._waiting_for = "money reserved by calls in flight"
                await purse.reserve(money)
                reserved.append(purse)
            for name, amount in amounts.items():
                self._waiting_for = name
                await self._buckets[name].take(amount)
            self._waiting_for = ""
            probe = await self.governor.gate()
        except BaseException:
            for purse in reserved:
                purse.settle(money, 0)
            raise
        self._count(amounts)
        return Ticket(money=money, amounts=amounts, probe=probe, counted_at=self._clock())

    def _money(self, request: Request) -> int:
        if not self.capped:
            return 0
        bound = self._prices.bound(request)
        if bound is None:
            raise LimitError(f"a cap on cost needs {self._prices.lacking(request)}; mend that and run again")
        return bound

    def _count(self, amounts: Mapping[str, float]) -> None:
        for name, amount in amounts.items():
            self._buckets[name].sent(amount)

    def leaves(self, ticket: Ticket) -> None:
        """A call is sent now. One that was held up since it was counted counts again, in the window where it is sent."""
        if self._clock() - ticket.counted_at > PROMPT:
            self._count(ticket.amounts)

    def _amounts(self, request: Request) -> dict[str, float]:
        if not self._buckets:
            return {}
        wanted: dict[str, float] = {"requests_per_minute": 1, "images_per_minute": request.pictures}
        if self._tokens:
            wanted["tokens_per_minute"] = self._tokens.estimate(request)
        amounts = {name: wanted[name] for name in self._buckets if wanted[name]}
        for name, amount in amounts.items():
            # A limit below one request a minute spaces requests; it refuses none.
            if amount > max(1.0, self._buckets[name].limit):
                unit = name.partition("_")[0]
                raise NeverFits(f"needs about {amount:,.0f} {unit}, more than limits.{name} lets through in a minute")
        return amounts

    def hindrance(self) -> str:
        """What the next call waits for, in a progress line's words; empty for nothing."""
        if self.governor.state == "closed":
            return "the server (outage)"
        return "the server's rate limit" if self.governor.state == "slowed" else self._waiting_for

    def settle(self, ticket: Ticket, cost: int | None) -> None:
        """A call ended and took `cost` nano-dollars."""
        for purse in self._purses:
            purse.settle(ticket.money, cost)

    def answered(self, request: Request, ticket: Ticket, usage: Usage) -> None:
        """A call brought an answer, which tells how many tokens it took."""
        self.governor.spoke()
        self.governor.succeeded()
        if self._tokens:
            self._tokens.settle(ticket.amounts.get("tokens_per_minute", 0.0), request, usage)

    def failed(self, failure: Failure, ticket: Ticket, sent_at: float, *, own: bool) -> None:
        """A call brought none; `own` says that the fault follows the row: it is no sign of an outage, nor of a rate that is
        too high for the others."""
        governor = self.governor
        if failure.reason == "input":
            if ticket.probe:
                governor.unasked()
        elif failure.outage:
            governor.troubled(failure.message)
            if ticket.probe or not own:
                governor.failed(failure.retry_after, probe=ticket.probe, answered=failure.status is not None)
        else:
            governor.spoke()
            if failure.passing:
                governor.troubled(failure.message)
            else:
                governor.settled()
            if failure.meaning == "throttled" and not own:
                governor.throttled(sent_at, failure.retry_after, failure.ceiling)
