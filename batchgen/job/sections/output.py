"""The section `output`: where the output goes, and what the tables contain."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from batchgen.job.sections.section import Section
from batchgen.job.values import Delimiter, FolderPath, Text, distinct, path_or_mapping

TableFormat = Literal["csv", "jsonl", "parquet", "xlsx", "openai-batch"]


def _csv_only() -> list[TableFormat]:
    return ["csv"]


class OutputCsv(Section):
    """How CSV tables are written."""

    safe: bool = Field(
        default=False,
        description="Put an apostrophe before cells written by the model that a spreadsheet "
        "would run as a formula",
    )
    delimiter: Delimiter | None = Field(
        default=None,
        description="The character between the cells; by default the one of the prompts file",
    )
    bom: bool | None = Field(
        default=None,
        description="Begin with a byte order mark, by which Excel knows UTF-8; by default unless "
        "the prompts file is UTF-8 without one",
    )


class Output(Section):
    """Where the output goes, and what the tables contain."""

    dir: FolderPath | None = Field(
        default=None,
        description="The output folder, relative to the job file; by default outputs/<name> "
        "beside the jobs folder",
    )
    tables: Annotated[
        list[TableFormat],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(distinct),
    ] = Field(default_factory=_csv_only, description="The formats of the tables")
    columns: dict[Text, str] = Field(
        default_factory=dict,
        description="More columns, each a template that may use row, request, response, output "
        "and json",
    )
    columns_of_own: Annotated[list[Text], AfterValidator(distinct)] | None = Field(
        default=None,
        description="Which of batchgen's own columns and of output.columns the results tables "
        "have, in this order; by default all",
        json_schema_extra={"uniqueItems": True},
    )
    wide: Text | None = Field(
        default=None,
        description="An axis of the matrix whose values stand side by side: one line for all of "
        "them, each with columns of its own, such as output_German",
    )
    prefix: str = Field(
        default="",
        description="Put before the names of batchgen's own columns; needed when an input "
        "column has one of these names",
    )
    json_: bool = Field(
        default=False,
        alias="json",
        description="Every answer must be JSON; one that is not leaves its row incomplete",
    )
    schema_: Annotated[
        Any,
        AfterValidator(path_or_mapping),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]}),
    ] = Field(
        default=None,
        alias="schema",
        description="The JSON Schema that every answer must fit: a file relative to the job "
        "file, or the schema itself",
    )
    accept: list[Text] = Field(
        default_factory=list, description="Finish reasons that count as success, such as length"
    )
    csv: OutputCsv = Field(default_factory=OutputCsv, description="How CSV tables are written")

    @property
    def expects_json(self) -> bool:
        """Whether every answer must be JSON, whatever its request says."""
        return self.json_ or self.schema_ is not None
