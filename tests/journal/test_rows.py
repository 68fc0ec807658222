"""Reading rows is quick, and takes little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from lab import Lab
from staged import record, staged

from batchgen.journal import (
    Journal,
    Scope,
    attempts_of,
    begin_run,
    call_totals,
    count_rows,
    first_row,
    reread,
    rows_with_id,
    rows_with_outcomes,
    thread_heads,
    turns_of,
)
from batchgen.journal.shown import last_answer
from batchgen.workspace import Workspace


def plans(journal: Journal, work: Callable[[], object]) -> list[str]:
    """How SQLite executes the queries of `work`."""
    asked: list[str] = []
    journal.connection.set_trace_callback(asked.append)
    work()
    journal.connection.set_trace_callback(None)
    assert asked
    return [step["detail"] for sql in asked for step in journal.query(f"EXPLAIN QUERY PLAN {sql}")]


def test_every_lookup_uses_an_index(lab: Lab) -> None:
    """P31 No query reads a table once for each row.

    Lookups use an index; only what is counted as a whole is scanned.
    """
    workspace = staged(lab, 50)
    record(workspace, lambda n: n % 2 == 0)
    with workspace.open() as journal:
        begin_run(journal, {}, "")
        row = first_row(journal)
        assert row is not None
        steps = {
            "heads": plans(journal, lambda: thread_heads(journal, 0)),
            "answered": plans(journal, lambda: list(rows_with_outcomes(journal))),
            "standing": plans(journal, lambda: count_rows(journal, by_turns=False)),
            "by turns": plans(journal, lambda: count_rows(journal, Scope(last=7), by_turns=True)),
            "totals": plans(journal, lambda: call_totals(journal)),
            "find": plans(journal, lambda: rows_with_id(journal, "r1")),
            "thread": plans(journal, lambda: turns_of(journal, row)),
            "again": plans(journal, lambda: reread(journal, row)),
            "last": plans(journal, lambda: last_answer(journal, row)),
            "attempts": plans(journal, lambda: attempts_of(journal, [row.outcome_id])),
        }
    # An index found what these read: a few rows, their conversations, and the answers of one row.
    few = ("SCAN page", "SCAN paged", "SCAN owned")
    steps = {
        question: [each for each in details if each not in few]
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


def test_many_conversations_are_read_in_one_go(lab: Lab) -> None:
    """P31 Reading many conversations of two turns takes time in proportion to their number.

    SQLite's steps must not grow with the square of the rows.
    """

    def steps(conversations: int) -> int:
        path = lab.folder / "prompts.csv"
        lines = [f"{n}-{t},t{n},hello {n} {t}\n" for n in range(conversations) for t in (1, 2)]
        path.write_text("id,thread,text\n" + "".join(lines))
        name = f"talk{conversations}"
        job = lab.job("http://127.0.0.1:9/v1", name=name, rows=None, conversation={"id": "thread"})
        workspace = Workspace.of(lab.load(job))
        counted = 0

        def tick() -> int:
            nonlocal counted
            counted += 1
            return 0

        with workspace.locked(), workspace.open() as journal:
            workspace.stage(journal, capped=False)
            journal.connection.set_progress_handler(tick, 1000)
            after, heads = 0, 0
            while page := thread_heads(journal, after):
                heads += len(page)
                after = page[-1].seq
            count_rows(journal, by_turns=True)
        assert heads == conversations
        return counted

    few, many = steps(1000), steps(4000)
    assert many < 6 * few


def test_a_long_conversation_is_read_once(lab: Lab) -> None:
    """P31 A conversation of thousands of turns is not read as a whole for each of its turns."""

    def steps(turns: int) -> int:
        lines = [f"r{n},t,hello {n}\n" for n in range(turns)]
        (lab.folder / "prompts.csv").write_text(
            "id,thread,text\n" + "".join(lines), encoding="utf-8"
        )
        name = f"talk{turns}"
        job = lab.job("http://127.0.0.1:9/v1", name=name, rows=None, conversation={"id": "thread"})
        workspace = Workspace.of(lab.load(job))
        counted = 0

        def tick() -> int:
            nonlocal counted
            counted += 1
            return 0

        with workspace.locked(), workspace.open() as journal:
            workspace.stage(journal, capped=False)
            journal.connection.set_progress_handler(tick, 100)
            counts = count_rows(journal, by_turns=False)
            assert (counts.to_send, counts.retried, counts.lines) == (turns, 0, {"pending": turns})
            (head,) = thread_heads(journal, 0)
            assert len(turns_of(journal, head)) == turns
        return counted

    few, many = steps(500), steps(2000)
    assert many < 6 * few


def test_the_turns_of_a_row_share_its_cells(lab: Lab) -> None:
    """P31 The cells of a row with many turns are in memory once, not once for each turn."""
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
    workspace = Workspace.of(lab.load(job))
    with workspace.locked(), workspace.open() as journal:
        workspace.stage(journal, capped=False)
        (head,) = thread_heads(journal, 0)
        for rows in (turns_of(journal, head), [row for row, _ in rows_with_outcomes(journal)]):
            assert len(rows) == 250
            assert (
                len({id(row.text) for row in rows}) == len({id(row.columns) for row in rows}) == 1
            )


def test_a_page_of_large_texts_is_short(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P31 A page is bounded by its size in bytes too, and no row is left out for it."""
    workspace = staged(lab, 30)
    record(workspace, lambda n: n > 20)
    monkeypatch.setattr("batchgen.journal.rows.PAGE_BYTES", 100)
    with workspace.open() as journal:
        pages, after = [], 0
        while page := thread_heads(journal, after):
            pages.append([row.n for row in page])
            after = page[-1].seq
        assert [n for page in pages for n in page] == list(range(1, 21))
        assert max(map(len, pages)) < 5
        assert [row.n for row, _ in rows_with_outcomes(journal)] == list(range(1, 31))
