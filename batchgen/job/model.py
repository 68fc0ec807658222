"""The whole job as data: `Job`, with its sections and where it came from; and its JSON Schema."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
)

from batchgen.errors import Problem
from batchgen.job.env_file import Environment
from batchgen.job.positions import Document, KeyPath, Position
from batchgen.job.sections import (
    OPENAI_BATCH,
    SET_BY_ROWS,
    Batches,
    Conversation,
    Limits,
    Notify,
    Output,
    OutputCsv,
    Price,
    Prompts,
    Provider,
    Retry,
    Section,
)
from batchgen.job.values import SIMULATED, Axis, AxisName, Name, RequestKey, Text, few_combinations

# The kinds of requests; `batchgen.kinds` says what each is.
KindName = Literal["text", "completion", "chat", "image", "image_edit", "embedding", "moderation"]
Mode = Literal["online", "batch"]
# The kinds whose answers are texts, and those of them whose requests are made of turns.
TEXT_KINDS = ("text", "completion", "chat")
TURN_KINDS = ("text", "chat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a job came from.

    path: the job file, absolute.
    display_name: the job file's name in messages: the path as the user typed it.
    text: the job file's text.
    document: the job file's data, and the positions in it.
    prompts_folder: the folder that the prompts' path is relative to.
    environment: the job's variables; they hold secrets.
    output_file: the one file for all results, instead of tables, of a job without a job file.
    """

    path: Path
    display_name: str
    text: str
    document: Document
    prompts_folder: Path
    environment: Environment
    output_file: Path | None = None


# Why a conversation cannot be sent in a batch.
NO_CONVERSATION_IN_BATCH = (
    "a batch cannot hold a conversation: each turn needs the reply to the one before it, and the "
    "requests of a batch are answered in any order; use mode: online"
)


class Job(Section):
    """A batchgen job: each row of a file is sent as one request, and the answers become a table."""

    model_config = ConfigDict(title="batchgen job")

    name: Name = Field(
        description="The name of the job and of its output folder; by default the job file's "
        "name without .yaml"
    )
    kind: KindName | None = Field(
        default=None,
        description="The kind of all requests; required, except for openai-batch, whose rows "
        "set it themselves",
    )
    mode: Mode = Field(
        default="online",
        description="How requests are sent. online: one by one; batch: by the Batch API, at "
        "half the price, within 24 hours",
    )
    prompts: Prompts = Field(description="The file whose rows become requests")
    matrix: Annotated[dict[AxisName, Axis], AfterValidator(few_combinations)] = Field(
        default_factory=dict,
        description="Every row runs once per combination of these values; templates use the "
        "axes as columns",
    )
    request: Annotated[dict[RequestKey, Any], Field(min_length=1)] = Field(
        default_factory=dict,
        description="The API's own request body; every string in it is a Jinja2 template over "
        "the row's columns. "
        "Required, except for openai-batch, whose rows set it themselves",
    )
    conversation: Conversation | None = Field(
        default=None, description="For kind chat: which rows or turns form one conversation"
    )
    limits: Limits = Field(default_factory=Limits, description="Upper limits, all optional")
    retry: Retry = Field(
        default_factory=Retry,
        description="When a request is retried, and for how long; times in seconds",
    )
    batch: Batches = Field(
        default_factory=Batches, description="For mode batch: what happens with its files"
    )
    pricing: dict[Text, Price] = Field(
        default_factory=dict,
        description="Prices by model, for models that genai-prices does not know",
    )
    provider: Provider = Field(
        default_factory=Provider,
        description="Where requests go; by default taken from the OPENAI_* environment variables",
    )
    output: Output = Field(
        default_factory=Output, description="Where the output goes, and what the tables contain"
    )

    notify: Notify | None = Field(
        default=None, description="Who hears how a run ended: a command, an address, or both"
    )

    _origin: Origin = PrivateAttr()

    @field_validator("conversation")
    @classmethod
    def _only_chat(cls, value: Conversation | None, info: ValidationInfo) -> Conversation | None:
        if value is not None and info.data.get("kind", "chat") != "chat":
            raise ValueError("conversations need kind: chat")
        if value is not None and info.data.get("mode") == "batch":
            raise ValueError(NO_CONVERSATION_IN_BATCH)
        return value

    @field_validator("output")
    @classmethod
    def _fits(cls, value: Output, info: ValidationInfo) -> Output:
        if value.wide is not None and value.wide not in info.data.get("matrix", {value.wide: ()}):
            raise ValueError(f"wide: {value.wide!r} is not an axis of the matrix")
        if value.expects_json and info.data.get("kind") not in (None, *TEXT_KINDS):
            raise ValueError(f"json and schema need one of the kinds {', '.join(TEXT_KINDS)}")
        return value

    @field_validator("retry")
    @classmethod
    def _corrections_of_turns(cls, value: Retry, info: ValidationInfo) -> Retry:
        if value.validation and info.data.get("kind") not in (None, *TURN_KINDS):
            raise ValueError(f"validation needs one of the kinds {', '.join(TURN_KINDS)}")
        return value

    @property
    def path(self) -> Path:
        """The job file, absolute."""
        return self._origin.path

    @property
    def display_name(self) -> str:
        """The job file's name in messages: the path as the user typed it."""
        return self._origin.display_name

    @property
    def text(self) -> str:
        """The job file's text."""
        return self._origin.text

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment over the job's `.env`. Holds secrets: never log it."""
        return self._origin.environment.values

    @property
    def env_note(self) -> str:
        """Why files `.env` were not read; empty if there were none."""
        return "; ".join(self._origin.environment.notes)

    @property
    def server_from(self) -> Path | None:
        """The `.env` that names the server; None when the job or the environment does."""
        return None if self.provider.base_url else self._origin.environment.server_from

    @property
    def folder(self) -> Path:
        """The job file's folder, absolute: what paths in the job are relative to."""
        return self.path.parent

    @property
    def prompts_path(self) -> Path | None:
        """The prompts file, absolute; None for stdin, and for the answers of another job."""
        path = self.prompts.path or "-"
        return None if path == "-" else Path(os.path.abspath(self._origin.prompts_folder / path))

    @property
    def upstream_path(self) -> Path | None:
        """The job file whose answers are the prompts, absolute; None where a file has them."""
        return Path(os.path.abspath(self.folder / self.prompts.job)) if self.prompts.job else None

    @property
    def output_file(self) -> Path | None:
        """The one file for all results, absolute, instead of tables; None for a job that has a job
        file.
        """
        return self._origin.output_file

    def rows_choose(self, field: str) -> bool:
        """Whether a field of the request may differ from row to row: by a template, or because rows
        are requests.
        """
        return self.kind is None or "{" in str(self.request.get(field, ""))

    @property
    def timeout(self) -> float:
        """The time-out of one attempt, in seconds of wall clock."""
        if self.retry.timeout is not None:
            return self.retry.timeout
        if self.request.get("service_tier") == "flex":
            return 900
        return 60 if self.kind in ("embedding", "moderation") else 600

    def output_dir(self, root: Path | None, simulate: bool) -> Path:
        """The output folder, absolute. `root`, of --output, replaces its parent folder."""
        if root is not None:
            path = root / self.name
        elif self.output.dir is not None:
            path = self.folder / self.output.dir
        else:
            home = self.folder.parent if self.folder.name == "jobs" else self.folder
            path = home / "outputs" / self.name
        absolute = Path(os.path.abspath(path))
        return absolute.with_name(absolute.name + SIMULATED) if simulate else absolute

    def position(self, *key_path: str | int) -> Position:
        """The position of the deepest value on a key path, such as "request", "messages", 0."""
        return self._origin.document.position(key_path)

    def problem(self, key_path: KeyPath, message: str) -> Problem:
        """A problem with the value at a key path."""
        line, column = self.position(*key_path)
        return Problem(path=self.display_name, message=message, line=line, column=column)


_SECTIONS: dict[KeyPath, type[BaseModel]] = {
    (): Job,
    ("prompts",): Prompts,
    ("conversation",): Conversation,
    ("limits",): Limits,
    ("retry",): Retry,
    ("batch",): Batches,
    ("provider",): Provider,
    ("output",): Output,
    ("output", "csv"): OutputCsv,
    ("notify",): Notify,
}


def known_keys(section: KeyPath) -> list[str]:
    """The keys that the section at a key path may have."""
    model = Price if section[:1] == ("pricing",) else _SECTIONS[section]
    return [field.alias or name for name, field in model.model_fields.items()]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a job file, for editors.

    `load_job` refuses everything that it refuses.
    """
    schema = Job.model_json_schema()
    schema["required"].remove("name")  # by default the file's own name
    requests = {"properties": {"format": {"const": OPENAI_BATCH}}, "required": ["format"]}
    set_by_rows = {
        "if": {"properties": {"prompts": requests}, "required": ["prompts"]},
        "then": {"properties": dict.fromkeys(SET_BY_ROWS, False)},
        "else": {"required": ["kind", "request"]},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, **set_by_rows}
