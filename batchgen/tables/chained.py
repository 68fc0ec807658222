"""The answers of a job -> rows for another job, whose prompts they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from batchgen.job import Job
from batchgen.journal import Journal
from batchgen.requests import Renderer, canonical
from batchgen.tables.batchfiles import custom_id
from batchgen.tables.build import Records
from batchgen.tables.layout import layout_of

# The statuses of rows whose answers another run of the job would not bring.
_SETTLED = ("succeeded", "incomplete", "failed")


class ChainedRow(NamedTuple):
    """A line of a job's results table, as a row for another job.

    Attributes:
        id: a name that no other line has, and that a line keeps.
        settled: whether a run of the job has ended it; if not, its answer is still to come.
        columns: its cells by column, with their types.
    """

    id: str
    settled: bool
    columns: dict[str, Any]


class ChainedRows:
    """The rows, in the order of the job's results table.

    Attributes:
        header: their columns: those of the prompts, the axes, and all that batchgen adds.
    """

    def __init__(
        self, job: Job, journal: Journal, renderer: Renderer, header: Sequence[str]
    ) -> None:
        """`header` are the columns of the job's prompts."""
        # However the job's own table is laid out, a row is one answer with all that is known of it.
        output = job.output.model_copy(update={"wide": None, "columns_of_own": None})
        layout = layout_of(job.model_copy(update={"output": output}), header)
        self.header = tuple(dict.fromkeys((*layout.inputs, *layout.own)))
        self._job, self._status = job, f"{layout.prefix}status"
        self._records = Records(job, journal, renderer, layout)

    def __iter__(self) -> Iterator[ChainedRow]:
        """The rows, read as they are asked for. Raises DamagedError."""
        for prompt in self._records.prompts():
            for turns in prompt:
                name = custom_id(self._job, turns[-1][0])
                for number, record in enumerate(self._records.result(turns), start=1):
                    yield ChainedRow(
                        id=name if number == 1 else canonical([name, number]),
                        settled=record[self._status] in _SETTLED,
                        columns={each: record.get(each) for each in self.header},
                    )
