"""A job's life in batches as a state machine: no request is answered twice unless a user asked for
it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx2
from children import killed_at
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from job_life import Life
from lab import KEY

import batchgen
from batchgen import Job, load_job, maintenance, runner
from batchgen.dispatch.batches import client, collect, input_file
from batchgen.job import with_mode
from batchgen.journal import Journal
from batchgen.journal.batches import open_batches
from batchgen.simulator import BatchInfo, Fate, RequestInfo, Settings, Simulator

MOST_REQUESTS = 2
MANY = 10_000

# The fates of batches; the last but one never ends by itself.
FATES = [
    Fate(),
    Fate(ends="expired", answers=0.5),
    Fate(ends="failed", code="token_limit_exceeded"),
    Fate(ends="failed"),
    Fate(shows=("validating", "in_progress", "scheduling")),
    Fate(ends="in_progress", answers=0.5),
]
# What may happen to the calls of the Batch API, and to the lines of a batch.
CALL_FAULTS = ["500", "reset", "reset_body", "truncated", "html", "429"]
LINE_FAULTS = ["500", "reset", "400_policy"]
LINES = "/v1/chat/completions"


class BatchLife(Life):
    """One job in batches. `answered` counts the answers to each request, `redone` how often all
    were redone."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.tags: list[str] = []
        self.redone = 0
        self.fates: list[Fate] = []
        self.call_faults: list[str] = []
        self.line_faults: list[str] = []
        # Creates whose reply is lost.
        self.losing = False
        self._kept = input_file.MOST_REQUESTS, client.BETWEEN_SEARCHES, collect.BETWEEN_FETCHES
        input_file.MOST_REQUESTS, client.BETWEEN_SEARCHES, collect.BETWEEN_FETCHES = (
            MOST_REQUESTS,
            0.0,
            0.0,
        )
        super().__init__()

    def simulator(self) -> Simulator:
        return Simulator(Settings(key=KEY, batch_speed=0), script=self.script, fate=self.fate)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            input_file.MOST_REQUESTS, client.BETWEEN_SEARCHES, collect.BETWEEN_FETCHES = self._kept

    def fate(self, batch: BatchInfo) -> Fate:
        self.tags.append(batch.metadata["batchgen"])
        return self.fates.pop() if self.fates else Fate()

    def script(self, request: RequestInfo) -> str | None:
        if self.losing and request.path == "/v1/batches":
            return "reset_body" if request.method == "POST" else "500"
        faults = self.line_faults if request.path == LINES else self.call_faults
        fault = faults.pop() if faults else None
        if request.path == LINES and fault is None:
            self.answered[str(request.body["messages"])] += 1
        return fault

    def write(self, **parts: Any) -> None:
        super().write(mode="batch", **parts)

    @property
    def loaded(self) -> Job:
        return load_job(self.job, environ={"OPENAI_API_KEY": KEY})

    def calm(self) -> None:
        """Stop all faults."""
        self.fates, self.call_faults, self.line_faults = [], [], []

    def live_on(self) -> None:
        """Without faults everything is answered, and then nothing is sent any more."""
        self.calm()
        self.write()
        self.finish()
        runner.cancel(self.loaded)
        maintenance.redo(self.loaded, statuses={"failed"})
        self.redone += 1
        assert self.finish() == 0
        asked = self.api.requests.received
        assert batchgen.run(self.loaded).exit_code == 0
        assert self.api.requests.received == asked
        assert [(row["id"], row["text"], row["output"]) for row in self.lab.table()] == [
            (name, text, text.removeprefix("ECHO:")) for name, text in self.rows.items()
        ]
        assert maintenance.verify(self.loaded) == []
        with Journal.peek(self.lab.output()) as journal:
            assert not open_batches(journal)
            assert not journal.records("members", "1 = 1")
        # The simulator works when it is asked: a batch that nobody knows of would be paid for all
        # the same.
        httpx2.get(
            f"{self.api.url}/batches?limit=100", headers={"Authorization": f"Bearer {KEY}"}
        ).raise_for_status()
        self.check()

    def finish(self) -> int:
        """Run until the exit code is not 6, nor 4 because of an old batch; returns the last one."""
        for _ in range(12):
            code = batchgen.run(self.loaded).exit_code
            if code not in (4, 6):
                break
        return code

    def check(self) -> None:
        """No request was answered more often than it was sent on purpose, and no batch was created
        twice."""
        again = [text for text, count in self.answered.items() if count > 1 + self.redone]
        assert not again, again
        assert len(set(self.tags)) == len(self.tags)

    # -- what happens to runs --------------------------------------------------------------------

    @rule(
        fates=st.lists(st.sampled_from(FATES), max_size=3),
        calls=st.lists(st.sampled_from(CALL_FAULTS), max_size=4),
        lines=st.lists(st.sampled_from(LINE_FAULTS), max_size=2),
    )
    def run_with_faults(self, fates: list[Fate], calls: list[str], lines: list[str]) -> None:
        self.add(1)
        self.write()
        self.fates, self.call_faults, self.line_faults = fates, calls, lines
        report = batchgen.run(self.loaded)
        self.tabled = True
        assert report.exit_code in (0, 3, 4, 5, 6), report.stopped
        assert report.total == sum(report.rows.values()) == len(self.rows)
        self.check()

    @rule(
        step=st.integers(1, 60),
        command=st.sampled_from(["run", "run", "run", "cancel"]),
        fates=st.lists(st.sampled_from(FATES), max_size=2),
        calls=st.lists(st.sampled_from(CALL_FAULTS), max_size=1),
    )
    def crash(self, step: int, command: str, fates: list[Fate], calls: list[str]) -> None:
        self.add(1)
        self.write()
        self.fates, self.call_faults, self.line_faults = fates, calls, []
        code = killed_at(step, self.job, key=KEY, command=command, most_requests=MOST_REQUESTS)
        assert code in (-9, 0, 2, 3, 4, 5, 6)
        self.check()

    @rule(fates=st.lists(st.sampled_from(FATES), max_size=2))
    def lose_a_batch(self, fates: list[Fate]) -> None:
        """Lose the reply to a create, and leave the batch out of the list."""
        self.add(1)
        self.write()
        self.calm()
        self.fates, self.losing = fates, True
        self.tabled = True
        assert batchgen.run(self.loaded).exit_code in (0, 3, 4, 5, 6)
        self.losing = False
        self.check()

    @precondition(lambda self: self.tabled)
    @rule()
    def cancel(self) -> None:
        self.calm()
        self.write()
        assert runner.cancel(self.loaded).exit_code in (0, 6)
        self.check()

    @rule()
    def go_online(self) -> None:
        """Run once in the other mode: it sends only what is in no batch."""
        self.calm()
        self.write()
        self.tabled = True
        assert batchgen.run(with_mode(self.loaded, "online")).exit_code in (0, 3, 4, 6)
        self.check()

    @rule(room=st.integers(20_000, 200_000))
    def fill_the_disk(self, room: int) -> None:
        self.calm()
        self.write()
        code = killed_at(MANY, self.job, key=KEY, most_requests=MOST_REQUESTS, room=room)
        assert code in (0, 3, 4, 6, 74)
        self.check()

    @precondition(lambda self: self.tabled)
    @rule(status=st.sampled_from(["succeeded", "failed"]))
    def redo(self, status: str) -> None:
        maintenance.redo(self.loaded, statuses={status})
        self.redone += 1


BatchLife.TestCase.settings = settings(
    max_examples=8,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class TestBatchLife(BatchLife.TestCase):  # type: ignore[misc, valid-type]
    """P01 P03 P07 P08 P10 P12 P45 Whatever happens to a job in batches, the promises of RELIABILITY
    hold."""
