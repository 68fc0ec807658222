"""What the user says that the prompts file cannot show."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchgen.prompts import TableOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """What the user says about the prompts; None and empty: `init` finds out.

    kind: the kind of the requests.
    id: the column that names a row.
    prompt: the columns that the prompt is made of.
    format, encoding: as in the section `prompts` of a job.
    table: how the table in the file is written.
    """

    kind: str | None = None
    id: str | None = None
    prompt: tuple[str, ...] = ()
    format: str | None = None
    encoding: str | None = None
    table: TableOptions = field(default_factory=TableOptions)
