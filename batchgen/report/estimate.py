"""What the requests to send will probably cost and take, from the job's own answers so far."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchgen.journal import RowCounts
from batchgen.journal.counts import ToSend
from batchgen.journal.evidence import Evidence
from batchgen.report.fit import CostLine, Prediction, Sums, fit, margin

# Answers from which a combination of the matrix has an estimate of its own; with fewer, it has what
# all combinations together show of costs beside expected costs.
_OWN = 5
# Answers from which the estimate has a range.
_RANGED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The requests to send of one combination of the matrix.

    Attributes:
        axes: the combination.
        calls: how many there are.
        answers: how many answers there are so far that show what they cost.
        cost: what they are expected to cost, in nano-dollars; None when it is unknown.
    """

    axes: Mapping[str, Any]
    calls: int
    answers: int
    cost: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What requests will probably cost and take. Money is in nano-dollars, None when unknown.

    Attributes:
        cost: what they will cost.
        low, high: a range that holds it in 19 of 20 cases, if the answers so far are a fair sample;
            None where too few answers show one.
        tokens: the tokens in and out that they will take.
        answers: how many answers so far the cost is from; 0: it is from assumptions.
        answer_seconds: how long an answer took online, in the mean; None: none shows it.
        parts: the same by combination of the matrix.
    """

    cost: int | None
    low: int | None
    high: int | None
    tokens: int
    answers: int
    answer_seconds: float | None
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How costs and tokens come out of what is expected of requests.

    Attributes:
        batch_share: what a batch takes of the cost outside one.
        share: what the requests to send are billed at: `batch_share`, or 1 online.
        charged_share: the expected tokens, as a share of those that limits are charged.
        most: the highest cost, in nano-dollars; None: unknown.
    """

    batch_share: float
    share: float
    charged_share: float
    most: int | None


def estimate(counts: RowCounts, answered: Iterable[Evidence], rates: Rates) -> Estimate:
    """The estimate of the requests to send in `counts`, from what was `answered` so far."""
    answered = list(answered)
    by_axes = _costs(answered, rates.batch_share)
    everything = sum(by_axes.values(), start=Sums())
    known = all(each.foreseen == each.priced for each in answered)
    costs = {
        axes: _predicted(part, by_axes.get(axes, Sums()), everything, known=known)
        for axes, part in counts.by_axes.items()
    }
    parts = [
        Part(
            axes=json.loads(axes),
            calls=part.requests,
            answers=by_axes.get(axes, Sums()).n,
            cost=_nano(costs[axes], rates.share),
        )
        for axes, part in counts.by_axes.items()
    ]
    cost = _total([part.cost for part in parts])
    if cost is not None and rates.most is not None:
        cost = min(cost, rates.most)
    low, high = _range(cost, costs.values(), everything.n, len(parts), rates)
    online = [each for each in answered if not each.in_batch]
    return Estimate(
        cost=cost,
        low=low,
        high=high,
        tokens=_tokens(counts.tokens, answered, rates.charged_share),
        answers=everything.n,
        answer_seconds=_mean(online),
        parts=parts,
    )


def _costs(answered: Sequence[Evidence], batch_share: float) -> dict[str, Sums]:
    """What answers cost by combination, as if all had come outside batches."""
    by_axes: dict[str, Sums] = {}
    for each in answered:
        dear = 1 / batch_share if each.in_batch and batch_share else 1.0
        sums = Sums(
            n=each.priced,
            x=each.x,
            y=each.y * dear,
            xx=each.xx,
            xy=each.xy * dear,
            yy=each.yy * dear * dear,
        )
        by_axes[each.axes] = by_axes.get(each.axes, Sums()) + sums
    return by_axes


def _predicted(part: ToSend, own: Sums, everything: Sums, *, known: bool) -> Prediction | None:
    """What requests of a combination will cost outside a batch; None: unknown.

    part: the requests.
    own: the answers of their combination.
    everything: the answers of all combinations.
    known: whether every answer had an expected cost.
    """
    sums = own if own.n >= _OWN else everything
    if not sums.n:
        return None if part.cost is None else Prediction(total=part.cost, variance=0.0)
    if part.cost is None or not known:
        return fit(sums.without_expected()).predict(part.requests, part.requests)
    if own.n < _OWN and own.n < everything.n and sums.x > 0:
        # Models differ in what they cost, and each expected cost knows its own.
        return _in_proportion(sums, part)
    return fit(sums).predict(part.requests, part.cost)


def _in_proportion(sums: Sums, part: ToSend) -> Prediction:
    line = CostLine(sums=sums, base=0.0, slope=sums.y / sums.x)
    return line.predict(part.requests, part.cost or 0)


def _nano(prediction: Prediction | None, share: float) -> int | None:
    return None if prediction is None else round(prediction.total * share)


def _total(costs: Sequence[int | None]) -> int | None:
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _range(
    cost: int | None,
    predictions: Iterable[Prediction | None],
    answers: int,
    parts: int,
    rates: Rates,
) -> tuple[int | None, int | None]:
    """The range around a cost that is predicted.

    cost: the sum of the predictions.
    predictions: of each combination.
    answers: how many answers they are from.
    parts: how many combinations there are.
    rates: the share that is billed, and the highest cost.
    """
    if cost is None or answers < _RANGED or not parts:
        return None, None
    variance = sum(each.variance for each in predictions if each is not None)
    half = margin(variance, max(1, answers - 2 * min(parts, answers // _OWN or 1))) * rates.share
    most = math.inf if rates.most is None else rates.most
    return max(0, round(cost - half)), round(min(cost + half, most))


def _tokens(charged: int, answered: Sequence[Evidence], charged_share: float) -> int:
    before = sum(each.charged for each in answered)
    took = sum(each.tokens for each in answered)
    return round(charged * (took / before if before and took else charged_share))


def _mean(online: Sequence[Evidence]) -> float | None:
    answers = sum(each.answers for each in online)
    return sum(each.elapsed for each in online) / answers if answers else None
