"""Conversations as a state machine: rows are sorted, removed, edited, renamed, copied and redone.

The server's answer tells which request it is and what it was sent, so each cell of a table can be
checked against the conversation that it stands in.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from hostile import INVALID, Behaviour, Hostile, error, http, ok
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from lab import Lab, Server

import batchgen
from batchgen import maintenance
from batchgen.journal import Journal

WORDS = ("hi", "how", "why")
REFUSED = "no"
Talk = list[tuple[str, str]]


def digest_of(messages: Talk) -> str:
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16]


class ThreadLife(RuleBasedStateMachine):
    """One job whose rows are conversations of few words, so that many begin alike."""

    ids: ClassVar[bool]
    listed: ClassVar[bool]
    matrix: ClassVar[tuple[str, ...]] = ("dry",)

    def __init__(self) -> None:
        super().__init__()
        self.hostile = Hostile(self.answer)
        self.server = Server(self.hostile.start, self.hostile.stop)
        self.folder = Path(tempfile.mkdtemp(prefix="threads-"))
        self.lab = Lab(self.folder)
        # Each conversation: its name, and its turns as (id, text).
        self.threads: list[tuple[str, Talk]] = []
        self.born = 0
        self.refuses = False
        # Whether every row has succeeded, and nothing has changed since.
        self.settled = False

    def teardown(self) -> None:
        try:
            if self.threads:
                self.refuses = False
                self.go()
                maintenance.redo(self.lab.load(self.job), statuses=["failed"])
                self.settle()
                assert maintenance.verify(self.lab.load(self.job)) == []
        finally:
            self.server.close()
            shutil.rmtree(self.folder)

    # -- the server and the job ---

    def answer(self, number: int) -> Behaviour:
        body = json.loads(self.hostile.requests[number - 1].partition(b"\r\n\r\n")[2])
        messages = [(each["role"], each["content"]) for each in body["messages"]]
        if self.refuses and messages[-1][1] == REFUSED:
            return http(400, error(kind=INVALID, code="content_policy_violation"))
        return ok(f"{number} {digest_of(messages)}")

    def fresh(self) -> str:
        self.born += 1
        return f"n{self.born}"

    def write(self) -> None:
        text = "{{ turn }}" if self.listed else "{{ text }}"
        if self.listed:
            lines = [
                json.dumps({"id": name, "turns": [word for _, word in turns]})
                for name, turns in self.threads
            ]
        else:
            longest = max(len(turns) for _, turns in self.threads)
            rows = [
                (turns[n], name)
                for n in range(longest)
                for name, turns in self.threads
                if n < len(turns)
            ]
            lines = [
                json.dumps({"id": row, "thread": name, "text": word}) for (row, word), name in rows
            ]
        (self.folder / "talks.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.job = self.lab.job(
            self.hostile.url,
            prompts={"path": "talks.jsonl", **({"id": "id"} if self.ids else {})},
            conversation={"turns": "turns"} if self.listed else {"id": "thread"},
            request={"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": text}]},
            matrix={"tone": list(self.matrix)},
            output={"tables": ["jsonl"]},
            retry={"attempts": 1},
        )

    def go(self) -> int:
        """Run the job and check its tables; returns how many calls it took."""
        self.write()
        planned = batchgen.plan(self.lab.load(self.job)).calls
        report = self.lab.go(self.job)
        if not self.refuses:
            assert planned == report.run.calls
        self.settled = report.rows == {"succeeded": report.total}
        assert self.settled or self.refuses or "failed" in report.rows
        path = self.lab.output() / "results.jsonl"
        table = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        outputs = [row["output"] for row in table if row["output"]]
        assert len(set(outputs)) == len(outputs), "an answer stands in two rows"
        if self.listed:
            self.check_lines(table)
        else:
            self.check_rows(table)
        return report.run.calls

    def settle(self) -> None:
        """Without refusals everything succeeds, and the same command again calls nothing."""
        self.refuses = False
        self.go()
        assert self.settled
        assert self.go() == 0

    # -- what always holds ---

    def check_rows(self, table: list[dict[str, Any]]) -> None:
        """A row that succeeded shows the answer to the conversation as the table has it."""
        for name, turns in self.threads:
            for tone in self.matrix:
                rows = [row for row in table if (row["thread"], row["tone"]) == (name, tone)]
                assert [row["text"] for row in rows] == [word for _, word in turns]
                past: Talk = []
                for row in rows:
                    if row["status"] != "succeeded":
                        break
                    past.append(("user", row["text"]))
                    assert row["output"].split()[1] == digest_of(past), row
                    past.append(("assistant", row["output"]))
                assert all(row["status"] != "succeeded" for row in rows[len(past) // 2 :])

    def check_lines(self, table: list[dict[str, Any]]) -> None:
        """`messages` are turns of the line's own with the answers that followed each other."""
        lines = [(turns, tone) for _, turns in self.threads for tone in self.matrix]
        replies: list[str] = []
        for row, (turns, tone) in zip(table, lines, strict=True):
            assert row["tone"] == tone
            messages = row["messages"] or []
            messages = json.loads(messages) if isinstance(messages, str) else messages
            talk = [(each["role"], each["content"]) for each in messages]
            for n in range(0, len(talk), 2):
                assert talk[n] == ("user", turns[n // 2][1])
                assert talk[n + 1][1].split()[1] == digest_of(talk[: n + 1]), row
                replies.append(talk[n + 1][1])
            if row["status"] == "succeeded":
                assert len(talk) == 2 * len(turns)
                assert row["output"] == talk[-1][1]
        assert len(set(replies)) == len(replies), "an answer stands in two conversations"

    # -- what people do ---

    @initialize(
        talks=st.lists(
            st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=2, max_size=4
        )
    )
    def begin(self, talks: list[list[str]]) -> None:
        for words in talks:
            self.threads.append((self.fresh(), [(self.fresh(), word) for word in words]))
        self.settle()

    @rule(refuses=st.booleans())
    def run(self, refuses: bool) -> None:
        self.refuses = refuses
        self.go()

    @rule()
    def run_to_the_end(self) -> None:
        self.refuses = False
        self.go()
        maintenance.redo(self.lab.load(self.job), statuses=["failed"])
        self.settle()

    @rule(data=st.data())
    def sort(self, data: st.DataObject) -> None:
        self.threads = data.draw(st.permutations(self.threads))
        self.check_free()

    @precondition(lambda self: len(self.threads) > 1)
    @rule(pick=st.integers(0, 9))
    def remove(self, pick: int) -> None:
        del self.threads[pick % len(self.threads)]
        self.check_free()

    @rule(pick=st.integers(0, 9))
    def rename(self, pick: int) -> None:
        """The rows, and their conversation, get other names."""
        n = pick % len(self.threads)
        turns = [(self.fresh(), word) for _, word in self.threads[n][1]]
        self.threads[n] = (self.fresh(), turns)
        self.check_free()

    def check_free(self) -> None:
        """What was settled is not asked again."""
        if self.settled:
            assert self.go() == 0
            assert self.settled

    @precondition(lambda self: len(self.threads) > 1)
    @rule(one=st.integers(0, 9), other=st.integers(0, 9))
    def swap_names(self, one: int, other: int) -> None:
        n, m = one % len(self.threads), other % len(self.threads)
        (a, one_turns), (b, other_turns) = self.threads[n], self.threads[m]
        self.threads[n], self.threads[m] = (b, one_turns), (a, other_turns)
        self.settled = False

    @precondition(lambda self: len(self.threads) < 6)
    @rule(pick=st.integers(0, 9), at=st.integers(0, 9))
    def copy(self, pick: int, at: int) -> None:
        turns = [(self.fresh(), word) for _, word in self.threads[pick % len(self.threads)][1]]
        self.threads.insert(at % (len(self.threads) + 1), (self.fresh(), turns))
        self.check_at_most(len(turns))

    @rule(pick=st.integers(0, 9), at=st.integers(0, 9), word=st.sampled_from((*WORDS, REFUSED)))
    def edit(self, pick: int, at: int, word: str) -> None:
        """The turns before the edited one are not asked again."""
        turns = self.threads[pick % len(self.threads)][1]
        n = at % len(turns)
        turns[n] = (turns[n][0], word)
        self.check_at_most(len(turns) - n)

    @rule(pick=st.integers(0, 9), word=st.sampled_from((*WORDS, REFUSED)))
    def append(self, pick: int, word: str) -> None:
        turns = self.threads[pick % len(self.threads)][1]
        turns.append((self.fresh(), word))
        self.check_at_most(1)

    @rule(pick=st.integers(0, 9), at=st.integers(0, 9), word=st.sampled_from(WORDS))
    def insert(self, pick: int, at: int, word: str) -> None:
        turns = self.threads[pick % len(self.threads)][1]
        n = at % (len(turns) + 1)
        turns.insert(n, (self.fresh(), word))
        self.check_at_most(len(turns) - n)

    @rule(pick=st.integers(0, 9))
    def cut(self, pick: int) -> None:
        """A conversation without its last turn is answered already."""
        turns = self.threads[pick % len(self.threads)][1]
        if len(turns) > 1:
            turns.pop()
            self.check_at_most(0)

    def check_at_most(self, calls: int) -> None:
        if self.settled:
            assert self.go() <= calls * len(self.matrix)

    @rule(pick=st.integers(0, 9), at=st.integers(0, 9), word=st.sampled_from(WORDS))
    def edit_and_undo(self, pick: int, at: int, word: str) -> None:
        """An edit that is undone brings back what was answered."""
        if not self.settled:
            return
        turns = self.threads[pick % len(self.threads)][1]
        n = at % len(turns)
        before = turns[n]
        turns[n] = (before[0], word)
        self.go()
        turns[n] = before
        assert self.go() == 0

    @rule(pick=st.integers(0, 9), also_runs=st.booleans())
    def redo(self, pick: int, also_runs: bool) -> None:
        """Rows that the last run staged are marked; it may be that the job is edited before it
        runs."""
        shown = list(self.shown_ids())
        maintenance.redo(self.lab.load(self.job), [shown[pick % len(shown)]])
        self.settled = False
        if also_runs:
            self.go()

    def shown_ids(self) -> Iterator[str]:
        """The ids of the rows that are staged."""
        with Journal.peek(self.lab.output()) as journal:
            for (row_id,) in journal.query("SELECT DISTINCT id FROM rows ORDER BY seq"):
                yield row_id
