"""What the result files of an ended batch answer, compared with what the server counts.

An answer that the server counts and the files lack is paid for, and may still come. So successes
are compared with `completed` and failures with `failed`: a sum would let an error stand for a lost
answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from batchgen.dispatch.batches.records import Batch
from batchgen.dispatch.batches.result_file import Results


@dataclass(slots=True, kw_only=True)
class FileCounts:
    """The requests that the result files name, by line of the input file.

    succeeded, failed: have a reply
    unexecuted: the server says that it did not execute them
    unanswered: have a line without a reply, such as one of status 0
    torn: how many lines are not JSON; each belonged to a request, which is unknown
    """

    succeeded: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    unexecuted: set[int] = field(default_factory=set)
    unanswered: set[int] = field(default_factory=set)
    torn: int = 0

    def add(self, results: Results) -> None:
        """Count some lines of a result file."""
        self.torn += results.torn
        for line, result in results.by_line.items():
            if result.reply is None:
                (self.unanswered if result.executed else self.unexecuted).add(line)
            elif result.is_success:
                self.succeeded.add(line)
            else:
                self.failed.add(line)

    @property
    def answered(self) -> set[int]:
        """The requests that have a reply."""
        return self.succeeded | self.failed

    @property
    def named(self) -> set[int]:
        """The requests that have a line."""
        return self.answered | self.unexecuted | self.unanswered

    def lacking(self, batch: Batch) -> int:
        """How many requests lack the line in the files that they should have, even a torn one."""
        return max(0, self._absent(batch) - self.torn)

    def has_nothing(self, batch: Batch) -> bool:
        """Whether the files have no line of a batch of which the server counts answers.

        So they are most likely not its files.
        """
        return not self.named and not self.torn and expected_answers(batch) > 0

    def without_answer(self, batch: Batch) -> list[int]:
        """The requests that may have been executed and have no answer, when no more comes."""
        every = set(range(1, batch.requests + 1))
        if batch.status == "completed":
            return sorted(every - self.answered)
        # For a batch that ended early, it is unknown to which requests the lost lines belonged.
        lost = every - self.named if self._absent(batch) else set()
        return sorted((lost | self.unanswered) - self.answered)

    def _absent(self, batch: Batch) -> int:
        """How many requests lack a whole line in the files that they should have."""
        named, requests = len(self.named), batch.requests
        if named == requests:
            return 0
        completed = expected_answers(batch)
        absent = max(0, completed - len(self.succeeded))
        if batch.status == "completed" or "error_file_id" in batch.seen:
            counted: int = batch.seen.get("request_counts", {}).get("failed", 0)
            listed = len((self.failed | self.unexecuted) - self.succeeded)
            absent += max(0, min(counted, requests - completed) - listed)
        absent -= len(self.unanswered - self.answered)
        # A completed batch has a line for each request.
        return max(absent, requests - named if batch.status == "completed" else 0)


def expected_answers(batch: Batch) -> int:
    """How many successes an ended batch must have; all, if a completed one has no count."""
    count: int | None = batch.seen.get("request_counts", {}).get("completed")
    if count is None:
        count = batch.requests if batch.status == "completed" else 0
    return min(count, batch.requests)
