"""Admission: a call is sent when money, the limits a minute and the adaptive limiter all permit it.

Money comes first and the adaptive limiter last. So however long a call waits for the others, it
leaves only when the server can take it at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from batchgen.dispatch import Failure, Learned, Wait
from batchgen.dispatch.api.causes import why_unreached
from batchgen.dispatch.api.headers import RateLimits, rate_limits
from batchgen.dispatch.limits.adaptive.limiter import AdaptiveLimiter
from batchgen.dispatch.limits.gcra import SPAN, WINDOW
from batchgen.dispatch.limits.spending import Reservation, Spending, no_bound_error
from batchgen.dispatch.limits.tokens import TokenEstimate
from batchgen.dispatch.limits.waits import limit_wait, server_wait
from batchgen.dispatch.limits.window import Clock, Limiter, LocalLimit
from batchgen.pricing import Prices
from batchgen.replies import Usage
from batchgen.requests import Request

# Seconds for which taken units are kept. A call that waits longer takes them again, because
# limiters rely on calls that leave soon (see Limiter.sent).
KEPT = WINDOW / 2

# Seconds between two readings of the replies' headers: what they say changes slowly.
HEADERS_INTERVAL = 0.5

# Makes the limiter that keeps a limit, from the limit's name and its units a minute.
LimiterFactory = Callable[[str, float], Limiter]


class NeverFitsError(Exception):
    """A request is larger than the limit of a whole minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What one call was admitted with.

    reservation: the money that is set aside for it; None without a cap on money.
    amounts: the units of each limit that it takes.
    counted_until: for each limit, the time until which the call may leave and is counted right.
    is_probe: whether the call probes an outage.
    """

    reservation: Reservation | None
    amounts: Mapping[str, float]
    counted_until: Mapping[str, float]
    is_probe: bool

    @property
    def money(self) -> int | None:
        """The most that the call may cost, in nano-dollars; None without a cap on money."""
        return self.reservation.amount if self.reservation else None


def own_limiter(name: str, limit: float) -> Limiter:
    """A limiter for one run alone."""
    return Limiter(LocalLimit(limit))


class Admission:
    """The limits of one run.

    Callers take turns: one is admitted at a time, so calls leave in the order of their turns.
    """

    def __init__(
        self,
        *,
        requests: float | None,
        tokens: float | None,
        pictures: float | None,
        spending: Spending,
        prices: Prices,
        clock: Clock,
        limiters: LimiterFactory = own_limiter,
    ) -> None:
        """Args:
        requests, tokens, pictures: the job's limits in units a minute; None for no limit.
        spending: sets the cost of a call aside.
        prices: bound the cost of a call.
        clock: monotonic seconds.
        limiters: makes the limiter of a limit; by default one for this run alone.
        """
        self._spending, self._prices, self._clock = spending, prices, clock
        self._waiting_for = self._unreached = ""
        # What the server's headers said last, and when they are read again.
        self._headers = RateLimits()
        self._read_headers_at = float("-inf")
        # How many answers came so far, and the tokens that they used.
        self._answers = self._used = 0
        self._tokens = TokenEstimate()
        # Tokens charged beyond the estimates, less those estimated in excess.
        self._excess = 0.0
        limits = {
            "requests_per_minute": requests,
            "images_per_minute": pictures,
            "tokens_per_minute": tokens,
        }
        self._limiters = {name: limiters(name, limit) for name, limit in limits.items() if limit}
        self.adaptive = AdaptiveLimiter(clock, explicit=bool(self._limiters))

    async def admit(self, request: Request) -> Permit:
        """Wait for everything that a call needs.

        Raises NeverFitsError when the request is larger than a limit, and LimitError when the money
        will never be enough or the cost of the call has no bound.
        """
        amounts = self._amounts(request)
        reservation = await self._reserve(request)
        try:
            await self._take(amounts)
            since = self._clock()
            is_probe = await self.adaptive.acquire()
            if reservation is not None:
                await self._spending.renew(reservation)
            if self._clock() - since > KEPT:
                for name, amount in amounts.items():
                    self._limiters[name].give_back(amount)
                await self._take(amounts)
        except BaseException:
            if reservation is not None:
                self._spending.settle(reservation, 0)
            raise
        counted = {name: self._limiters[name].sent(amount) for name, amount in amounts.items()}
        return Permit(
            reservation=reservation,
            amounts=amounts,
            counted_until=counted,
            is_probe=is_probe,
        )

    async def _take(self, amounts: Mapping[str, float]) -> None:
        """Take units of every limit. Units that get too old meanwhile are taken anew."""
        taken: dict[str, float] = {}
        while late := [
            name for name in amounts if taken.get(name, float("-inf")) < self._clock() - KEPT
        ]:
            for name in late:
                self._waiting_for = name
                if name in taken:
                    self._limiters[name].give_back(amounts[name])
                await self._limiters[name].take(amounts[name])
                taken[name] = self._clock()
        self._waiting_for = ""

    async def _reserve(self, request: Request) -> Reservation | None:
        if not self._spending.capped:
            return None
        bound = self._prices.bound(request)
        if bound is None:
            raise no_bound_error(self._prices, request)
        return await self._spending.reserve(str(request.body.get("model")), bound)

    def record_sent(self, permit: Permit) -> None:
        """Note that a call is sent now.

        One that was delayed since its admission counts in the window where it is sent.
        """
        for name, amount in permit.amounts.items():
            self._limiters[name].sent(amount, permit.counted_until[name])

    def _amounts(self, request: Request) -> dict[str, float]:
        """The units that a request takes of each limit. Raises NeverFitsError."""
        if not self._limiters:
            return {}
        wanted: dict[str, float] = {"requests_per_minute": 1, "images_per_minute": request.pictures}
        if "tokens_per_minute" in self._limiters:
            wanted["tokens_per_minute"] = self._tokens.of(request)
        amounts = {name: wanted[name] for name in self._limiters if wanted[name]}
        for name, amount in amounts.items():
            # A limit below one request a minute spaces requests, and refuses none.
            if amount > max(1.0, self._limiters[name].limit):
                unit = name.partition("_")[0]
                raise NeverFitsError(
                    f"needs about {amount:,.0f} {unit},"
                    f" more than limits.{name} lets through in a minute"
                )
        return amounts

    def wait(self, host: str) -> Wait | None:
        """What holds the next call back; None for nothing. `host` is the server's name."""
        adaptive, money, name = self.adaptive, self._spending.waiting_for, self._waiting_for
        by_server = server_wait(adaptive, self._clock, host, self._unreached, adaptive.trouble)
        if by_server is not None or not (money or name):
            return by_server
        if money:
            return Wait(cause=money.partition(",")[0], reason=f"waiting for {money}")
        limiter = self._limiters[name]
        return limit_wait(name, limiter.limit, limiter.opens_at - self._clock())

    def settle(self, permit: Permit, cost: int | None, *, answered: bool = False) -> None:
        """Note that a call ended and what it cost, in nano-dollars (None: unknown).

        answered: whether an answer came.
        """
        if permit.reservation is not None:
            self._spending.settle(permit.reservation, cost, answered=answered)

    def observe_headers(self, headers: Mapping[str, str]) -> None:
        """Note the limits that the headers of a reply name."""
        now = self._clock()
        if now < self._read_headers_at:
            return
        self._read_headers_at = now + HEADERS_INTERVAL
        limits = self._headers = rate_limits(headers)
        if limits.nearly_used:
            self.adaptive.hold_growth()
        rates = [limits.requests] if limits.requests else []
        if limits.tokens and self._used and "tokens_per_minute" not in self._limiters:
            rates.append(limits.tokens * self._answers / self._used)
        if rates:
            self.adaptive.set_named_limit(
                min(rates), explicit="requests_per_minute" in self._limiters
            )

    @property
    def learned(self) -> Learned:
        """What is known of the server's limits; nothing of a server that answered nothing."""
        if not self._answers:
            return Learned()
        return Learned(
            requests=self.adaptive.learned_per_minute,
            named_requests=self._headers.requests,
            named_tokens=self._headers.tokens,
        )

    def record_answer(self, request: Request, permit: Permit, usage: Usage, sent_at: float) -> None:
        """Note that a call was answered.

        request: what was sent.
        permit: what it was admitted with.
        usage: the tokens that the answer reports.
        sent_at: seconds on the clock.
        """
        self.adaptive.record_response()
        self.adaptive.record_success(sent_at)
        self._answers += 1
        self._used += (usage.input_tokens or 0) + (usage.output_tokens or 0)
        if limiter := self._limiters.get("tokens_per_minute"):
            self._tokens.learn(request, usage)
            self._settle_tokens(
                limiter, permit.amounts.get("tokens_per_minute", 0.0), request, usage
            )

    def _settle_tokens(
        self, limiter: Limiter, taken: float, request: Request, usage: Usage
    ) -> None:
        """Owe the tokens that were charged beyond those taken.

        Tokens that other requests took in excess make up for them, up to one burst.
        """
        if usage.input_tokens is None:
            return
        charged = usage.input_tokens + max(usage.output_tokens or 0, request.answer_bound or 0)
        self._excess = max(self._excess + charged - taken, -limiter.limit * SPAN / WINDOW)
        if self._excess > 0:
            limiter.owe(self._excess)
            self._excess = 0.0

    def record_failure(
        self, failure: Failure, permit: Permit, sent_at: float, *, own: bool
    ) -> None:
        """Note that a call failed.

        failure: how.
        permit: what the call was admitted with.
        sent_at: seconds on the clock.
        own: the row itself is the cause, and not an outage or too high a rate.
        """
        adaptive, self._unreached = self.adaptive, why_unreached(failure)
        if failure.reason == "input":
            if permit.is_probe:
                adaptive.release_probe()
        elif failure.is_outage:
            adaptive.record_trouble(failure.message)
            if permit.is_probe or not own:
                adaptive.record_failure(
                    failure.retry_after, probe=permit.is_probe, answered=failure.status is not None
                )
        else:
            adaptive.record_response()
            if failure.is_passing:
                adaptive.record_trouble(failure.message)
            else:
                adaptive.clear_trouble()
            if failure.meaning == "throttled" and not own:
                adaptive.record_throttle(sent_at, failure.retry_after, failure.ceiling)
