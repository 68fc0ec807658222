"""The sections `prompts` and `conversation`: the rows, and which of them belong together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from batchgen.job.sections.section import Section
from batchgen.job.values import Delimiter, Encoding, Header, PathText, Text

# The format whose rows are themselves requests, and the keys that such rows set instead of the job.
OPENAI_BATCH = "openai-batch"
PromptsFormat = Literal[
    "csv", "tsv", "jsonl", "txt", "json", "parquet", "xlsx", "ods", "openai-batch"
]
SET_BY_ROWS = ("kind", "request", "matrix", "conversation")
CUSTOM_ID = "custom_id"


class Prompts(Section):
    """The file whose rows become requests."""

    path: PathText | None = Field(
        default=None,
        description="The prompts file, relative to the job file: .csv .tsv .txt .jsonl .json, each "
        "also .gz .bz2 .xz .zst .zip; .parquet .xlsx .ods; - is stdin",
    )
    job: PathText | None = Field(
        default=None,
        description="In place of path: another job file, relative to this one, whose answers are "
        "the prompts",
    )
    id: Text | None = Field(
        default=None, description="The column that names a row; its values must be unique"
    )
    format: PromptsFormat | None = Field(
        default=None,
        description="The file's format; by default taken from its name. openai-batch: each row "
        "is a request, as a line of "
        "the Batch API's files, and replaces the job's kind and request",
    )
    delimiter: Delimiter | None = Field(
        default=None,
        description="The character between the cells of a CSV; by default the one of , ; TAB "
        "that splits the header most",
    )
    encoding: Encoding | None = Field(
        default=None,
        description="The file's encoding; by default that of its byte order mark, else UTF-8",
    )
    sheet: Text | None = Field(
        default=None, description="The sheet of a spreadsheet; by default the first"
    )
    skip_lines: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many lines before the header are left out, such as a title; of a "
        "sheet, its rows",
    )
    header: Header | None = Field(
        default=None,
        description="For a file without a header: the names of its columns, or false for "
        "column_1, column_2 and so on. By default the first line is the header",
    )
    skip_rows: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many rows after the header are left out, such as further headers",
    )
    duplicate_headers: Literal["refuse", "number"] = Field(
        default="refuse",
        description="refuse: a header that names two columns alike stops the job; number: the "
        "second is called name_2",
    )
    bad_rows: Literal["refuse", "fail"] = Field(
        default="refuse",
        description="refuse: a broken row stops the job before anything is sent; fail: that "
        "row fails and the others run",
    )
    empty: Literal["refuse", "skip", "send"] = Field(
        default="refuse",
        description="Rows with nothing in any column that the prompt uses. refuse: they stop the "
        "job before anything is sent; skip: they are left out, of the tables too; send: they are "
        "sent",
    )
    where: Text | None = Field(
        default=None,
        description="An expression over the columns of a row, as in a template but without "
        "braces; rows for which it does not hold are left out and counted",
    )
    files: PathText | None = Field(
        default=None,
        description="The folder below which rows may name files; by default the folder of the "
        "prompts file",
    )

    @property
    def source(self) -> str:
        """The prompts file, or the job whose answers are the prompts, as messages name it.

        "prompts", the parameter's name, for rows that a caller in Python gives.
        """
        return self.path or self.job or "prompts"

    @model_validator(mode="after")
    def _one_source(self) -> Prompts:
        if (self.path is None) == (self.job is None):
            raise ValueError(
                "needs either path (a prompts file, or - for rows that a pipe or Python gives) or "
                "job (another job's file)"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        # A request is named by its custom_id.
        if isinstance(data, dict) and data.get("format") == OPENAI_BATCH and data.get("id") is None:
            return {**data, "id": CUSTOM_ID}
        return data


class Conversation(Section):
    """Which rows or turns form one conversation: set exactly one of the two."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    id: Text | None = Field(
        default=None,
        description="Rows with equal values in this column form one conversation, in the "
        "file's order",
    )
    turns: Text | None = Field(
        default=None,
        description="The JSONL column that lists a row's user turns, each as {{ turn }}",
    )

    @model_validator(mode="after")
    def _one(self) -> Conversation:
        if (self.id is None) == (self.turns is None):
            raise ValueError("needs either id or turns, and not both")
        return self
