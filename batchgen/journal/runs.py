"""The runs: how each began, and how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from batchgen.journal.journal import Journal
from batchgen.journal.records import insert, update
from batchgen.requests import canonical


def begin_run(journal: Journal, provenance: Mapping[str, Any], job_text: str) -> int:
    """Record that a run begins, and return its number.

    Calls that a dead process left in flight become attempts at their highest cost: they may have
    been billed.
    """
    with journal.transaction(changes_tables=False) as connection:
        for dead in journal.records("reserved", "1 = 1"):
            call = {name: dead[name] for name in ("ident", "key", "run", "number", "cost")}
            ended = {"started_at": dead["at"], "reason": "interrupted", "wait": 0.0}
            insert(connection, "attempts", {**call, **ended})
        connection.execute("DELETE FROM reserved")
        number = connection.execute("SELECT coalesce(max(run), 0) + 1 FROM runs").fetchone()[0]
        run = {
            "run": number,
            "started_at": time.time(),
            "provenance": canonical(provenance),
            "job_text": job_text,
        }
        return insert(connection, "runs", run)


def end_run(
    journal: Journal,
    run: int,
    exit_code: int,
    report: Mapping[str, Any],
    tables: Mapping[str, Any] | None = None,
) -> None:
    """Record that a run has ended.

    run: its number.
    exit_code: of the process.
    report: as report.json has it.
    tables: what is known of the tables that show the journal as it is now; None to keep what was
        known.
    """
    with journal.transaction(changes_tables=False) as connection:
        if tables is not None:
            journal.keep("tables", tables)
        ended = {"ended_at": time.time(), "exit_code": exit_code, "report": json.dumps(report)}
        update(connection, "runs", run, ended)


def last_run(journal: Journal) -> dict[str, Any] | None:
    """The latest run, ended or not; None before the first. Raises DamagedError."""
    runs = journal.records("runs", "1 = 1 ORDER BY run DESC LIMIT 1")
    return runs[0] if runs else None


def last_report(journal: Journal) -> dict[str, Any] | None:
    """The report of the last run that ended, or None. Raises DamagedError."""
    runs = journal.records("runs", "report IS NOT NULL ORDER BY run DESC LIMIT 1")
    return json.loads(runs[0]["report"]) if runs else None
