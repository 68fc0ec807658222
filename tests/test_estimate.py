"""What a plan says that the rest will cost, from the answers so far or from assumptions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

import batchgen
from batchgen.journal import RowCounts
from batchgen.journal.counts import ToSend
from batchgen.journal.evidence import Evidence
from batchgen.report import Estimate, Rates, estimate
from batchgen.report.fit import Sums, fit, margin

ECHO = {
    "model": "gpt-5.6-luna",
    "messages": [
        {"role": "system", "content": "{{ pad }}"},
        {"role": "user", "content": "ECHO:{{ text }}"},
    ],
    "max_completion_tokens": 2000,
}


def unequal(folder: Path, rows: int) -> None:
    """Prompts that all look alike, and whose answers differ a hundredfold in length."""
    dice = random.Random(7)
    lines = ["id,pad,text"]
    for n in range(rows):
        length = min(7900, max(40, int(dice.lognormvariate(6.3, 0.9))))
        lines.append(f"r{n},{'p' * (8000 - length)},{'a' * length}")
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_the_estimate_after_a_sample_is_near_the_bill(lab: Lab) -> None:
    """P49 After a sample of 50 of 1,000 rows whose answers are of very unequal length, the plan is
    within 20 % of the bill of the rest, its range holds the bill, and the assumption before was
    further off.
    """
    unequal(lab.folder, 1000)
    job = lab.job(rows=None, request={**ECHO, "model": "gpt-5.6-luna"})
    before = batchgen.plan(lab.load(job), simulate=True)
    assert (before.answers, before.cost_low) == (0, None)
    assert before.assumes
    sampled = lab.go(job, simulate=True, sample=50)
    assert (sampled.exit_code, sampled.rows, sampled.run.calls) == (0, {"succeeded": 50}, 50)
    planned = batchgen.plan(lab.load(job), simulate=True)
    assert (planned.answers, planned.calls, planned.assumes) == (50, 950, ())
    assert planned.cost is not None
    assert planned.cost_low is not None
    assert planned.cost_high is not None
    assert planned.expected_seconds is not None
    bill = lab.go(job, simulate=True).run.cost
    assert bill is not None
    assert planned.cost == pytest.approx(bill, rel=0.2)
    assert planned.cost_low < bill < planned.cost_high
    assert before.cost is not None
    assert abs(planned.cost - bill) < abs(before.cost - bill)


def counts(**to_send: ToSend) -> RowCounts:
    parts = {f'{{"model":"{name}"}}': part for name, part in to_send.items()}
    return RowCounts(
        lines={},
        requests={},
        failures={},
        examples={},
        in_batches=0,
        to_send=sum(part.requests for part in parts.values()),
        tokens=sum(part.tokens for part in parts.values()),
        cost=sum(part.cost or 0 for part in parts.values()),
        cost_bound=None,
        retried=0,
        changed_rows=0,
        changed_job=0,
        lost=0,
        by_axes=parts,
    )


def answers(model: str, pairs: list[tuple[float, float]], **fields: Any) -> Evidence:
    """Answers of a model, from pairs of their expected and their real cost."""
    values: dict[str, Any] = {
        "axes": f'{{"model":"{model}"}}',
        "in_batch": False,
        "answers": len(pairs),
        "priced": len(pairs),
        "foreseen": len(pairs),
        "x": sum(x for x, _ in pairs),
        "y": sum(y for _, y in pairs),
        "xx": sum(x * x for x, _ in pairs),
        "xy": sum(x * y for x, y in pairs),
        "yy": sum(y * y for _, y in pairs),
        "charged": 100.0 * len(pairs),
        "tokens": 40.0 * len(pairs),
        "elapsed": 2.0 * len(pairs),
    }
    return Evidence(**{**values, **fields})


RATES = Rates(batch_share=0.5, share=1.0, charged_share=0.3, most=None)


def rest(requests: int, cost: int | None) -> ToSend:
    return ToSend(requests=requests, tokens=100 * requests, cost=cost)


def estimated(to_send: RowCounts, *answered: Evidence, rates: Rates = RATES) -> Estimate:
    return estimate(to_send, answered, rates)


def test_each_model_costs_what_its_own_answers_cost() -> None:
    """P49 A dear model and a cheap one are estimated apart, and one without answers by how the
    other's answers differ from what was expected of them.
    """
    to_send = counts(cheap=rest(100, 1000), dear=rest(100, 40_000))
    cheap = answers("cheap", [(10, 5)] * 6)
    dear = answers("dear", [(400, 800)] * 6)
    both = estimated(to_send, cheap, dear)
    assert [part.cost for part in both.parts] == [500, 80_000]
    assert (both.cost, both.answers, both.tokens) == (80_500, 12, 8000)
    one = estimated(to_send, cheap)
    assert [(part.cost, part.answers) for part in one.parts] == [(500, 6), (20_000, 0)]


def test_an_input_is_told_from_an_answer() -> None:
    """P49 Costs that are a line over the expected ones are found again: long inputs of the rest
    cost more, and their answers do not.
    """
    pairs = [(float(x), 50 + 0.9 * x) for x in range(100, 200, 10)]
    found = estimated(counts(m=rest(10, 10_000)), answers("m", pairs))
    assert found.cost == 10 * 50 + 9000
    assert found.low == found.high == found.cost


def test_without_answers_the_assumption_stands() -> None:
    """P49 Without answers the cost is what was assumed; no range and no time is made up; and an
    unknown price stays unknown until answers show it.
    """
    nothing = estimated(counts(m=rest(10, 700)))
    assert (nothing.cost, nothing.low, nothing.answers, nothing.answer_seconds) == (
        700,
        None,
        0,
        None,
    )
    assert nothing.tokens == 300
    assert estimated(counts(m=rest(10, None))).cost is None
    shown = answers("m", [(0, 4), (0, 6)], foreseen=0)
    assert estimated(counts(m=rest(10, None)), shown).cost == 50


def test_a_batch_is_billed_at_its_share() -> None:
    """P49 Answers from batches count at what they would have cost online, and a batch is estimated
    at its share; no estimate is above the most that it can cost; batches show no time.
    """
    in_batch = answers("m", [(10, 5)] * 6, in_batch=True)
    online = estimated(counts(m=rest(10, 100)), in_batch)
    assert (online.cost, online.answer_seconds) == (100, None)
    halved = Rates(batch_share=0.5, share=0.5, charged_share=0.3, most=None)
    assert estimated(counts(m=rest(10, 100)), in_batch, rates=halved).cost == 50
    capped = Rates(batch_share=0.5, share=1.0, charged_share=0.3, most=70)
    assert estimated(counts(m=rest(10, 100)), in_batch, rates=capped).cost == 70


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_the_range_holds_the_bill_as_often_as_it_says(slope: float) -> None:
    """P49 Over many samples of 20 of 500, the range holds the sum of the rest about 19 times in
    20, whether or not costs depend on what was expected.
    """
    dice, held = random.Random(1), 0
    for _ in range(400):
        xs = [dice.uniform(100, 900) for _ in range(500)]
        pairs = [(x, 1000 + slope * x + dice.gauss(0, 300)) for x in xs]
        drawn, others = pairs[:20], pairs[20:]
        line = fit(
            Sums(
                n=20,
                x=sum(x for x, _ in drawn),
                y=sum(y for _, y in drawn),
                xx=sum(x * x for x, _ in drawn),
                xy=sum(x * y for x, y in drawn),
                yy=sum(y * y for _, y in drawn),
            )
        )
        found = line.predict(480, sum(x for x, _ in others))
        half = margin(found.variance, line.freedom)
        held += abs(found.total - sum(y for _, y in others)) <= half
    assert 0.9 < held / 400 < 0.99
