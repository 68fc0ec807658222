"""The two answers of each row, and the counts of all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchgen.errors import InputError
from batchgen.job import Job
from batchgen.journal import Journal, RecordedOutcome, Row, rows_with_outcomes
from batchgen.journal.shown import answers_of
from batchgen.page import reply_cards
from batchgen.pricing import dollars
from batchgen.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One answer of a row.

    Attributes:
        text: all its choices; of a picture the path of its file.
        pictures: the paths of the pictures that it is.
        run: that recorded it.
        model: that answered.
        tokens: input and output.
        cost: in USD; None for unknown.
    """

    text: str
    pictures: tuple[str, ...]
    run: int
    model: str | None
    tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A row with its answers before and after, of which one may be missing."""

    row: Row
    before: Side | None
    after: Side | None

    @property
    def is_changed(self) -> bool:
        """Whether there are two answers, and they differ."""
        one, other = self.before, self.after
        return one is not None and other is not None and one.text != other.text


@dataclass(slots=True, kw_only=True, eq=False)
class Comparison:
    """What is compared, and the counts of the pairs so far.

    Attributes:
        workspace: the job's.
        names: what the two sides are called.
        pairs: yields each row with an answer, in the file's order.
        equal, changed: rows with two answers.
        only: rows with one answer, by its side.
        tokens, cost: by side, of the rows with two answers; a cost is None if one is unknown.
    """

    workspace: Workspace
    names: tuple[str, str]
    pairs: Iterator[Pair]
    equal: int = 0
    changed: int = 0
    only: list[int] = field(default_factory=lambda: [0, 0])
    tokens: list[int] = field(default_factory=lambda: [0, 0])
    cost: list[float | None] = field(default_factory=lambda: [0.0, 0.0])

    def _count(self, pair: Pair) -> None:
        if pair.before is None or pair.after is None:
            self.only[pair.before is None] += 1
            return
        self.changed += pair.is_changed
        self.equal += not pair.is_changed
        for number, side in enumerate((pair.before, pair.after)):
            known = self.cost[number]
            self.tokens[number] += side.tokens
            self.cost[number] = None if known is None or side.cost is None else known + side.cost


@contextmanager
def compare(
    job: Job,
    *,
    runs: tuple[int, int] | None = None,
    simulate: bool = False,
    output: Path | None = None,
) -> Iterator[Comparison]:
    """Compare the answers of each row while the block runs; reads one state of the journal.

    Args:
        job: the job.
        runs: compare what the rows had after these runs; None: the last answer of each row with the
            one to the request before.
        simulate: what the simulated API answered.
        output: the folder that replaces the job's outputs folder.

    Raises InputError when the job has not been run, has no such run, or its rows have no ids.
    """
    workspace = Workspace.of(job, simulate=simulate, output=output)
    with workspace.peek() as journal, journal.snapshot():
        workspace.staged(journal)
        if job.prompts.id is None:
            raise InputError(
                f"{job.display_name}: nobody can tell which rows belong together before and "
                "after a change; name the column that names a row: prompts.id"
            )
        _check_runs(journal, job, runs or ())
        names = (f"after run {runs[0]}", f"after run {runs[1]}") if runs else ("before", "after")
        comparison = Comparison(workspace=workspace, names=names, pairs=iter(()))
        comparison.pairs = _pairs(comparison, journal, runs)
        yield comparison


def _check_runs(journal: Journal, job: Job, runs: Sequence[int]) -> None:
    last = journal.query("SELECT coalesce(max(run), 0) FROM runs")[0][0]
    for run in runs:
        if not 0 < run <= last:
            raise InputError(f"{job.display_name}: has no run {run}; it has 1 to {last}")


def _pairs(
    comparison: Comparison, journal: Journal, runs: tuple[int, int] | None
) -> Iterator[Pair]:
    renderer = comparison.workspace.renderer
    for row, _ in rows_with_outcomes(journal):
        answers = answers_of(journal, row)
        if runs is None:
            before, after = (answers[1], answers[0]) if len(answers) > 1 else (None, None)
            if before is None and answers:
                after = answers[0]
        else:
            before, after = (_as_of(answers, run) for run in runs)
        if before is None and after is None:
            continue
        one = _side(renderer, row, before)
        pair = Pair(
            row=row,
            before=one,
            after=one if after is before else _side(renderer, row, after),
        )
        comparison._count(pair)
        yield pair


def _as_of(answers: Sequence[RecordedOutcome], run: int) -> RecordedOutcome | None:
    """The answer that a row had after a run; None if there was none yet."""
    return max(
        (answer for answer in answers if answer.run <= run),
        key=lambda answer: answer.run,
        default=None,
    )


def _side(renderer: Any, row: Row, outcome: RecordedOutcome | None) -> Side | None:
    if outcome is None:
        return None
    cards = list(reply_cards(renderer, row, outcome))
    return Side(
        text="\n\n".join(str(card.get("text") or card.get("picture") or "") for card in cards),
        pictures=tuple(card["picture"] for card in cards if card.get("picture")),
        run=outcome.run,
        model=outcome.model,
        tokens=(outcome.input_tokens or 0) + (outcome.output_tokens or 0),
        cost=dollars(outcome.cost),
    )
