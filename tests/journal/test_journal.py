"""The journal: what is damaged is found, what is committed stays, what is asked is quick."""

from __future__ import annotations

import asyncio
import hashlib
import json
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
from batchgen.dispatch import Attempt, Outcome
from batchgen.errors import BatchgenError, DamagedError, OutputError
from batchgen.journal import (
    Change,
    Journal,
    Writer,
    attempts_of,
    begin_run,
    call_totals,
    count_rows,
    database,
    end_run,
    find_damage,
    first_row,
    last_answer,
    mark_lost,
    mark_redo,
    outcome_of,
    record_attempt,
    record_outcome,
    reread,
    reserve_cost,
    rows_with_id,
    rows_with_outcomes,
    spent,
    thread_heads,
    turns_of,
    withdraw_failure,
)
from batchgen.journal.outcomes import packed, unpacked
from batchgen.journal.records import insert, is_sound, seal_of, update
from batchgen.journal.schema import COLUMNS, TABLES
from batchgen.kinds import KINDS
from batchgen.requests import Request
from batchgen.simulator import Settings, Simulator
from batchgen.staging.rows import GROUP_ROWS, StagingTables
from batchgen.workspace import Workspace

MADE = ("results.csv", "errors.csv", "report.json")


@pytest.fixture
def sound(lab: Lab) -> Job:
    """A job that has run: answers, a refused row, a cut one, an edited one, a picture's worth of attempts."""
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
    """The file's head, the head of each page, and bytes anywhere, each with the bits to flip."""
    dice = random.Random(20261123)
    heads = [
        *range(16, 100, 3),
        *(page + n for page in range(0, len(data), 4096) for n in (0, 3, 6, 8)),
    ]
    anywhere = [dice.randrange(len(data)) for _ in range(250)]
    return [(offset, 1 << dice.randrange(8)) for offset in (*heads, *anywhere)]


def refusal(ask: Callable[[Job], Any], job: Job) -> BatchgenError | None:
    """What `ask` is refused with, or None; anything but an error of batchgen's own is not caught."""
    try:
        ask(job)
    except BatchgenError as error:
        return error
    return None


def test_a_flipped_byte_anywhere_is_found_or_changes_nothing(lab: Lab, sound: Job) -> None:
    """P02 A damaged journal is detected, never silently used: with a byte flipped anywhere, export ends with 74 and names
    the journal or makes exactly the files of the sound one; nothing is ever a traceback."""
    folder = lab.output()
    maintenance.export(sound)
    data, wanted = (folder / "journal.db").read_bytes(), made(folder)
    found = 0
    for offset, bits in offsets(data):
        for leftover in ("journal.db-wal", "journal.db-shm"):
            (folder / leftover).unlink(missing_ok=True)
        (folder / "journal.db").write_bytes(flipped(data, offset, bits))
        told = refusal(maintenance.export, sound)
        if told is None:
            assert made(folder) == wanted, (offset, bits)
        else:
            assert (told.exit_code, "journal.db" in str(told)) == (74, True), (offset, bits, told)
            found += 1
        for ask in (maintenance.verify, queries.status, batchgen.plan):
            told = refusal(ask, sound)
            assert told is None or told.exit_code == 74, (offset, bits, ask, told)
    assert found > 50


def test_a_flipped_byte_in_every_text_that_is_kept_is_found(lab: Lab, sound: Job) -> None:
    """P02 A flipped byte inside a value, which SQLite's own check misses, is named: in an answer, in the prompts' cells, in
    a row, in an attempt's cost, in the report."""
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
            where = f"{column} IS NOT NULL AND rowid = (SELECT max(rowid) FROM {table} WHERE {column} IS NOT NULL)"
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
    ("change", "told"),
    [
        ("PRAGMA user_version = 2", "newer batchgen"),
        ("UPDATE meta SET value = '2' WHERE name = 'scheme'", "newer batchgen"),
        ("DELETE FROM meta WHERE name = 'scheme'", "does not say how its fingerprints were made"),
        ("PRAGMA application_id = 7", "not a journal of batchgen"),
        ("DROP TABLE attempts", "its tables are not batchgen's"),
    ],
)
def test_a_journal_of_another_make_is_refused(lab: Lab, sound: Job, change: str, told: str) -> None:
    """P02 A journal of a newer schema or key scheme, or of something else, is refused with a sentence (74), by readers and
    by runs, and is not touched."""
    path = lab.output() / "journal.db"
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    before = path.read_bytes()
    for ask in (queries.status, maintenance.export, batchgen.run):
        with pytest.raises(OutputError, match=told) as caught:
            ask(sound)
        assert caught.value.exit_code == 74
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused(lab: Lab) -> None:
    """P02 A file of another kind in the journal's place is refused by name, and an empty one is an empty journal."""
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
    """P02 What is kept of the tables is sealed like everything else: a run with nothing to do does not go by what is not what
    was written, and verify names it."""
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
    """P02 Every table has a seal, and what a run leaves fits it, whatever the types it was given."""
    with Workspace.of(sound).peek() as journal:
        for table in TABLES:
            assert list(COLUMNS[table])[-1] == "seal"
            lines = [tuple(found) for found in journal.query(f"SELECT * FROM {table}")]
            assert all(is_sound(table, line) for line in lines)
            assert lines or table in ("files", "reserved", "batches", "members")


def test_a_sealed_line_can_be_changed_only_if_it_is_sound() -> None:
    """P02 A change of a line checks it first: damage is not sealed in. Whole numbers and truth values are stored as SQLite
    gives them back, what cannot be stored as what stands for it."""
    with closing(database.reading(Path("nowhere/journal.db"))) as connection:
        given = {
            "ident": "x\ud800",
            "key": b"\xff",
            "run": 1,
            "number": True,
            "started_at": 5,
            "wait": 0,
            "cost": 10**30,
        }
        row = insert(connection, "attempts", given)
        line = connection.execute("SELECT * FROM attempts").fetchone()
        stored = {
            "ident": "x\ufffd",
            "key": b"\xff",
            "number": 1,
            "started_at": 5.0,
            "cost": None,
            "code": None,
        }
        assert {name: line[name] for name in stored} == stored
        assert is_sound("attempts", tuple(line))
        update(connection, "attempts", row, {"number": 0})
        line = connection.execute("SELECT * FROM attempts").fetchone()
        assert line["number"] == 0
        assert is_sound("attempts", tuple(line))
        connection.execute("UPDATE attempts SET ident = 'y'")
        with pytest.raises(DamagedError):
            update(connection, "attempts", row, {"number": 1})


def test_a_seal_is_the_same_on_every_machine() -> None:
    """P02 The seal of a line is written down in the specification; changing how it is made turns every journal stale."""
    assert seal_of((1, "é", None, b"\x00\xff", 0.25)).hex() == "cc4b7de5f87042c5d61fe1c7bdf61b78"
    array = b'[1,"\\u00e9",null,2,0.25]'
    assert (
        seal_of((1, "é", None, b"\x00\xff", 0.25))
        == hashlib.blake2b(array + b"\x00\xff", digest_size=16).digest()
    )


def test_responses_are_packed_where_that_pays() -> None:
    """P28 A response comes out as it went in, packed or not."""
    for response in (b"", b"{}", b"x" * 2000, bytes(range(256)) * 8):
        assert unpacked(packed(response)) == response
    assert len(packed(b"x" * 2000)) < 100
    with pytest.raises(DamagedError):
        unpacked(b"znonsense")


def staged(lab: Lab, rows: int, **parts: Any) -> Workspace:
    """A place with a journal in which so many rows are staged."""
    place = Workspace.of(lab.load(lab.job("http://127.0.0.1:9/v1", rows=rows, **parts)))
    with place.locked(), place.open() as journal:
        place.stage(journal, capped=False)
    return place


def record(place: Workspace, which: Callable[[int], bool]) -> None:
    """An answer for the rows whose number `which` holds of."""

    async def fill(journal: Journal) -> None:
        run = begin_run(journal, {}, "")
        writer = Writer(journal.path)
        waiting = []
        for row, _ in rows_with_outcomes(journal):
            if which(row.n):
                message = {"role": "assistant", "content": row.id}
                reply = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
                request = Request(
                    id=row.id,
                    outcome_id=row.outcome_id,
                    fingerprint=row.fingerprint,
                    endpoint="",
                    body={},
                    input_bound=0,
                    answer_bound=0,
                    pictures=0,
                )
                outcome = Outcome(
                    request=request,
                    attempts=1,
                    elapsed=0.1,
                    answered_at=1.0,
                    answer=KINDS["chat"].read(reply, {}),
                    reply=json.dumps(reply).encode(),
                )
                waiting.append(
                    writer.commit(
                        record_outcome(row.outcome_id, row.columns_digest, outcome, run=run)
                    )
                )
        await asyncio.gather(*waiting)
        await writer.close()

    with place.open() as journal:
        asyncio.run(fill(journal))


def plans(journal: Journal, work: Callable[[], object]) -> list[str]:
    """How SQLite answers the queries that `work` asks."""
    asked: list[str] = []
    journal.connection.set_trace_callback(asked.append)
    work()
    journal.connection.set_trace_callback(None)
    assert asked
    return [step["detail"] for sql in asked for step in journal.query(f"EXPLAIN QUERY PLAN {sql}")]


def test_every_lookup_uses_an_index(lab: Lab) -> None:
    """P31 No question about rows reads a table once for each row: whatever is looked up is searched by an index; only
    what is counted whole is scanned."""
    place = staged(lab, 50)
    record(place, lambda n: n % 2 == 0)
    with place.open() as journal:
        begin_run(journal, {}, "")
        row = first_row(journal)
        assert row is not None
        steps = {
            "heads": plans(journal, lambda: thread_heads(journal, 0, None)),
            "answered": plans(journal, lambda: list(rows_with_outcomes(journal))),
            "standing": plans(journal, lambda: count_rows(journal, None, by_turns=False)),
            "by turns": plans(journal, lambda: count_rows(journal, 7, by_turns=True)),
            "totals": plans(journal, lambda: call_totals(journal)),
            "find": plans(journal, lambda: rows_with_id(journal, "r1")),
            "thread": plans(journal, lambda: turns_of(journal, row)),
            "again": plans(journal, lambda: reread(journal, row)),
            "last": plans(journal, lambda: last_answer(journal, row.outcome_id)),
            "attempts": plans(journal, lambda: attempts_of(journal, [row.outcome_id])),
        }
    # A page is a few rows that an index found, and `paged` are their conversations.
    steps = {
        question: [each for each in details if each not in ("SCAN page", "SCAN paged")]
        for question, details in steps.items()
    }
    scanned = re.compile(
        r"SCAN (?!(r|s|p|rows|attempts|outcomes|CONSTANT ROW|\(subquery-\d+\))\b|\(subquery)"
    )
    for question, details in steps.items():
        assert not [detail for detail in details if scanned.search(detail)], (question, details)
        # The rows themselves may be read through; nothing else, and never for each of them.
        most = 0 if question in ("heads", "answered", "find", "again", "thread", "last") else 9
        assert (
            sum(each.startswith("SCAN ") and each != "SCAN CONSTANT ROW" for each in details)
            <= most
        ), (question, details)


def test_whatever_changes_a_row_or_an_answer_forgets_the_tables(lab: Lab) -> None:
    """P10 What the journal knows of the tables goes with the transaction that may change what they show: pass 1, an outcome,
    a withdrawal, redo, a lost picture; the beginning and the end of a run, and pictures that are as they were, leave it."""
    place = staged(lab, 3)
    record(place, lambda n: True)
    with place.locked(), place.open() as journal:
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
            place.stage(journal, capped=False)

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
            for harmless in (
                lambda: begin_run(journal, {}, ""),
                lambda: end_run(journal, 2, 0, {}),
            ):
                harmless()
                assert known()
            place.stage(journal, capped=False)
            marked = journal.query("SELECT ident, key FROM outcomes WHERE lost")
            mark_lost(journal, [tuple(found) for found in marked])
            assert known()
            change()
            assert not known()


def test_many_conversations_are_read_in_one_go(lab: Lab) -> None:
    """P31 Twenty thousand conversations of two turns are staged and found without looking at any of them twice over: the
    steps that SQLite takes grow with the rows, not with their square."""

    def steps(conversations: int) -> int:
        path = lab.folder / "prompts.csv"
        lines = [f"{n}-{t},t{n},hello {n} {t}\n" for n in range(conversations) for t in (1, 2)]
        path.write_text("id,thread,text\n" + "".join(lines))
        name = f"talk{conversations}"
        job = lab.job("http://127.0.0.1:9/v1", name=name, rows=None, conversation={"id": "thread"})
        place = Workspace.of(lab.load(job))
        counted = 0

        def tick() -> int:
            nonlocal counted
            counted += 1
            return 0

        with place.locked(), place.open() as journal:
            place.stage(journal, capped=False)
            journal.connection.set_progress_handler(tick, 1000)
            after, heads = 0, 0
            while page := thread_heads(journal, after, None):
                heads += len(page)
                after = page[-1].seq
            count_rows(journal, None, by_turns=True)
        assert heads == conversations
        return counted

    few, many = steps(1000), steps(4000)
    assert many < 6 * few


def test_a_long_conversation_is_read_once(lab: Lab) -> None:
    """P31 A conversation of thousands of turns is counted and read without looking back at all of it for each turn."""

    def steps(turns: int) -> int:
        lines = [f"r{n},t,hello {n}\n" for n in range(turns)]
        (lab.folder / "prompts.csv").write_text(
            "id,thread,text\n" + "".join(lines), encoding="utf-8"
        )
        name = f"talk{turns}"
        job = lab.job("http://127.0.0.1:9/v1", name=name, rows=None, conversation={"id": "thread"})
        place = Workspace.of(lab.load(job))
        counted = 0

        def tick() -> int:
            nonlocal counted
            counted += 1
            return 0

        with place.locked(), place.open() as journal:
            place.stage(journal, capped=False)
            journal.connection.set_progress_handler(tick, 100)
            found = count_rows(journal, None, by_turns=False)
            assert (found.to_send, found.retried, found.lines) == (turns, 0, {"pending": turns})
            (head,) = thread_heads(journal, 0, None)
            assert len(turns_of(journal, head)) == turns
        return counted

    few, many = steps(500), steps(2000)
    assert many < 6 * few


def test_the_turns_of_a_row_share_its_cells(lab: Lab) -> None:
    """P31 A row of many turns is held once, and not once a turn: in its conversation, and in the page for the tables."""
    (lab.folder / "prompts.jsonl").write_text(
        json.dumps({"turns": ["x" * 20_000] * 250}), encoding="utf-8"
    )
    parts: dict[str, Any] = {
        "prompts": {"path": "prompts.jsonl"},
        "conversation": {"turns": "turns"},
    }
    messages = [{"role": "user", "content": "{{ turn }}"}]
    job = lab.job(
        "http://127.0.0.1:9/v1", **parts, request={"model": "gpt-5.6-luna", "messages": messages}
    )
    place = Workspace.of(lab.load(job))
    with place.locked(), place.open() as journal:
        place.stage(journal, capped=False)
        (head,) = thread_heads(journal, 0, None)
        for rows in (turns_of(journal, head), [row for row, _ in rows_with_outcomes(journal)]):
            assert len(rows) == 250
            assert (
                len({id(row.text) for row in rows}) == len({id(row.columns) for row in rows}) == 1
            )


def test_rows_are_not_held_back_without_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 Of prompts with a matrix of many combinations, pass 1 holds a few thousand rows, whatever their number."""
    held = []
    flush = StagingTables.flush

    def looking(self: StagingTables) -> None:
        held.append(len(self._rows))
        flush(self)

    monkeypatch.setattr(StagingTables, "flush", looking)
    batchgen.plan(
        lab.load(lab.job("http://127.0.0.1:9/v1", rows=30, matrix={"axis": list(range(500))}))
    )
    assert sum(held) == 15_000
    assert max(held) < GROUP_ROWS + 500


def test_equal_requests_change_their_names_in_one_go(lab: Lab) -> None:
    """P31 Thousands of rows that ask the same, answered under other names, are matched without comparing each with each;
    what is staged stays sealed."""

    def steps(rows: int) -> int:
        path = lab.folder / "prompts.csv"
        job = lab.job("http://127.0.0.1:9/v1", name=f"same{rows}", rows=None)
        place = Workspace.of(lab.load(job))
        counted = 0

        def tick() -> int:
            nonlocal counted
            counted += 1
            return 0

        for prefix in ("old", "new"):
            lines = [f"{prefix}{n},same\n" for n in range(rows)]
            path.write_text("id,text\n" + "".join(lines), encoding="utf-8")
            with place.locked(), place.open() as journal:
                journal.connection.set_progress_handler(tick if prefix == "new" else None, 100)
                place.stage(journal, capped=False)
            if prefix == "old":
                record(place, lambda n: True)
        with place.peek() as journal:
            assert count_rows(journal, None, by_turns=False).lines == {"succeeded": rows}
            assert list(find_damage(journal)) == []
        return counted

    few, many = steps(200), steps(800)
    assert many < 6 * few


def test_readers_see_a_run_that_is_going(lab: Lab) -> None:
    """P01 status counts while a run is going, from another process, and the run goes on undisturbed to its end."""
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
    """P01 A process that died left commits in the write-ahead log: readers see them, and the next run goes on."""
    job = lab.job(api.url, rows=6)
    lab.go(job, limit=2)
    place = Workspace.of(lab.load(job))
    with place.open() as journal:
        begin_run(journal, {"died": True}, "")
        folder = lab.folder / "crashed" / "job"
        folder.mkdir(parents=True)
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(place.folder / name, folder / name)
    assert (folder / "journal.db-wal").stat().st_size > 0
    crashed = lab.folder / "crashed"
    assert queries.status(lab.load(job), output=crashed)["last_run"]["run"] == 2
    assert batchgen.run(lab.load(job), batchgen.Options(output=crashed)).run.calls == 4
    assert maintenance.verify(lab.load(job), output=crashed) == []


def test_a_call_in_flight_when_the_process_died_counts_as_spent(lab: Lab) -> None:
    """P25 What a dead process had reserved becomes an attempt at its worst cost, once, and the audit says so."""
    place = staged(lab, 2)
    with place.open() as journal:
        row = first_row(journal)
        assert row is not None

        async def reserve() -> None:
            writer = Writer(journal.path)
            await writer.commit(
                reserve_cost(row.outcome_id, row.fingerprint, run=1, number=1, at=5.0, cost=700)
            )
            await writer.close()

        begin_run(journal, {}, "")
        asyncio.run(reserve())
        assert spent(journal) == 0
        begin_run(journal, {}, "")
        begin_run(journal, {}, "")
        assert spent(journal) == 700
        assert [
            (each["reason"], each["cost"], each["run"])
            for each in attempts_of(journal, [row.outcome_id])
        ] == [("interrupted", 700, 1)]
        assert list(find_damage(journal)) == []


def test_the_writer_commits_what_has_arrived_and_tells_everyone_of_a_failure(lab: Lab) -> None:
    """P03 A commit that fails fails for all that waited for it, and for all that come after; nothing is half written."""
    place = staged(lab, 1)

    async def use() -> None:
        writer = Writer(place.folder / "journal.db")
        attempt = Attempt(number=1, started_at=1.0, wait=0.0, elapsed=0.1)
        await asyncio.gather(
            *(writer.commit(record_attempt("=x", b"k", attempt, run=1)) for _ in range(50))
        )

        def full(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA max_page_count = 1")
            raise OutputError("the disk is full")

        with pytest.raises(OutputError, match="full"):
            await writer.commit(record_attempt("=x", b"k", attempt, run=1)._replace(also=full))
        with pytest.raises(OutputError, match="full"):
            await writer.commit(record_attempt("=x", b"k", attempt, run=1))
        await writer.close()

    asyncio.run(use())
    with place.peek() as journal:
        assert len(attempts_of(journal, ["=x"])) == 50


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("out of memory"), RuntimeError("a bug")]
)
def test_a_writer_that_cannot_begin_tells_everyone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """P03 Whatever keeps the journal from being opened or a change from being made, nobody waits for it for ever: every
    commit fails with it, and the writer ends."""

    def broken(path: Path) -> sqlite3.Connection:
        raise error

    def wrong(connection: sqlite3.Connection) -> None:
        raise error

    async def use() -> None:
        writer = Writer(place.folder / "journal.db")
        for _ in range(2):
            with pytest.raises(type(error)):
                await asyncio.wait_for(writer.commit(Change(also=wrong)), 10)
        await asyncio.wait_for(writer.close(), 10)

    place = staged(lab, 1)
    asyncio.run(use())
    monkeypatch.setattr("batchgen.journal.database.writing", broken)
    asyncio.run(use())


def test_hostile_texts_of_a_server_are_kept(lab: Lab) -> None:
    """P18 Lone surrogates in a model's name, a code or an id are recorded as well as can be."""
    place = staged(lab, 1)
    with place.open() as journal:
        row = first_row(journal)
        assert row is not None

        async def use() -> None:
            begin_run(journal, {}, "")
            writer = Writer(journal.path)
            attempt = Attempt(number=1, started_at=1.0, wait=0.0, elapsed=0.1, code="\udc00")
            await writer.commit(record_attempt(row.outcome_id, row.fingerprint, attempt, run=1))
            message = {"role": "assistant", "content": "\ud83d"}
            reply = {"choices": [{"message": message, "finish_reason": "stop"}], "model": "m\ud800"}
            request = Request(
                outcome_id=row.outcome_id,
                fingerprint=row.fingerprint,
                endpoint="",
                body={},
                input_bound=0,
                answer_bound=0,
                pictures=0,
            )
            outcome = Outcome(
                request=request,
                attempts=1,
                elapsed=0.1,
                answered_at=1.0,
                answer=KINDS["chat"].read(reply, {}),
                reply=json.dumps(reply).encode(),
                request_id="\ud800",
            )
            await writer.commit(record_outcome(row.outcome_id, row.columns_digest, outcome, run=1))
            await writer.close()

        asyncio.run(use())
        recorded = outcome_of(journal, row.outcome_id, row.fingerprint)
        assert recorded is not None
        assert recorded.model == "m\ufffd"
        assert attempts_of(journal, [row.outcome_id])[0]["code"] == "\ufffd"
        assert list(find_damage(journal)) == []


def test_a_plan_shadows_what_is_staged_and_touches_nothing(lab: Lab, api: Simulator) -> None:
    """P08 plan stages the changed job in temporary tables: the journal's bytes stay, and its rows are those of before."""
    job = lab.job(api.url)
    lab.go(job)
    before = (lab.output() / "journal.db").read_bytes()
    lab.prompts(9)
    assert batchgen.plan(lab.load(job)).rows == {"succeeded": 5, "pending": 4}
    assert (lab.output() / "journal.db").read_bytes() == before
    assert queries.status(lab.load(job))["rows"] == {"succeeded": 5}


def test_the_log_gives_its_room_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 The write-ahead log grows with what pass 1 writes at once, and gives the disk back with the next commit: a large
    job does not lie there twice for as long as it runs."""
    monkeypatch.setattr(database, "LARGEST_LOG", 50_000)
    job = lab.job("http://127.0.0.1:9/v1")
    (lab.folder / "prompts.csv").write_text(
        "\n".join(["id,text", *(f"r{n},{'x' * 2500}" for n in range(2500))])
    )
    place = Workspace.of(lab.load(job))
    log = place.folder / "journal.db-wal"
    with place.locked(), place.open() as journal:
        place.stage(journal, capped=False)
        assert log.stat().st_size > 4_000_000
        begin_run(journal, {}, "")
        assert log.stat().st_size <= 50_000


def test_a_page_of_large_texts_is_short(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 What is read at once is bounded by its size too, and nothing is left out for it: prompts of a megabyte each do not
    fill the memory."""
    place = staged(lab, 30)
    record(place, lambda n: n > 20)
    monkeypatch.setattr("batchgen.journal.rows.PAGE_BYTES", 100)
    with place.open() as journal:
        pages, after = [], 0
        while page := thread_heads(journal, after, None):
            pages.append([row.n for row in page])
            after = page[-1].seq
        assert [n for page in pages for n in page] == list(range(1, 21))
        assert max(map(len, pages)) < 5
        assert [row.n for row, _ in rows_with_outcomes(journal)] == list(range(1, 31))
