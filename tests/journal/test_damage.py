"""What is damaged in a journal is found, and never used."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

import batchgen
from batchgen import Job, maintenance, queries
from batchgen.errors import BatchgenError, DamagedError, OutputError
from batchgen.journal.records import is_sound
from batchgen.journal.schema import COLUMNS, SCHEMA_VERSION, TABLES
from batchgen.workspace import Workspace

MADE = ("results.csv", "errors.csv", "report.json")


@pytest.fixture
def sound(lab: Lab) -> Job:
    """A job that has run: answers, a refused row, an edited row and their attempts."""
    with serving(
        script=lambda request: "400_policy" if "answer 3" in str(request.body) else None
    ) as api:
        job = lab.job(
            api.url,
            rows=12,
            limits={"max_cost": 1},
            pricing={"gpt-5.6-luna": {"input": 1, "output": 2}},
        )
        lab.go(job, limit=8)
        lab.go(job)
    return lab.load(job)


def made(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in MADE}


def flipped(data: bytes, offset: int, bits: int) -> bytes:
    changed = bytearray(data)
    changed[offset] ^= bits
    return bytes(changed)


def offsets(data: bytes) -> list[tuple[int, int]]:
    """The file's head, the head of each page, and random bytes, each with the bits to flip."""
    dice = random.Random(20261123)
    heads = [
        *range(16, 100, 3),
        *(page + n for page in range(0, len(data), 4096) for n in (0, 3, 6, 8)),
    ]
    anywhere = [dice.randrange(len(data)) for _ in range(250)]
    return [(offset, 1 << dice.randrange(8)) for offset in (*heads, *anywhere)]


def refusal(ask: Callable[[Job], Any], job: Job) -> BatchgenError | None:
    """The error that `ask` raises, or None; only batchgen's own errors are caught."""
    try:
        ask(job)
    except BatchgenError as error:
        return error
    return None


def test_a_flipped_byte_anywhere_is_found_or_changes_nothing(lab: Lab, sound: Job) -> None:
    """P02 A damaged journal is found, never silently used.

    With a byte flipped anywhere, export ends with 74 and names the journal, or makes exactly the
    files of the sound one. No command ends with a traceback.
    """
    folder = lab.output()
    maintenance.export(sound)
    data, wanted = (folder / "journal.db").read_bytes(), made(folder)
    found = 0
    for offset, bits in offsets(data):
        for leftover in ("journal.db-wal", "journal.db-shm"):
            (folder / leftover).unlink(missing_ok=True)
        (folder / "journal.db").write_bytes(flipped(data, offset, bits))
        error = refusal(maintenance.export, sound)
        if error is None:
            assert made(folder) == wanted, (offset, bits)
        else:
            assert (error.exit_code, "journal.db" in str(error)) == (74, True), (
                offset,
                bits,
                error,
            )
            found += 1
        for ask in (maintenance.verify, queries.status, batchgen.plan):
            error = refusal(ask, sound)
            assert error is None or error.exit_code == 74, (offset, bits, ask, error)
    assert found > 50


def test_a_flipped_byte_in_every_text_that_is_kept_is_found(lab: Lab, sound: Job) -> None:
    """P02 A changed value, which SQLite's own check misses, is named.

    It may be in an answer, a prompt's cells, a row, an attempt's cost, the report, or what is known
    of pass 1.
    """
    path = lab.output() / "journal.db"
    with Workspace.of(sound).open() as journal:
        journal.forget_tables()
    for table, column, named in (
        ("outcomes", "response", "the outcome of"),
        ("prompts", "columns", "the staged line"),
        ("rows", "axes", "the staged row"),
        ("attempts", "cost", "an attempt at"),
        ("runs", "report", "the entry of run"),
        ("meta", "value", "the entry staged"),
        ("outcomes", "message", "the outcome of"),
        ("outcomes", "tries", "the outcome of"),
    ):
        shutil.copy(path, lab.folder / "kept.db")
        with sqlite3.connect(path) as connection:
            last = f"SELECT max(rowid) FROM {table} WHERE {column} IS NOT NULL"
            where = f"rowid = ({last})"
            value = connection.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()[0]
            wrong: Any = (
                value + 1
                if isinstance(value, int)
                else value[:-1] + type(value)(b"!" if isinstance(value, bytes) else "!")
            )
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (wrong,))
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        connection.close()
        with pytest.raises(DamagedError, match=re.escape(str(path)) + f".*{named}"):
            maintenance.export(sound)
        shutil.copy(lab.folder / "kept.db", path)
    assert maintenance.verify(sound) == []


def test_the_commands_end_with_74_and_a_sentence(lab: Lab, sound: Job) -> None:
    """P02 verify and export of a damaged journal end with 74, name it, and show no traceback."""
    path = lab.output() / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE outcomes SET response = X'72' || response")
    connection.close()
    for command in ("export", "verify"):
        done = lab.run(command, lab.folder / "job.yaml")
        assert done.returncode == 74, done.stderr
        assert "journal.db" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (f"PRAGMA user_version = {SCHEMA_VERSION + 1}", "newer batchgen"),
        ("UPDATE meta SET value = '2' WHERE name = 'scheme'", "newer batchgen"),
        ("DELETE FROM meta WHERE name = 'scheme'", "does not say how its fingerprints were made"),
        ("PRAGMA application_id = 7", "not a journal of batchgen"),
        ("DROP TABLE attempts", "its tables are not batchgen's"),
    ],
)
def test_a_journal_of_another_make_is_refused(
    lab: Lab, sound: Job, change: str, message: str
) -> None:
    """P02 A journal of a newer schema or scheme, or another database, is refused with 74.

    Readers and runs refuse it with a sentence, and do not touch it.
    """
    path = lab.output() / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    before = path.read_bytes()
    for ask in (queries.status, maintenance.export, batchgen.run):
        with pytest.raises(OutputError, match=message) as caught:
            ask(sound)
        assert caught.value.exit_code == 74
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused(lab: Lab) -> None:
    """P02 A file of another kind is refused by name; an empty file is an empty journal."""
    job = lab.load(lab.job("http://127.0.0.1:9/v1"))
    lab.output().mkdir(parents=True)
    path = lab.output() / "journal.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at by anyone" * 20)
    with pytest.raises(DamagedError, match=r"journal.db: is damaged"):
        queries.status(job)
    path.write_bytes(b"")
    with pytest.raises(batchgen.InputError, match="has not been run yet"):
        queries.status(job)


def test_a_damaged_row_is_not_sent(lab: Lab, sound: Job) -> None:
    """P02 A staged row that is not what was staged stops the run before it is sent."""
    with sqlite3.connect(lab.output() / "journal.db") as connection:
        connection.execute("UPDATE rows SET key = 'x' WHERE n = 2")
    connection.close()
    with pytest.raises(DamagedError, match="the staged row r2"):
        batchgen.run(sound)


def test_a_damaged_note_of_the_tables_is_found(lab: Lab) -> None:
    """P02 What is kept about the tables is sealed too.

    A run with nothing to do refuses it when it is damaged, and verify names it.
    """
    with serving() as api:
        job = lab.load(lab.job(api.url))
        batchgen.run(job)
        with sqlite3.connect(lab.output() / "journal.db") as connection:
            connection.execute(
                "UPDATE meta SET value = replace(value, '[', '[1') WHERE name = 'tables'"
            )
        connection.close()
        with pytest.raises(DamagedError, match="the entry tables"):
            batchgen.run(job)
        assert "the entry tables" in maintenance.verify(job)[0]


def test_every_line_of_every_table_is_sealed(lab: Lab, sound: Job) -> None:
    """P02 Every table has a seal, and every record of a run fits it, whatever its types."""
    with Workspace.of(sound).peek() as journal:
        for table in TABLES:
            assert list(COLUMNS[table])[-1] == "seal"
            records = [tuple(record) for record in journal.query(f"SELECT * FROM {table}")]
            assert all(is_sound(table, record) for record in records)
            assert records or table in (
                "files",
                "reserved",
                "batches",
                "members",
                "follows",
                "adopted",
            )


def pages_of(path: Path, name: str) -> tuple[int, list[int]]:
    """The size of the pages of a journal, and the numbers of those of one table or index."""
    with closing(sqlite3.connect(path)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)
        ).fetchone()
    data = path.read_bytes()
    head = (root - 1) * size
    if data[head] != 2:  # not an interior page of an index: the root is the only one
        return size, [root]
    cells = int.from_bytes(data[head + 3 : head + 5])
    offsets = [
        int.from_bytes(data[head + 12 + 2 * n : head + 14 + 2 * n]) + head for n in range(cells)
    ]
    return size, [int.from_bytes(data[at : at + 4]) for at in (*offsets, head + 8)]


@pytest.mark.parametrize("damage", ["a byte", "two pages", "a mark"])
def test_damage_by_which_an_answer_is_not_found_stops_the_run(lab: Lab, damage: str) -> None:
    """P02 A damaged index, or a mark that says `again`, is found before the first call.

    One byte of an id in the index of the outcomes, two of its pages swapped, or an outcome that
    nobody marked: plan and run end with 74, and nothing is sent and paid twice.
    """
    with serving() as api:
        path = lab.job(api.url, rows=120)
        lab.go(path)
        job, journal = lab.load(path), lab.output() / "journal.db"
        assert api.requests.answered == 120
        size, pages = pages_of(journal, "sqlite_autoindex_outcomes_1")
        data = bytearray(journal.read_bytes())
        if damage == "a byte":
            start = (pages[0] - 1) * size
            data[data.index(b'=["r', start, start + size) + 3] ^= 2
        elif damage == "two pages":
            one, other = (slice((page - 1) * size, page * size) for page in pages[:2])
            data[one], data[other] = data[other], data[one]
        journal.write_bytes(data)
        if damage == "a mark":
            with closing(sqlite3.connect(journal)) as connection, connection:
                connection.execute("UPDATE outcomes SET redo = 1 WHERE ident LIKE '%r5\"%'")
        for ask in (batchgen.run, batchgen.plan, batchgen.run):
            with pytest.raises(DamagedError, match=re.escape(str(journal))) as caught:
                ask(job)
            assert caught.value.exit_code == 74
        assert api.requests.answered == 120


def test_what_other_tools_add_is_no_damage(lab: Lab, sound: Job) -> None:
    """P02 Statistics, tables and indexes that another SQLite tool left in the journal are no
    damage, nor that it was written anew."""
    with closing(sqlite3.connect(lab.output() / "journal.db")) as connection, connection:
        connection.execute("ANALYZE")
        connection.execute("CREATE TABLE notes(note TEXT)")
        connection.execute("CREATE INDEX theirs ON outcomes(model)")
        connection.commit()
        connection.execute("VACUUM")
    assert queries.status(sound)["total"] == 12
    assert batchgen.run(sound).run.calls == 0
    assert maintenance.verify(sound) == []
