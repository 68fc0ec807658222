"""A journal of an older schema is brought to the present one, whole or not at all.

tests/fixtures/threads-v1 was made by version 0.1.0: conversations that begin alike, of which one
has a turn that was refused. In `named` and `listed` the rows have no ids; in `ids` a turn was
edited. The answers say what their requests had been sent.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lab import serving

import batchgen
from batchgen import Job, OutputError, load_job, maintenance, queries
from batchgen.journal import Journal, database, migration
from batchgen.journal.database import writing
from batchgen.journal.schema import SCHEMA_VERSION
from batchgen.simulator import Simulator

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = ("named", "listed", "ids")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A copy of the jobs, whose server cannot be reached."""
    return Path(shutil.copytree(FIXTURES / "threads-v1", tmp_path / "older"))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with serving() as api:
        monkeypatch.setenv("OPENAI_BASE_URL", api.url)
        yield api


def load(folder: Path, name: str) -> Job:
    return load_job(folder / f"{name}.yaml", environ={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})


def schema_of(path: Path) -> tuple[int, set[tuple[Any, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        sql = "SELECT type, name, sql FROM sqlite_master"
        return version, set(connection.execute(sql))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_answers(folder: Path, name: str) -> None:
    """Each answer of the table tells what it was asked: the conversation that it stands in."""
    with (folder / name / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    talks: dict[str, list[tuple[str, str]]] = {}
    for n, row in enumerate(table):
        if name == "listed":
            talks[str(n)] = [(m["role"], m["content"]) for m in json.loads(row["messages"])]
        elif row["status"] == "succeeded":
            talk = talks.setdefault(row["thread"], [])
            talk += [("user", row["text"]), ("assistant", row["output"])]
    assert len(talks) > 3
    for talk in talks.values():
        for n in range(1, len(talk), 2):
            asked = hashlib.sha256(json.dumps(talk[:n]).encode()).hexdigest()[:16]
            assert talk[n][1].split()[1] == asked


@pytest.mark.parametrize("name", NAMES)
def test_readers_change_nothing(older: Path, name: str) -> None:
    """P02 status, show, export, verify and plan read an older journal without a write, and find in
    it what the version before found."""
    job, path = load(older, name), older / name / "journal.db"
    before = path.read_bytes()
    counts = {"succeeded": 4, "failed": 1} if name == "listed" else {"succeeded": 9, "failed": 1}
    if name != "listed":
        counts["blocked"] = 1
    assert queries.status(job)["rows"] == counts
    assert maintenance.verify(job) == []
    maintenance.export(job)
    check_answers(older, name)
    with Journal.peek(older / name) as journal:
        (row,) = journal.query("SELECT id FROM rows ORDER BY seq LIMIT 1")
    assert queries.show(job, row["id"])[0]["status"] == "succeeded"
    plan = batchgen.plan(job)
    assert (plan.calls, plan.rows) == (0, counts)
    with next(older.glob(f"{name}.[cj]s*")).open("a", encoding="utf-8") as prompts:
        prompts.write(
            {"listed": '{"turns": ["new"]}\n', "named": "f,new\n"}.get(name, "f1,f,new\n")
        )
    assert batchgen.plan(job).calls == 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_paid_again(older: Path, api: Simulator, name: str) -> None:
    """P08 P13 After the upgrade nothing is asked again, also once the conversations are sorted or
    some are removed; each keeps its own replies."""
    prompts = next(older.glob(f"{name}.[cj]s*"))
    lines = prompts.read_text(encoding="utf-8").splitlines()
    head, rows = ([], lines) if name == "listed" else (lines[:1], lines[1:])

    def thread_of(line: str) -> str:
        return line if name == "listed" else line.split(",")[-2]

    first = thread_of(rows[0])
    for kept in (
        rows,
        sorted(rows, key=thread_of, reverse=True),
        [row for row in rows if thread_of(row) != first],
        rows,
    ):
        prompts.write_text("\n".join([*head, *kept]) + "\n", encoding="utf-8")
        job = load_job(older / f"{name}.yaml")
        assert batchgen.plan(job).calls == batchgen.run(job).run.calls == 0
        check_answers(older, name)
    assert maintenance.verify(load_job(older / f"{name}.yaml")) == []
    assert api.requests.received == 0


def test_an_edit_of_before_can_be_undone(older: Path, api: Simulator) -> None:
    """P08 An answer of before that followed the reply that is still there comes back free of
    charge; one whose reply was replaced since is asked anew."""
    prompts = older / "ids.csv"
    text = prompts.read_text(encoding="utf-8")
    prompts.write_text(text.replace("a2,a,how", "a2,a,what"), encoding="utf-8")
    job = load_job(older / "ids.yaml")
    assert batchgen.run(job).run.calls == 0
    check_answers(older, "ids")
    prompts.write_text(text, encoding="utf-8")
    assert batchgen.run(job).run.calls == 0
    maintenance.redo(job, ["a1"])
    assert batchgen.run(job).run.calls == 3
    prompts.write_text(text.replace("a2,a,how", "a2,a,what"), encoding="utf-8")
    assert batchgen.plan(job).calls == batchgen.run(job).run.calls == 2


@pytest.mark.parametrize("fixture", ["threads-v1/named", "threads-v1/ids", "journal-v1/output"])
def test_a_migrated_journal_is_like_a_new_one(tmp_path: Path, fixture: str) -> None:
    """P02 It has the tables and indexes of a new journal, word for word, and every record of it is
    sound; what was recorded before is as it was."""
    shutil.copytree(FIXTURES / fixture, tmp_path / "old")
    with closing(sqlite3.connect(tmp_path / "old" / "journal.db")) as connection:
        before = "\n".join(connection.iterdump()).splitlines()
    writing(tmp_path / "new.db").close()
    Journal.open(tmp_path / "old").close()
    assert schema_of(tmp_path / "old" / "journal.db") == schema_of(tmp_path / "new.db")
    assert schema_of(tmp_path / "new.db")[0] == SCHEMA_VERSION
    with closing(sqlite3.connect(tmp_path / "old" / "journal.db")) as connection:
        assert set(before) <= set("\n".join(connection.iterdump()).splitlines())
    with Journal.peek(tmp_path / "old") as journal:
        for table in ("follows", "adopted"):
            for record in journal.all_records(table):
                journal.checked(table, record)


def _killed_in_migration(folder: str, after: int) -> None:
    """Open a journal, and die after that many statements of its migration."""
    count = 0

    def trace(statement: str) -> None:
        nonlocal count
        count += 1
        if count == after:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(connection: sqlite3.Connection, *args: Any, **options: Any) -> None:
        connection.set_trace_callback(trace)
        migration.migrate(connection, *args, **options)
        connection.set_trace_callback(None)
        trace("the end, before it is committed")

    vars(database)["migrate"] = traced
    Journal.open(Path(folder)).close()
    os._exit(0)


def test_killed_in_the_middle_it_has_not_begun(older: Path) -> None:
    """P01 A process that is killed at any statement of a migration leaves the journal as it was;
    the next one brings it to the present schema."""
    folder, steps = older / "named", 0
    before = schema_of(folder / "journal.db")
    code: int | None = -9
    while code == -9:
        steps += 1
        process = multiprocessing.get_context("forkserver").Process(
            target=_killed_in_migration, args=(str(folder), steps)
        )
        process.start()
        process.join(60)
        code = process.exitcode
        if code == -9:
            assert queries.status(load(older, "named"))["rows"]["succeeded"] == 9
            assert schema_of(folder / "journal.db") == before
    assert code == 0
    assert steps > 10
    assert schema_of(folder / "journal.db")[0] == SCHEMA_VERSION
    assert maintenance.verify(load(older, "named")) == []


@pytest.mark.parametrize("ask", [batchgen.run, batchgen.plan, queries.status, maintenance.export])
def test_a_journal_of_a_newer_version_is_left_alone(older: Path, ask: Callable[[Job], Any]) -> None:
    """P02 A program that is older than the journal says so, ends with 74, and touches nothing."""
    path = older / "named" / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = files_of(path.parent)
    with pytest.raises(OutputError, match=r"was written by a newer batchgen.*update") as caught:
        ask(load(older, "named"))
    assert caught.value.exit_code == 74
    after = files_of(path.parent)
    after.pop(".lock", None)
    assert after == before
