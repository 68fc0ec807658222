"""What is sound of a damaged journal comes out of it, and the job goes on."""

from __future__ import annotations

import csv
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab, serving

import batchgen
from batchgen import maintenance, queries
from batchgen.errors import DamagedError, InputError, OutputError
from batchgen.journal import database
from batchgen.journal import salvage as journal_salvage
from batchgen.journal.pages import records_of
from batchgen.journal.schema import COLUMNS, TABLES
from batchgen.salvage import export_salvaged, mend
from batchgen.simulator import RequestInfo, Simulator
from batchgen.workspace import Workspace

ROWS = 60


@pytest.fixture
def job(lab: Lab, api: Simulator) -> Path:
    """A job that has run, with answers that overflow a page of SQLite."""
    dice = random.Random(1)
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        for n in range(1, ROWS + 1):
            noise = "".join(chr(dice.randrange(0x4E00, 0x9FFF)) for _ in range(n * 100))
            writer.writerow([f"r{n}", f"ECHO:answer {n} {noise if n % 9 == 0 else ''}"])
    prices = {"gpt-5.6-luna": {"input": 1, "output": 2}}
    request = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": "{{ text }}"}],
        "max_completion_tokens": 50_000,
    }
    limits = {"max_cost": 100}
    path = lab.job(api.url, rows=None, request=request, limits=limits, pricing=prices)
    assert lab.go(path).exit_code == 0
    return path


def journal_of(lab: Lab) -> Path:
    return lab.output() / "journal.db"


def execute(path: Path, sql: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def table(path: Path) -> dict[str, tuple[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return {row["id"]: (row["status"], row["output"]) for row in csv.DictReader(file)}


def files(lab: Lab) -> dict[str, bytes]:
    """The files of the output folder, without what SQLite keeps beside an open journal."""
    return {
        path.name: path.read_bytes()
        for path in lab.output().iterdir()
        if path.is_file() and not path.name.startswith("journal.db-")
    }


def test_a_damaged_answer_is_told_and_asked_again(lab: Lab, api: Simulator, job: Path) -> None:
    """P02 One damaged answer locks nothing but itself: `export --salvage` writes all others to a
    file of its own and names what is lost, `redo` of the row and a run mend the job.
    """
    whole = table(lab.output() / "results.csv")
    execute(journal_of(lab), "UPDATE outcomes SET response = x'7a00' WHERE ident LIKE '%r7\"%'")
    kept = files(lab)
    for command in ("verify", "export"):
        done = lab.run(command, job)
        assert done.returncode == 74
        assert "the outcome of r7 is not what was written; restore" in done.stderr
        assert "batchgen redo JOB --damaged" in done.stderr
    done = lab.run("export", job, "--salvage")
    assert (done.returncode, done.stderr) == (74, "job: answers of 1 row are lost: r7\n")
    assert done.stdout == f"{lab.output() / 'results.salvaged.csv'}\n"
    salvaged = table(lab.output() / "results.salvaged.csv")
    assert salvaged == {**whole, "r7": ("pending", "")}
    now = files(lab)
    assert {name: now[name] for name in kept} == kept
    assert now.keys() - kept.keys() == {"results.salvaged.csv", "errors.salvaged.csv"}
    before = api.requests.received
    assert maintenance.redo(lab.load(job), ["r7"]) == 1
    assert lab.go(job).exit_code == 0
    assert api.requests.received == before + 1
    assert table(lab.output() / "results.csv") == whole
    assert maintenance.verify(lab.load(job)) == []


def test_an_older_answer_that_is_damaged_goes_with_its_row(lab: Lab) -> None:
    """P02 redo of a row drops what is damaged under its older fingerprints, too: the table shows
    such an answer where the new request failed.
    """

    def refuse(request: RequestInfo) -> str | None:
        return "400_policy" if "edited" in str(request.body) else None

    with serving(script=refuse) as api:
        path = lab.job(api.url, rows=2)
        lab.go(path)
        execute(journal_of(lab), "UPDATE outcomes SET model = 'x' WHERE ident LIKE '%r1\"%'")
        edited = "id,text\nr1,edited\nr2,ECHO:answer 2\n"
        (lab.folder / "prompts.csv").write_text(edited, encoding="utf-8")
        with pytest.raises(DamagedError):
            lab.go(path)
        assert maintenance.redo(lab.load(path), ["r1"]) == 1
        assert lab.go(path).rows == {"failed": 1, "succeeded": 1}
    assert maintenance.verify(lab.load(path)) == []


def ruined(data: bytearray, pages: list[int], how: Callable[[bytes], bytes]) -> None:
    for page in pages:
        data[page * 4096 : (page + 1) * 4096] = how(bytes(data[page * 4096 : (page + 1) * 4096]))


def test_pages_that_are_ruined(lab: Lab, api: Simulator, job: Path) -> None:
    """P02 Whatever pages of the journal are ruined, every answer that comes out is right, those
    that do not are named, and after `redo --damaged` exactly these are sent again.
    """
    whole = table(lab.output() / "results.csv")
    sound = journal_of(lab).read_bytes()
    dice = random.Random(20261129)
    ways: list[Callable[[bytes], bytes]] = [
        lambda page: bytes(4096),
        lambda page: dice.randbytes(4096),
        lambda page: page[:2000] + bytes([page[2000] ^ 255]) + page[2001:],
    ]
    count = len(sound) // 4096
    for trial in range(16):
        data = bytearray(sound)
        # The first pages name the tables, and the first of all has the head.
        pages = [trial] if trial < 3 else dice.sample(range(count), dice.choice([1, 1, 3]))
        ruined(data, pages, dice.choice(ways))
        journal_of(lab).write_bytes(data)
        where = f"trial {trial}, pages {pages}"
        salvaged = export_salvaged(lab.load(job))
        out = table(lab.output() / "results.salvaged.csv")
        answers = {row: cells for row, cells in out.items() if cells[0] == "succeeded"}
        assert answers.items() <= whole.items(), where
        assert set(whole) - set(answers) == set(salvaged.lost), where
        assert list(salvaged.sentences())
        mended = mend(lab.load(job))
        assert (mended.lost, bool(mended.damage)) == (salvaged.lost, bool(salvaged.damage)), where
        before = api.requests.received
        assert lab.go(job).exit_code == 0, where
        assert api.requests.received - before == len(salvaged.lost), where
        assert table(lab.output() / "results.csv") == whole, where
        assert maintenance.verify(lab.load(job)) == [], where
        assert [path.read_bytes() for path in mended.paths] in ([bytes(data)], []), where
        for path in mended.paths:
            path.unlink()


def root_of(path: Path, name: str) -> int:
    return int(execute(path, "SELECT rootpage FROM sqlite_master WHERE name = ?", name)[0][0]) - 1


@pytest.mark.parametrize("name", ["outcomes", "attempts"])
def test_a_lost_root_costs_no_answer(lab: Lab, job: Path, name: str) -> None:
    """P02 Without the page that leads to all answers, or calls, each is found in its own page."""
    whole = table(lab.output() / "results.csv")
    spent = queries.status(lab.load(job))["cost"]
    data = bytearray(journal_of(lab).read_bytes())
    ruined(data, [root_of(journal_of(lab), name)], lambda page: bytes(4096))
    journal_of(lab).write_bytes(data)
    assert mend(lab.load(job)).lost == []
    assert lab.go(job).run.calls == 0
    assert table(lab.output() / "results.csv") == whole
    assert queries.status(lab.load(job))["cost"] == spent


@pytest.mark.parametrize("name", ["prompts", "rows", "meta", "outcomes", "attempts", "runs"])
def test_a_damaged_record_of_each_table(lab: Lab, api: Simulator, job: Path, name: str) -> None:
    """P02 Whichever record is damaged, all answers that are sound come out, and the job goes on."""
    whole = table(lab.output() / "results.csv")
    column = next(each for each, kind in COLUMNS[name].items() if kind == "TEXT")
    value = "prompts" if name == "meta" else "x"
    where = "name = 'staged'" if name == "meta" else f"rowid = (SELECT min(rowid) FROM {name})"
    column = "value" if name == "meta" else column
    execute(journal_of(lab), f"UPDATE {name} SET {column} = '{value}' WHERE {where}")
    lost = 1 if name == "outcomes" else 0
    done = lab.run("export", job, "--salvage")
    assert done.returncode == 74
    assert "bug" not in done.stderr
    out = table(lab.output() / "results.salvaged.csv")
    assert len(out.items() & whole.items()) == ROWS - lost
    done = lab.run("redo", job, "--damaged")
    assert done.returncode == 0
    kept = lab.output() / "journal.damaged.db"
    assert f"job: the damaged journal is kept as {kept}\n" in done.stdout
    assert lab.go(job).run.calls == lost
    assert table(lab.output() / "results.csv") == whole
    assert maintenance.verify(lab.load(job)) == []


def test_a_sound_journal_is_left_alone(lab: Lab, job: Path) -> None:
    """P02 Nothing is lost of a sound journal, and `redo --damaged` does not touch it."""
    before = journal_of(lab).read_bytes()
    done = lab.run("export", job, "--salvage")
    assert (done.returncode, done.stderr) == (
        0,
        "job: the journal is sound\njob: nothing is lost\n",
    )
    assert lab.run("redo", job, "--damaged").returncode == 0
    assert journal_of(lab).read_bytes() == before
    assert not (lab.output() / "journal.damaged.db").exists()
    shutil.rmtree(lab.output())
    for command in (["export", job, "--salvage"], ["redo", job, "--damaged"]):
        done = lab.run(*command)
        assert done.returncode == 2
        assert "has not been run yet" in done.stderr
    assert not lab.output().exists()


def test_mending_while_others_use_the_journal(lab: Lab, job: Path) -> None:
    """P06 A journal is not replaced under a run, nor under a program that reads it."""
    execute(journal_of(lab), "UPDATE outcomes SET model = 'x' WHERE rowid = 1")
    workspace = Workspace.of(lab.load(job))
    with workspace.locked(), pytest.raises(batchgen.BusyError):
        mend(lab.load(job))
    with closing(database.unchecked(journal_of(lab))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM outcomes").fetchone()
        execute(journal_of(lab), "UPDATE outcomes SET model = 'y' WHERE rowid = 1")
        with pytest.raises(OutputError, match="another program has it open"):
            mend(lab.load(job))
    assert mend(lab.load(job)).lost == ["r1"]


def test_the_number_of_a_lost_run_is_not_given_again(lab: Lab, job: Path) -> None:
    """P46 Calls of a run whose entry is lost are not taken for those of the next one."""
    execute(journal_of(lab), "UPDATE runs SET job_text = 'x'")
    mend(lab.load(job))
    maintenance.redo(lab.load(job), ["r1"])
    report = lab.go(job)
    assert (report.number, report.run.calls) == (2, 1)


def test_staged_rows_that_came_from_a_pipe(lab: Lab, api: Simulator) -> None:
    """P02 Damaged rows of prompts that were piped in cannot be read again: that is said."""
    path = lab.job(api.url, prompts={"path": "-", "format": "csv", "id": "id"})
    prompts = b"id,text\na,ECHO:x\n"
    assert lab.run("run", path, stdin=prompts).returncode == 0
    execute(journal_of(lab), "UPDATE prompts SET line = 77")
    with pytest.raises(InputError, match="stdin"):
        export_salvaged(lab.load(path))
    assert lab.run("redo", path, "--damaged").returncode == 0
    done = lab.run("run", path, stdin=prompts)
    assert "no call made" in done.stdout


def test_what_holds_nothing_of_a_journal(
    lab: Lab, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P02 P31 A file in which every read fails, or that is another database, is refused in a
    sentence, and kept.
    """
    monkeypatch.setattr(journal_salvage, "MOST_FAILURES", 500)
    data = bytearray(journal_of(lab).read_bytes())
    names = [name for name in TABLES if name not in ("adopted", "follows")]
    ruined(data, [root_of(journal_of(lab), name) for name in names], lambda page: bytes(4096))
    leaves = [n for n in range(len(data) // 4096) if data[n * 4096] == 13]
    ruined(data, leaves, lambda page: bytes(4096))
    other = lab.folder / "other.db"
    execute(other, "CREATE TABLE outcomes(a)")
    for content in (bytes(data), other.read_bytes(), b"", b"x" * 10_000):
        journal_of(lab).write_bytes(content)
        for command in (export_salvaged, mend):
            with pytest.raises(DamagedError, match="nothing of batchgen's can be read"):
                command(lab.load(job))
        assert journal_of(lab).read_bytes() == content
    assert not list(lab.output().glob(".journal*"))


CELLS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5000),
    st.binary(max_size=5000),
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=30), page=st.sampled_from([512, 4096])
)
def test_pages_are_read_as_sqlite_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], page: int
) -> None:
    """P02 A table's records come out of its pages as SQLite reads them, whatever they hold; those
    that were deleted do not.
    """
    path = tmp_path_factory.mktemp("pages") / "any.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA page_size = {page}")
        connection.execute("CREATE TABLE t(a, b, c)")
        connection.executemany("INSERT INTO t VALUES(?, ?, ?)", rows)
        connection.execute("DELETE FROM t WHERE rowid % 3 = 0")
        connection.commit()
        kept = connection.execute("SELECT rowid, a, b, c FROM t").fetchall()
    read = sorted((rowid, *record) for rowid, record in records_of(path, 3))
    assert [(row[0], *map(repr, row[1:])) for row in read] == [
        (row[0], *map(repr, row[1:])) for row in kept
    ]
