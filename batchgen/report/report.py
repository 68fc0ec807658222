"""What one run left: one line for a person, and report.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write
from batchgen.dispatch import Learned
from batchgen.escapes import escape_in_json
from batchgen.journal import STATUSES
from batchgen.report.totals import JobTotals, RunTotals
from batchgen.report.wording import (
    describe_answers,
    describe_batches,
    describe_cost,
    describe_empty_cells,
    left_out_reasons,
    pluralize,
)

# What to do about batches that have not ended.
_COLLECT = ": run again to collect them (or batchgen cancel --wait, then run --mode online)"
_CANCELLED = ", to be cancelled: run again to collect what is answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run left. In scope are the rows that `Options.limit` let in.

    Attributes:
        name: the job's name.
        number: the number of the run, from 1.
        exit_code: what the command returns for it.
        rows: lines of the results table by status, of the rows in scope.
        total: the sum of `rows`.
        run: what the calls of this run took.
        job: how the whole job stands after the run.
        models: the models that answered in this run.
        elapsed: seconds that the run took, without reading the prompts.
        simulated: whether the simulated API answered.
        stopped: why the run ended early, or None.
        output: the job's output folder.
        tables: the paths of the results tables.
        error_tables: the paths of the errors tables.
        page: the path of the page for people; empty if there is none.
        disarmed: cells that got an apostrophe, because a spreadsheet would run them.
        noted: how many answers in the tables had text around their JSON, or pictures or sound
            beside their text.
        learned: what the run learned about the server's limits.
        in_batches: requests in scope that are in open batches.
        batches: the open batches, each as `batch_json` shows it.
        held: requests that wait for room in a queue, or for money that batches set aside.
        committed: USD that the run spent and that the batches which it sent may still cost; None
            if no price is known.
    """

    name: str
    number: int
    exit_code: int
    rows: Mapping[str, int]
    total: int
    run: RunTotals
    job: JobTotals
    models: tuple[str, ...]
    elapsed: float
    simulated: bool
    stopped: str | None
    output: str
    tables: tuple[str, ...]
    error_tables: tuple[str, ...] = ()
    page: str = ""
    disarmed: int = 0
    noted: Mapping[str, int] = field(default_factory=dict)
    learned: Learned = field(default_factory=Learned)
    in_batches: int = 0
    batches: tuple[Mapping[str, Any], ...] = ()
    held: int = 0
    committed: float | None = 0.0

    def run_json(self) -> dict[str, Any]:
        """The part `run` of report.json."""
        return {
            "run": self.number,
            "exit_code": self.exit_code,
            "stopped": self.stopped,
            "rows": dict(self.rows),
            "total": self.total,
            "models": list(self.models),
            "elapsed_s": round(self.elapsed, 3),
            "learned": {
                name: round(per_minute)
                for name, per_minute in asdict(self.learned).items()
                if per_minute
            },
            "in_batches": self.in_batches,
            "batches": list(self.batches),
            "held": self.held,
            "committed": self.committed,
            **asdict(self.run),
        }

    def as_json(self) -> dict[str, Any]:
        """The whole of report.json."""
        return as_json(self.name, self.job, self.run_json(), simulated=self.simulated)

    def notes(self) -> list[str]:
        """What else is worth knowing, for the line and for run.log: what answers had beside their
        text, columns with empty cells, and what the run learned about the server's limits.
        """
        empty = describe_empty_cells(self.job.columns)
        return [*describe_answers(self.noted), *empty, *self._learned()]

    def _learned(self) -> list[str]:
        learned, setting = self.learned, "(limits.requests_per_minute)"
        sentences = []
        if learned.requests:
            sentences.append(
                f"about {learned.requests:,.0f} requests a minute get through {setting}"
            )
        if learned.named_requests:
            number = f"{learned.named_requests:,.0f} requests a minute"
            sentences.append(f"the server's headers name {number} {setting}")
        if learned.named_tokens:
            number = f"{learned.named_tokens:,.0f} tokens a minute"
            sentences.append(f"the server's headers name {number} (limits.tokens_per_minute)")
        return [f"learned: {sentence}" for sentence in sentences]

    def remarks(self) -> list[str]:
        """What a person should know beyond counts and costs, a phrase each."""
        parts = []
        if self.batches:
            cancelling = all(batch["cancelling"] for batch in self.batches)
            what_to_do = _CANCELLED if cancelling else _COLLECT
            parts.append(f"{describe_batches(self.in_batches, len(self.batches))}{what_to_do}")
        if self.held:
            requests = pluralize(self.held, "request")
            parts.append(f"{requests} held back until batches have ended: run again later")
        if self.disarmed:
            parts.append(f"{self.disarmed:,} cells made safe for spreadsheets")
        return [*parts, *self.notes()]

    def line(self) -> str:
        """The report in one line."""
        counts = ", ".join(
            f"{self.rows[status]:,} {status}" for status in STATUSES if self.rows.get(status)
        )
        parts = [f"{self.name}: {pluralize(self.total, 'row')}{f': {counts}' if counts else ''}"]
        parts += left_out_reasons(self.job.left_out)
        if self.run.calls:
            tokens = self.run.input_tokens + self.run.output_tokens
            parts += [
                pluralize(self.run.calls, "call"),
                f"{tokens:,} tokens",
                describe_cost(self.run),
                f"{self.elapsed:.1f} s",
            ]
        else:
            parts.append("no call made")
        parts += self.remarks()
        if self.simulated:
            parts.append("SIMULATED")
        return f"{'; '.join(parts)} -> {self.tables[0] if self.tables else self.output}"


def as_json(
    name: str, job: JobTotals, run: Mapping[str, Any] | None, *, simulated: bool
) -> dict[str, Any]:
    """report.json: how the job stands, and its last run (None: no run has ended)."""
    return {"job": {"name": name, "simulated": simulated, **job.as_json()}, "run": run}


def write_report(folder: Path, content: Mapping[str, Any]) -> None:
    """Write report.json into a job's output folder."""
    with atomic_write(folder / "report.json") as file:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        file.write(f"{escape_in_json(text)}\n")
