"""Everything that one call needs before it is sent, taken together and given back together.

Money first and the limiter last: whatever is waited for in between, a call leaves only when the server may be asked now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from batchgen.dispatch import Failure, Learned
from batchgen.dispatch.api.headers import RateLimits, rate_limits
from batchgen.dispatch.limits.adaptive.limiter import AdaptiveLimiter
from batchgen.dispatch.limits.budgets import CostBudget
from batchgen.dispatch.limits.gcra import WINDOW
from batchgen.dispatch.limits.tokens import TokenEstimate
from batchgen.dispatch.limits.window import Clock, Limiter, LocalLimit
from batchgen.errors import LimitError
from batchgen.pricing import Prices
from batchgen.replies import Usage
from batchgen.requests import Request

# Seconds for which what was taken is kept; what waited for longer is taken again, for others may have counted on it.
KEPT = WINDOW / 2

# Makes the limiter of a limit, by its name and its units a minute.
LimiterFactory = Callable[[str, float], Limiter]

# Seconds between two looks at the replies' headers.
LISTEN = 0.5


class NeverFitsError(Exception):
    """A request that is larger than a whole minute's limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What was taken for one call: `money` in nano-dollars is reserved, `amounts` of each limit count as sent, rightly so
    until `counted`; `probe` says that it probes an outage."""

    money: int
    amounts: Mapping[str, float]
    counted: Mapping[str, float]
    probe: bool


def own_limiter(name: str, limit: float) -> Limiter:
    """A limiter that holds for one run alone."""
    return Limiter(LocalLimit(limit))


class Admission:
    """The limits of one run: ceilings a minute (None: none), budgets, and the adaptive limiter. One caller at a time is admitted.
    `limiters` makes what holds a ceiling; by default it holds for this run alone."""

    def __init__(
        self,
        *,
        requests: float | None,
        tokens: float | None,
        pictures: float | None,
        budgets: Sequence[CostBudget],
        prices: Prices,
        clock: Clock,
        limiters: LimiterFactory = own_limiter,
    ) -> None:
        self.capped = bool(budgets)
        self._clock = clock
        self._waiting_for = ""
        # What the server's headers said last, when they are read again; answers, and the tokens they took.
        self.said = RateLimits()
        self._listen_at = float("-inf")
        self._answers = self._used = 0
        self._budgets, self._prices = budgets, prices
        self._tokens = TokenEstimate()
        self._beyond = 0.0
        limits = {
            "requests_per_minute": requests,
            "images_per_minute": pictures,
            "tokens_per_minute": tokens,
        }
        self._limiters = {name: limiters(name, limit) for name, limit in limits.items() if limit}
        self.limiter = AdaptiveLimiter(clock, explicit=bool(self._limiters))

    async def admit(self, request: Request) -> Permit:
        """Wait for everything that a call needs. Raises NeverFitsError, or LimitError when the money will never be enough, or
        nobody can tell."""
        amounts = self._amounts(request)
        money = self._money(request)
        reserved = []
        try:
            for budget in self._budgets:
                self._waiting_for = "money reserved by calls in flight"
                await budget.reserve(money)
                reserved.append(budget)
            await self._take(amounts)
            since = self._clock()
            probe = await self.limiter.acquire()
            if self._clock() - since > KEPT:
                for name, amount in amounts.items():
                    self._limiters[name].give_back(amount)
                await self._take(amounts)
        except BaseException:
            for budget in reserved:
                budget.settle(money, 0)
            raise
        counted = {name: self._limiters[name].sent(amount) for name, amount in amounts.items()}
        return Permit(money=money, amounts=amounts, counted=counted, probe=probe)

    async def _take(self, amounts: Mapping[str, float]) -> None:
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

    def _money(self, request: Request) -> int:
        if not self.capped:
            return 0
        bound = self._prices.bound(request)
        if bound is None:
            raise LimitError(
                f"a cap on cost needs {self._prices.missing_for_bound(request)}; mend that and run again"
            )
        return bound

    def record_sent(self, ticket: Permit) -> None:
        """A call is sent now. One that was held up since it was counted counts in the window where it is sent."""
        for name, amount in ticket.amounts.items():
            self._limiters[name].sent(amount, ticket.counted[name])

    def _amounts(self, request: Request) -> dict[str, float]:
        if not self._limiters:
            return {}
        wanted: dict[str, float] = {"requests_per_minute": 1, "images_per_minute": request.pictures}
        if "tokens_per_minute" in self._limiters:
            wanted["tokens_per_minute"] = self._tokens.of(request)
        amounts = {name: wanted[name] for name in self._limiters if wanted[name]}
        for name, amount in amounts.items():
            # A limit below one request a minute spaces requests; it refuses none.
            if amount > max(1.0, self._limiters[name].limit):
                unit = name.partition("_")[0]
                raise NeverFitsError(
                    f"needs about {amount:,.0f} {unit}, more than limits.{name} lets through in a minute"
                )
        return amounts

    def hindrance(self) -> str:
        """What the next call waits for, in a progress line's words; empty for nothing."""
        if self.limiter.state == "tripped":
            return "the server (outage)"
        return "the server's rate limit" if self.limiter.is_limiting else self._waiting_for

    def settle(self, ticket: Permit, cost: int | None) -> None:
        """A call ended and took `cost` nano-dollars."""
        for budget in self._budgets:
            budget.settle(ticket.money, cost)

    def observe_headers(self, headers: Mapping[str, str]) -> None:
        """A reply came with these headers. They are read once in a while: what they say changes slowly."""
        now = self._clock()
        if now < self._listen_at:
            return
        self._listen_at = now + LISTEN
        said = self.said = rate_limits(headers)
        if said.nearly_used:
            self.limiter.hold_growth()
        rates = [said.requests] if said.requests else []
        if said.tokens and self._used and "tokens_per_minute" not in self._limiters:
            rates.append(said.tokens * self._answers / self._used)
        if rates:
            self.limiter.set_named_limit(
                min(rates), explicit="requests_per_minute" in self._limiters
            )

    @property
    def learned(self) -> Learned:
        """What the server's limits are, as far as they showed."""
        return Learned(
            requests=self.limiter.learned_per_minute,
            named_requests=self.said.requests,
            named_tokens=self.said.tokens,
        )

    def record_answer(self, request: Request, ticket: Permit, usage: Usage, sent_at: float) -> None:
        """A call sent at `sent_at` brought an answer, which tells how many tokens it took."""
        self.limiter.record_response()
        self.limiter.record_success(sent_at)
        self._answers += 1
        self._used += (usage.input_tokens or 0) + (usage.output_tokens or 0)
        if limiter := self._limiters.get("tokens_per_minute"):
            self._tokens.learn(request, usage)
            self._settle_tokens(
                limiter, ticket.amounts.get("tokens_per_minute", 0.0), request, usage
            )

    def _settle_tokens(
        self, limiter: Limiter, taken: float, request: Request, usage: Usage
    ) -> None:
        """Owe what was charged beyond what was taken, less what others took too much of: at the most what may be sent at
        once."""
        if usage.input_tokens is None:
            return
        charged = usage.input_tokens + max(usage.output_tokens or 0, request.answer_bound or 0)
        self._beyond = max(self._beyond + charged - taken, -limiter.limit / 240)
        if self._beyond > 0:
            limiter.owe(self._beyond)
            self._beyond = 0.0

    def record_failure(
        self, failure: Failure, ticket: Permit, sent_at: float, *, own: bool
    ) -> None:
        """A call brought none; `own` says that the fault follows the row: it is no sign of an outage, nor of a rate that is
        too high for the others."""
        limiter = self.limiter
        if failure.reason == "input":
            if ticket.probe:
                limiter.release_probe()
        elif failure.is_outage:
            limiter.record_trouble(failure.message)
            if ticket.probe or not own:
                limiter.record_failure(
                    failure.retry_after, probe=ticket.probe, answered=failure.status is not None
                )
        else:
            limiter.record_response()
            if failure.is_passing:
                limiter.record_trouble(failure.message)
            else:
                limiter.clear_trouble()
            if failure.meaning == "throttled" and not own:
                limiter.record_throttle(sent_at, failure.retry_after, failure.ceiling)
