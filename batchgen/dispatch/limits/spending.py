"""What a run may spend: its caps on money, and what calls cost beyond their bounds.

The bound of a call holds what its request allows. Some servers charge for more, such as reasoning
beyond the cap on the answer. Nobody can say in advance by how much, so these rules limit what a
surprise can do:

- The first call to each model goes alone, until one is answered.
- Every later call sets aside as much more than its bound as any call before has cost.
- After a surprise, the same is set aside for calls in flight, and nothing is sent until it fits.
- Calls in flight together set aside at most half of what is left (see CostBudget).

So the cap is passed only by what calls cost beyond the money set aside for them that were in flight
before the server first charged so much.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from batchgen.dispatch.limits.budgets import CostBudget
from batchgen.errors import LimitError
from batchgen.pricing import Prices
from batchgen.requests import Request


class Overrun(NamedTuple):
    """The most that a call has cost beyond its bound: as a factor, and in nano-dollars."""

    factor: Fraction = Fraction(1)
    surplus: int = 0

    def most(self, bound: int) -> int:
        """The most that a call with this bound may cost, by what has been seen."""
        return max(bound + self.surplus, math.ceil(bound * self.factor))

    def after(self, bound: int, cost: int) -> Overrun:
        """The overrun after a call with this bound has cost so much."""
        factor = max(self.factor, Fraction(cost, bound)) if bound else self.factor
        return Overrun(factor, max(self.surplus, cost - bound))


@dataclass(slots=True, kw_only=True, eq=False)
class Reservation:
    """Money set aside for one call to `model`, in nano-dollars: `amount`, of which `bound` is what
    its request allows.
    """

    model: str
    bound: int
    amount: int


class Spending:
    """The money of one run.

    Attributes:
        waiting_for: what `reserve` waits for, in words; empty for nothing.
    """

    def __init__(self, budgets: Sequence[CostBudget] = (), overrun: Overrun | None = None) -> None:
        """Args:
        budgets: each call must fit into all of them; without one that is a cap, money has none.
        overrun: what calls of earlier runs cost beyond their bounds.
        """
        self._budgets, self._overrun = budgets, overrun or Overrun()
        self._capped = any(budget.is_capped for budget in budgets)
        self._in_flight: set[Reservation] = set()
        # Models of which a call was answered, and the first call to one that was not.
        self._answered: set[str] = set()
        self._first: Reservation | None = None
        self._changed = asyncio.Event()
        self.waiting_for = ""

    @property
    def capped(self) -> bool:
        """Whether there is a cap on money."""
        return self._capped

    async def reserve(self, model: str, bound: int) -> Reservation:
        """Set money aside for a call, when there is enough; one caller at a time.

        model: that it goes to.
        bound: the most that its request allows, in nano-dollars.

        Raises LimitError when there will never be enough.
        """
        try:
            while self._first is not None:
                self.waiting_for = "the first answer, which shows what a call costs"
                self._changed.clear()
                await self._changed.wait()
            reservation = Reservation(model=model, bound=bound, amount=0)
            await self._set_aside(reservation)
        finally:
            self.waiting_for = ""
        if model not in self._answered:
            self._first = reservation
        return reservation

    async def renew(self, reservation: Reservation) -> None:
        """Wait until the call fits again, after a surprise that came since its money was set aside.

        Raises LimitError when there will never be enough.
        """
        if not any(budget.is_exceeded for budget in self._budgets):
            return
        self._release(reservation, 0)
        try:
            await self._set_aside(reservation)
        finally:
            self.waiting_for = ""

    def settle(self, reservation: Reservation, cost: int | None, *, answered: bool = False) -> None:
        """Note that a call ended, or (cost 0) was not sent.

        reservation: the call's.
        cost: in nano-dollars; None (unknown) counts all that was set aside.
        answered: whether an answer came, which shows what such calls cost.
        """
        if answered:
            self._answered.add(reservation.model)
        self._release(reservation, cost)
        if self._first is reservation:
            self._first = None
            self._changed.set()
        overrun = self._overrun if cost is None else self._overrun.after(reservation.bound, cost)
        if overrun != self._overrun:
            self._overrun = overrun
            for each in self._in_flight:
                more = overrun.most(each.bound) - each.amount
                each.amount += more
                for budget in self._budgets:
                    budget.hold(more)

    async def spend(self, bound: int) -> int:
        """Count a request of a batch as spent, at the most that it may cost; returns that.

        It may cost less; who reads the journal again when the batch has ended knows. Raises
        LimitError when too little is left.
        """
        most = self._overrun.most(bound)
        for budget in self._budgets:
            await budget.reserve(most)
            budget.settle(most, most)
        return most

    async def _set_aside(self, reservation: Reservation) -> None:
        self.waiting_for = "money reserved by calls in flight"
        while reservation not in self._in_flight:
            reservation.amount = amount = self._overrun.most(reservation.bound)
            taken = []
            try:
                for budget in self._budgets:
                    await budget.reserve(amount)
                    taken.append(budget)
            except BaseException:
                for budget in taken:
                    budget.settle(amount, 0)
                raise
            self._in_flight.add(reservation)
            if amount != self._overrun.most(reservation.bound):
                # A surprise came meanwhile.
                self._release(reservation, 0)

    def _release(self, reservation: Reservation, cost: int | None) -> None:
        if reservation in self._in_flight:
            self._in_flight.discard(reservation)
            for budget in self._budgets:
                budget.settle(reservation.amount, cost)


def no_bound_error(prices: Prices, request: Request) -> LimitError:
    """The error of a request that is not sent, because a cap on money needs a bound of its cost."""
    return LimitError(
        f"a cap on cost needs {prices.missing_for_bound(request)}; fix it and run again"
    )
