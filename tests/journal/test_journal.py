"""A journal beside its readers, its log and its tables."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from lab import Lab, serving
from staged import record, staged

import batchgen
from batchgen import maintenance, queries
from batchgen.dispatch import Attempt
from batchgen.journal import (
    Change,
    Writer,
    begin_run,
    database,
    end_run,
    first_row,
    mark_lost,
    mark_redo,
    record_attempt,
    rows_with_outcomes,
    withdraw_failure,
)
from batchgen.simulator import Settings, Simulator
from batchgen.workspace import Workspace


def test_whatever_changes_a_row_or_an_answer_forgets_the_tables(lab: Lab) -> None:
    """P10 What is known of the tables is forgotten in the transaction that may change them.

    That is pass 1, an outcome, a withdrawal, redo and a lost picture. The beginning and the end of
    a run, and pictures that are as they were, keep it.
    """
    workspace = staged(lab, 3)
    record(workspace, lambda n: True)
    with workspace.locked(), workspace.open() as journal:
        row = first_row(journal)
        assert row is not None
        one = [(row.outcome_id, row.fingerprint)]

        def known() -> bool:
            return journal.meta("tables") is not None

        def written(change: Change) -> None:
            async def commit() -> None:
                writer = Writer(journal.path)
                await writer.commit(change)
                await writer.close()

            asyncio.run(commit())

        def again() -> None:
            lab.prompts(2)
            workspace.stage(journal, capped=False)

        attempt = Attempt(number=1, started_at=1.0, wait=0.0, elapsed=0.1)
        for change in (
            again,
            lambda: mark_redo(journal, [row]),
            lambda: mark_lost(journal, one),
            lambda: mark_lost(journal, []),
            lambda: written(withdraw_failure(row.outcome_id, row.fingerprint, run=1)),
            lambda: written(record_attempt(row.outcome_id, row.fingerprint, attempt, run=1)),
            journal.forget_tables,
        ):
            end_run(journal, 1, 0, {}, {"recipe": "", "files": {}, "disarmed": 0})
            for neutral in (
                lambda: begin_run(journal, {}, ""),
                lambda: end_run(journal, 2, 0, {}),
            ):
                neutral()
                assert known()
            workspace.stage(journal, capped=False)
            marked = journal.query("SELECT ident, key FROM outcomes WHERE lost")
            mark_lost(journal, [tuple(found) for found in marked])
            assert known()
            change()
            assert not known()


def test_readers_see_a_run_that_is_going(lab: Lab) -> None:
    """P01 status counts while another process runs the job, which goes on undisturbed."""
    with serving(Settings(latency=0.02)) as api:
        job = lab.job(api.url, rows=60, limits={"concurrency": 2})
        running = lab.start("run", job)
        seen: list[int] = []
        while running.poll() is None:
            try:
                status = queries.status(lab.load(job))
            except batchgen.InputError:
                continue
            seen.append(status["rows"].get("succeeded", 0))
            assert status["total"] == 60
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert len({count for count in seen if 0 < count < 60}) > 1
    assert seen == sorted(seen)
    assert lab.table()[59]["output"] == "answer 60"


def test_a_journal_whose_log_was_left_behind_is_read_whole(lab: Lab, api: Simulator) -> None:
    """P01 Commits in the log of a process that died are read, and the next run resumes."""
    job = lab.job(api.url, rows=6)
    lab.go(job, limit=2)
    workspace = Workspace.of(lab.load(job))
    with workspace.open() as journal:
        begin_run(journal, {"died": True}, "")
        folder = lab.folder / "crashed" / "job"
        folder.mkdir(parents=True)
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(workspace.folder / name, folder / name)
    assert (folder / "journal.db-wal").stat().st_size > 0
    crashed = lab.folder / "crashed"
    assert queries.status(lab.load(job), output=crashed)["last_run"]["run"] == 2
    assert batchgen.run(lab.load(job), batchgen.Options(output=crashed)).run.calls == 4
    assert maintenance.verify(lab.load(job), output=crashed) == []


def test_a_plan_shadows_what_is_staged_and_touches_nothing(lab: Lab, api: Simulator) -> None:
    """P08 plan stages the changed job in temporary tables; the journal's bytes stay."""
    job = lab.job(api.url)
    lab.go(job)
    before = (lab.output() / "journal.db").read_bytes()
    lab.prompts(9)
    assert batchgen.plan(lab.load(job)).rows == {"succeeded": 5, "pending": 4}
    assert (lab.output() / "journal.db").read_bytes() == before
    assert queries.status(lab.load(job))["rows"] == {"succeeded": 5}


def test_the_log_gives_its_room_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 The next commit cuts the log of pass 1 short: a large job is on disk only once."""
    monkeypatch.setattr(database, "LARGEST_LOG", 50_000)
    job = lab.job("http://127.0.0.1:9/v1")
    (lab.folder / "prompts.csv").write_text(
        "\n".join(["id,text", *(f"r{n},{'x' * 2500}" for n in range(2500))])
    )
    workspace = Workspace.of(lab.load(job))
    log = workspace.folder / "journal.db-wal"
    with workspace.locked(), workspace.open() as journal:
        workspace.stage(journal, capped=False)
        assert log.stat().st_size > 4_000_000
        begin_run(journal, {}, "")
        assert log.stat().st_size <= 50_000


def dead_in_a_transaction(journal: Path, folder: Path, statement: str) -> None:
    """Leave in `folder` what a process leaves of `journal` that is killed within a transaction,
    with its first pages in the file already.
    """
    with closing(sqlite3.connect(journal, isolation_level=None)) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone()[0] == "delete"
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement)
        connection.execute("INSERT INTO other VALUES (zeroblob(100000))")
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("journal.db", "journal.db-journal"):
            shutil.copy(journal.with_name(name), folder / name)


def test_a_job_whose_journal_was_never_made_has_not_been_run(
    lab: Lab, api: Simulator, tmp_path: Path
) -> None:
    """P01 Killed while its journal is made, a job answers as one that never ran, and runs."""
    path = lab.job(api.url, rows=1)
    (tmp_path / "made").mkdir()
    dead_in_a_transaction(
        tmp_path / "made" / "journal.db", lab.output(), "CREATE TABLE other(value)"
    )
    for ask in (queries.status, maintenance.verify, maintenance.export, maintenance.redo):
        with pytest.raises(batchgen.InputError, match="has not been run yet"):
            ask(lab.load(path))
    assert batchgen.plan(lab.load(path)).rows == {"pending": 1}
    assert lab.go(path).rows == {"succeeded": 1}
    assert maintenance.verify(lab.load(path)) == []


def test_a_journal_that_somebody_else_was_writing_is_not_taken_for_an_empty_one(
    lab: Lab, api: Simulator, tmp_path: Path
) -> None:
    """P02 A rollback journal beside a journal that has been made hides nothing: the commands do not
    call the job new.
    """
    path = lab.job(api.url, rows=1)
    lab.go(path)
    shutil.copytree(lab.output(), tmp_path / "other")
    dead_in_a_transaction(
        tmp_path / "other" / "journal.db", lab.output(), "CREATE TABLE other(value)"
    )
    with pytest.raises(batchgen.OutputError, match="cannot be written"):
        queries.status(lab.load(path))


def test_a_snapshot_shows_nothing_of_what_is_staged_meanwhile(lab: Lab) -> None:
    """P02 Who reads several pages of the journal reads one state of it, also while a run stages."""
    workspace = staged(lab, 600)
    with workspace.peek() as journal, journal.snapshot():
        rows = rows_with_outcomes(journal)
        first = next(rows)[0].id
        lab.job("http://127.0.0.1:9/v1", rows=5)
        staged(lab, 5)
        assert [first, *(row.id for row, _ in rows)] == [f"r{n}" for n in range(1, 601)]


def test_an_old_sqlite_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P17 A Python whose SQLite is too old ends with 2 and the version that is needed."""
    job = lab.load(lab.job("http://127.0.0.1:9/v1"))
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))
    for command in (batchgen.run, batchgen.plan, queries.status):
        with pytest.raises(batchgen.InputError, match=r"needs 3\.33 or newer"):
            command(job)
    assert not list(lab.output().glob("journal.db*"))
