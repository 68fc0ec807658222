"""The journal -> counts, tokens, money and time: the report of a run and of its job, and the one line that sums it up."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write
from batchgen.dispatch import Learned
from batchgen.dispatch.batches.records import CANCEL_REQUESTED, Batch, counts_of
from batchgen.journal import Journal, RowCounts
from batchgen.pricing import dollars

STATUSES = ("succeeded", "incomplete", "failed", "blocked", "pending", "outdated")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTotals:
    """Calls and what they took: tokens as the server counted them, cost in USD. `unpriced` calls have an unknown cost."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost: float
    unpriced: int


# What to do about batches that have not ended.
COLLECT = ": run again to collect them (or batchgen cancel --wait, then run --mode online)"
CANCELLED = ", to be cancelled: run again to collect what is answered"

NOTHING = RunTotals(calls=0, input_tokens=0, output_tokens=0, cost=0.0, unpriced=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTotals:
    """What is true of a job as its journal stands: table lines by status (they sum to `total`), the failed and
    incomplete ones by reason, the models that answered, and what all runs took."""

    rows: Mapping[str, int]
    total: int
    failures: Mapping[str, int]
    models: tuple[str, ...]
    totals: RunTotals

    def as_json(self) -> dict[str, Any]:
        """The state as report.json has it."""
        counts = {"rows": dict(self.rows), "total": self.total, "failures": dict(self.failures)}
        return {**counts, "models": list(self.models), **asdict(self.totals)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run left. `rows` are the table lines in scope by status, and sum to `total`; `run` is what this run took,
    `job` the state of the whole job after it; `models` are those that answered in this run; `elapsed` in seconds; `stopped` why
    the run ended early, or None; `batches` are those that have not ended, as `batch_json` tells of them, `in_batches` how many
    requests in scope are in them, and `held` how many wait for room in a queue or for money that batches set aside;
    `committed` is what the run spent, and what the batches that it sent may still cost, in USD."""

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
    disarmed: int = 0
    learned: Learned = field(default_factory=Learned)
    in_batches: int = 0
    batches: tuple[Mapping[str, Any], ...] = ()
    held: int = 0
    committed: float = 0.0

    def run_json(self) -> dict[str, Any]:
        """What is true of the run, as report.json has it."""
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
        """The report as report.json has it."""
        return as_json(self.name, self.job, self.run_json(), simulated=self.simulated)

    def learned_lines(self) -> list[str]:
        """What the run found out of the server's limits, in sentences; none where the server held nothing back."""
        learned = self.learned
        told = []
        if learned.requests:
            told.append(
                f"about {learned.requests:,.0f} requests a minute get through (limits.requests_per_minute)"
            )
        if learned.named_requests:
            told.append(
                f"the server's headers name {learned.named_requests:,.0f} requests a minute (limits.requests_per_minute)"
            )
        if learned.named_tokens:
            told.append(
                f"the server's headers name {learned.named_tokens:,.0f} tokens a minute (limits.tokens_per_minute)"
            )
        return [f"learned: {each}" for each in told]

    def line(self) -> str:
        """One honest line for a person."""
        counts = ", ".join(
            f"{self.rows[status]:,} {status}" for status in STATUSES if self.rows.get(status)
        )
        calls = pluralize(self.run.calls, "call") if self.run.calls else "no call made"
        told = [f"{self.name}: {pluralize(self.total, 'row')}: {counts or 'nothing'}", calls]
        if self.run.calls:
            tokens = self.run.input_tokens + self.run.output_tokens
            told += [f"{tokens:,} tokens", describe_cost(self.run), f"{self.elapsed:.1f} s"]
        if self.batches:
            asked = all(batch["cancelling"] for batch in self.batches)
            told.append(
                f"{describe_batches(self.in_batches, len(self.batches))}{CANCELLED if asked else COLLECT}"
            )
        if self.held:
            told.append(
                f"{pluralize(self.held, 'request')} held back until batches have ended: run again later"
            )
        if self.disarmed:
            told.append(f"{self.disarmed:,} cells made safe for spreadsheets")
        told += self.learned_lines()
        if self.simulated:
            told.append("SIMULATED")
        return f"{'; '.join(told)} -> {self.tables[0] if self.tables else self.output}"


def batch_json(batch: Batch) -> dict[str, Any]:
    """A batch that has not ended, as the server showed it last; times in seconds since 1970."""
    answered, failed = counts_of(batch)
    return {
        "id": batch.id,
        "status": batch.status,
        "cancelling": CANCEL_REQUESTED in batch.seen,
        "endpoint": batch.endpoint,
        "model": batch.model,
        "requests": batch.requests,
        "answered": answered,
        "failed": failed,
        "age_s": max(0, round(time.time() - batch.made_at)),
        "expires_at": batch.seen.get("expires_at"),
    }


def describe_batches(requests: int, batches: int) -> str:
    """`1,000 requests in 1 batch`."""
    return f"{pluralize(requests, 'request')} in {batches:,} batch{'es' * (batches != 1)}"


def describe_stale_requests(requests: int) -> str:
    """What to say of requests in batches that no row wants any more."""
    return f"{pluralize(requests, 'request')} in batches are of rows that have changed since, and cost all the same"


def rerun_reasons(standing: RowCounts) -> dict[str, int]:
    """Why answered rows run again, as a plan and a run say it, and how many."""
    reasons = {
        "of a change in the job or in an earlier turn": standing.changed_job,
        "of changed cells": standing.changed_rows,
        "their pictures are missing or were changed": standing.lost,
    }
    return {why: count for why, count in reasons.items() if count}


def pluralize(number: int, word: str) -> str:
    """`1 call`, `2,000 calls`."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def as_json(
    name: str, job: JobTotals, run: Mapping[str, Any] | None, *, simulated: bool
) -> dict[str, Any]:
    """report.json: what is true of the job, and what is true of its last run (None: none has ended)."""
    return {"job": {"name": name, "simulated": simulated, **job.as_json()}, "run": run}


def write_report(folder: Path, content: Mapping[str, Any]) -> None:
    """Write report.json, whole."""
    with atomic_write(folder / "report.json") as file:
        json.dump(content, file, indent=2, ensure_ascii=False)
        file.write("\n")


def job_totals(journal: Journal, whole: RowCounts) -> JobTotals:
    """The state of a whole job, all of whose rows stand so."""
    return JobTotals(
        rows=whole.lines,
        total=sum(whole.lines.values()),
        failures=whole.failures,
        models=journal.models(),
        totals=run_totals(journal, None),
    )


def describe_cost(totals: RunTotals) -> str:
    """A cost as people read it: with enough digits to tell, and what is unknown said to be unknown."""
    if totals.unpriced and not totals.cost:
        return "cost unknown"
    text = (
        f"${totals.cost:.2f}" if totals.cost >= 1 else f"${totals.cost:.6f}".rstrip("0").rstrip(".")
    )
    return f"{text} and {totals.unpriced:,} calls of unknown cost" if totals.unpriced else text


def run_totals(journal: Journal, run: int | None) -> RunTotals:
    """What one run, or (None) all runs, took."""
    totals = journal.totals(run)
    return RunTotals(
        calls=totals["calls"],
        input_tokens=totals["input_tokens"],
        output_tokens=totals["output_tokens"],
        cost=dollars(totals["cost"]) or 0.0,
        unpriced=totals["unpriced"],
    )
