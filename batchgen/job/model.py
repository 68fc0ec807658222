"""The job as data: what a job file may say, section by section, and what it means.

Sections are pydantic models: frozen, unknown keys forbidden, no conversion of types (`"64"` is no number). Descriptions
end up in the JSON Schema, where editors show them. What a section's validators raise is a sentence for the reader.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
    model_validator,
)

from batchgen.errors import InputError, Problem
from batchgen.job.provider import normal_url
from batchgen.job.values import (
    SIMULATED,
    Axis,
    AxisName,
    Delimiter,
    Duration,
    Encoding,
    Failures,
    FolderPath,
    HeaderName,
    HeaderValue,
    HeaderWord,
    Name,
    PathText,
    Positive,
    ProviderName,
    Rate,
    RequestKey,
    Text,
    Usd,
    Variable,
    distinct,
    few_combinations,
)
from batchgen.job.yaml_nodes import Document, KeyPath, Position

KindName = Literal["text", "completion", "chat", "image", "image_edit", "embedding", "moderation"]
Mode = Literal["online", "batch"]
TableFormat = Literal["csv", "jsonl", "parquet", "openai-batch"]

# The format whose rows are requests as the Batch API takes them, and what the job then leaves to them.
OPENAI_BATCH = "openai-batch"
SET_BY_ROWS = ("kind", "request", "matrix", "conversation")
CUSTOM_ID = "custom_id"


def _csv_only() -> list[TableFormat]:
    return ["csv"]


class Section(BaseModel):
    """What all sections have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Prompts(Section):
    """The file whose rows become requests."""

    path: PathText = Field(
        description="The prompts file, relative to the job file: .csv .tsv .txt .jsonl, each also .gz; - is stdin"
    )
    id: Text | None = Field(
        default=None, description="The column that names a row; its values must be unique"
    )
    format: Literal["csv", "tsv", "jsonl", "txt", "openai-batch"] | None = Field(
        default=None,
        description="The file's format; by default its name says it. openai-batch: each row is a request, as a line of the "
        "Batch API's files, and says itself what the job's kind and request say otherwise",
    )
    delimiter: Delimiter | None = Field(
        default=None,
        description="The character between the cells of a CSV; by default whichever of , ; TAB splits the header most",
    )
    encoding: Encoding | None = Field(
        default=None,
        description="The file's encoding; by default UTF-8, or what its byte order mark says",
    )
    bad_rows: Literal["refuse", "fail"] = Field(
        default="refuse",
        description="refuse: a broken row stops the job before anything is sent; fail: it fails and the rest runs",
    )
    files: PathText | None = Field(
        default=None,
        description="The folder below which rows may name files; by default the prompts file's own",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """Requests name themselves."""
        if isinstance(data, dict) and data.get("format") == OPENAI_BATCH and data.get("id") is None:
            return {**data, "id": CUSTOM_ID}
        return data


class Conversation(Section):
    """Which rows or turns are one conversation: exactly one of the two."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    id: Text | None = Field(
        default=None,
        description="The column whose equal values make rows one conversation, in the file's order",
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


class Limits(Section):
    """Ceilings, all optional; batchgen learns what lies beneath them."""

    requests_per_minute: Positive | None = Field(
        default=None, description="Requests in any 60 seconds"
    )
    tokens_per_minute: Positive | None = Field(
        default=None, description="Tokens, in and out, in any 60 seconds"
    )
    images_per_minute: Positive | None = Field(default=None, description="Images in any 60 seconds")
    concurrency: int = Field(
        default=64, ge=1, le=10_000, description="Requests in flight at one time"
    )
    max_cost: Usd | None = Field(
        default=None, description="USD over all runs of this job; never passed"
    )
    max_time: Duration | None = Field(
        default=None,
        description='How long one run may take: "4h", "90m", "1h30m" or seconds; then it stops, resumable',
    )
    max_failures: Failures | None = Field(
        default=None,
        description='Failed and incomplete rows that are acceptable: "1%" or a count; beyond it the job stops',
    )


class Retry(Section):
    """How long a request is tried; times in seconds."""

    attempts: int = Field(
        default=6, ge=1, le=100, description="Attempts for one request, the first included"
    )
    max_wait: Positive = Field(
        default=60, description="The longest wait between two attempts, in seconds"
    )
    timeout: Positive | None = Field(
        default=None,
        description="Seconds for one attempt; default 600, service_tier flex 900, embedding and moderation 60",
    )
    give_up: Positive = Field(
        default=900, description="Seconds without any success after which the job stops"
    )


class Price(Section):
    """USD per million tokens of one model."""

    input: Rate | None = Field(
        default=None,
        description="USD per million input tokens; by default what genai-prices knows, as for output",
    )
    cached_input: Rate | None = Field(
        default=None, description="USD per million cached input tokens; by default as input"
    )
    output: Rate | None = Field(
        default=None,
        description="USD per million output tokens; without it only what answers in no tokens has a price",
    )
    image: Rate | None = Field(
        default=None,
        description="USD for one picture at the most; what max_cost reserves for image kinds",
    )


class Provider(Section):
    """Where requests go; by default the OPENAI_* environment says it."""

    allow_http: bool = Field(
        default=False, description="Allow plain http to a host that is not this machine"
    )
    base_url: str | None = Field(
        default=None,
        description="The API's address; by default OPENAI_BASE_URL, else https://api.openai.com/v1",
    )
    name: ProviderName | None = Field(
        default=None,
        description="Stands for the address in a request's key: the address may change, and nothing is paid again",
    )
    api_key_env: Variable | None = Field(
        default="OPENAI_API_KEY",
        description="The NAME of the environment variable with the key; null for a server without keys",
    )
    api_key_file: PathText | None = Field(
        default=None,
        description="A file that holds the key, relative to the job file; used before api_key_env",
    )
    organization: HeaderWord | None = Field(default=None, description="By default OPENAI_ORG_ID")
    project: HeaderWord | None = Field(default=None, description="By default OPENAI_PROJECT_ID")
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="HTTP headers of every request; never a secret"
    )

    @field_validator("base_url")
    @classmethod
    def _usable(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:  # where allow_http is itself wrong, that is the one error to show
            normal_url(value, allow_http=info.data.get("allow_http", True))
        return value


class OutputCsv(Section):
    """How CSV tables are written."""

    safe: bool = Field(
        default=False,
        description="Put an apostrophe before model-written cells that a spreadsheet would run",
    )


class Output(Section):
    """Where the output goes and what the tables hold."""

    dir: FolderPath | None = Field(
        default=None,
        description="The output folder, relative to the job file; by default outputs/<name> beside the jobs folder",
    )
    tables: Annotated[
        list[TableFormat],
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
        AfterValidator(distinct),
    ] = Field(default_factory=_csv_only, description="The formats of the tables")
    columns: dict[Text, str] = Field(
        default_factory=dict,
        description="Further columns, each a template over row, request, response, output and json",
    )
    prefix: str = Field(
        default="",
        description="Put before batchgen's own columns, where an input column has one of their names",
    )
    accept: list[Text] = Field(
        default_factory=list, description="Finish reasons that count as success, such as length"
    )
    csv: OutputCsv = Field(default_factory=OutputCsv, description="How CSV tables are written")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a job came from; `prompts_folder` is what its prompts' path is relative to, `environ` holds secrets. `output_file`
    is the one file that all results go into, instead of tables, of a job that has none."""

    path: Path
    display_name: str
    text: str
    document: Document
    prompts_folder: Path
    environ: Mapping[str, str]
    env_note: str
    output_file: Path | None = None


# Why a conversation is sent online only.
NO_CONVERSATION_IN_BATCH = (
    "a batch cannot hold a conversation: each turn needs the reply to the one before it, and the requests of a batch are"
    " answered in any order; use mode: online"
)


class Job(Section):
    """A batchgen job: prompts from a file, each sent as one request, the answers in a table."""

    model_config = ConfigDict(title="batchgen job")

    name: Name = Field(
        description="Names the output folder; by default the job file's name without .yaml"
    )
    kind: KindName | None = Field(
        default=None,
        description="What each request is; the rows of openai-batch say it themselves, others never",
    )
    mode: Mode = Field(
        default="online",
        description="How requests are sent: online, one by one; batch, by the Batch API, half the price, within 24 hours",
    )
    prompts: Prompts = Field(description="The file whose rows become requests")
    matrix: Annotated[dict[AxisName, Axis], AfterValidator(few_combinations)] = Field(
        default_factory=dict,
        description="Every row runs once per combination; axes are columns in templates",
    )
    request: Annotated[dict[RequestKey, Any], Field(min_length=1)] = Field(
        default_factory=dict,
        description="The API's own request body; every string in it is a Jinja2 template over the row's columns. The rows "
        "of openai-batch say it themselves, others never",
    )
    conversation: Conversation | None = Field(
        default=None, description="For kind chat: which rows or turns are one conversation"
    )
    limits: Limits = Field(default_factory=Limits, description="Ceilings, all optional")
    retry: Retry = Field(
        default_factory=Retry, description="How long a request is tried; times in seconds"
    )
    pricing: dict[Text, Price] = Field(
        default_factory=dict, description="Prices by model, for what genai-prices does not know"
    )
    provider: Provider = Field(
        default_factory=Provider,
        description="Where requests go; by default the OPENAI_* environment says it",
    )
    output: Output = Field(
        default_factory=Output, description="Where the output goes and what the tables hold"
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

    @property
    def path(self) -> Path:
        """The job file, absolute."""
        return self._origin.path

    @property
    def display_name(self) -> str:
        """The job file as the user typed it."""
        return self._origin.display_name

    @property
    def text(self) -> str:
        """The job file's text."""
        return self._origin.text

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment over the job's `.env`. Holds secrets: never log it."""
        return self._origin.environ

    @property
    def env_note(self) -> str:
        """In brackets, why the `.env` that was found could not be read; else empty."""
        return self._origin.env_note

    @property
    def folder(self) -> Path:
        """The job file's folder, absolute: what paths in the job are relative to."""
        return self.path.parent

    @property
    def prompts_path(self) -> Path | None:
        """The prompts file, absolute; None for stdin."""
        path = self.prompts.path
        return None if path == "-" else Path(os.path.abspath(self._origin.prompts_folder / path))

    @property
    def output_file(self) -> Path | None:
        """The one file that all results go into, absolute, instead of tables; None for a job file."""
        return self._origin.output_file

    def rows_choose(self, field: str) -> bool:
        """Whether rows may choose a field of their requests: by a template, an axis, or as requests themselves."""
        return self.kind is None or "{" in str(self.request.get(field, ""))

    @property
    def timeout(self) -> float:
        """Seconds of wall clock for one attempt."""
        if self.retry.timeout is not None:
            return self.retry.timeout
        if self.request.get("service_tier") == "flex":
            return 900
        return 60 if self.kind in ("embedding", "moderation") else 600

    def output_dir(self, root: Path | None, simulate: bool) -> Path:
        """The output folder, absolute; `root` (of --output) takes the place of its parent."""
        if root is not None:
            path = root / self.name
        elif self.output.dir is not None:
            path = self.folder / self.output.dir
        else:
            house = self.folder.parent if self.folder.name == "jobs" else self.folder
            path = house / "outputs" / self.name
        absolute = Path(os.path.abspath(path))
        return absolute.with_name(absolute.name + SIMULATED) if simulate else absolute

    def position(self, *loc: str | int) -> Position:
        """Line and column, from 1, of the deepest node there is along `loc`, such as "request", "messages", 0."""
        return self._origin.document.position(loc)

    def problem(self, loc: KeyPath, message: str) -> Problem:
        """A problem at a place in the job file."""
        line, column = self.position(*loc)
        return Problem(path=self.display_name, message=message, line=line, column=column)


def with_prompts(job: Job, path: str) -> Job:
    """The job with other prompts: a path relative to the working directory, or - for stdin."""
    copy = job.model_copy(update={"prompts": job.prompts.model_copy(update={"path": path})})
    copy._origin = replace(job._origin, prompts_folder=Path.cwd())
    return copy


def with_mode(job: Job, mode: Mode) -> Job:
    """The job, sent in another way. Raises InputError for a conversation that is to go into a batch."""
    if mode == "batch" and job.conversation is not None:
        raise InputError(
            [job.problem(("conversation",), f"conversation: {NO_CONVERSATION_IN_BATCH}")]
        )
    copy = job.model_copy(update={"mode": mode})
    copy._origin = job._origin
    return copy
