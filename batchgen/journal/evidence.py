"""What answers took so far, beside what they were expected to take: the evidence for estimates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchgen.journal.journal import Journal

# Calls that are read, the newest: the rest of a job is likelier to be as they were than as the
# first ones, and a plan of a million rows must not read them all.
MOST_CALLS = 50_000

# Only answers to requests as they are now: another prompt or model may answer at any length. All
# calls of the run that brought an answer count, also those whose answers did not fit.
_SUMS = f"""WITH calls AS (
        SELECT ident, key, run, max(batch IS NOT NULL) AS in_batch,
            total(cost) AS cost, count(cost) AS priced
        FROM attempts WHERE seq > (SELECT max(seq) FROM attempts) - {MOST_CALLS}
        GROUP BY ident, key, run),
    pairs AS (
        SELECT r.axes, c.in_batch, iif(c.priced, c.cost, NULL) AS y,
            iif(c.priced, CAST(r.cost AS REAL), NULL) AS x, r.tokens AS charged,
            o.input_tokens, o.output_tokens, o.elapsed
        FROM calls c
            JOIN outcomes o ON o.ident = c.ident AND o.key = c.key AND o.run = c.run
            JOIN rows r ON r.key = o.key AND r.ident = o.ident
        WHERE o.status <> 'failed')
    SELECT axes, in_batch, count(*) AS answers, count(y) AS priced, count(x) AS foreseen,
        total(x) AS x, total(y) AS y, total(x * x) AS xx, total(x * y) AS xy, total(y * y) AS yy,
        total(charged) AS charged, total(coalesce(input_tokens, 0) + coalesce(output_tokens, 0))
            AS tokens, total(elapsed) AS elapsed
    FROM pairs GROUP BY axes, in_batch"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Answers to requests of one combination, and what they took. Sums are in nano-dollars.

    Attributes:
        axes: the combination, as JSON.
        in_batch: whether they came in batches.
        answers: how many there are.
        priced: how many of them have a known cost.
        foreseen: of how many of these an expected cost is known, too.
        x, y: the sums of the expected costs outside a batch, and of the costs.
        xx, xy, yy: the sums of their products.
        charged: the tokens that limits were to be charged for them.
        tokens: the tokens in and out that they had.
        elapsed: the seconds that they took.
    """

    axes: str
    in_batch: bool
    answers: int
    priced: int
    foreseen: int
    x: float
    y: float
    xx: float
    xy: float
    yy: float
    charged: float
    tokens: float
    elapsed: float


def evidence(journal: Journal) -> Iterator[Evidence]:
    """What the newest answers took, by combination and by whether they came in a batch."""
    for record in journal.query(_SUMS):
        values = dict(zip(record.keys(), record, strict=True))
        yield Evidence(**{**values, "in_batch": bool(record["in_batch"])})
