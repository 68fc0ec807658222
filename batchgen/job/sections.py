"""The sections of a job file: the keys each may have, their types and defaults.

The descriptions go into the JSON Schema, where editors show them. A validator raises ValueError
with a sentence for the user that follows the key's name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from batchgen.job.provider import normal_url
from batchgen.job.provider_values import (
    HeaderName,
    HeaderValue,
    HeaderWord,
    ProviderName,
    Variable,
)
from batchgen.job.values import (
    Delimiter,
    Duration,
    Encoding,
    Failures,
    FolderPath,
    PathText,
    Positive,
    Rate,
    Text,
    Usd,
    distinct,
)

# The kinds of requests; `batchgen.kinds` says what each is.
KindName = Literal["text", "completion", "chat", "image", "image_edit", "embedding", "moderation"]
Mode = Literal["online", "batch"]
TableFormat = Literal["csv", "jsonl", "parquet", "openai-batch"]

# The format whose rows are themselves requests, and the keys that such rows set instead of the job.
OPENAI_BATCH = "openai-batch"
SET_BY_ROWS = ("kind", "request", "matrix", "conversation")
CUSTOM_ID = "custom_id"


def _csv_only() -> list[TableFormat]:
    return ["csv"]


class Section(BaseModel):
    """The base of all sections: frozen, unknown keys refused, no conversion of types (`"64"` is not
    a number).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Prompts(Section):
    """The file whose rows become requests."""

    path: PathText = Field(
        description="The prompts file, relative to the job file: .csv .tsv .txt .jsonl, each "
        "also .gz; - is stdin"
    )
    id: Text | None = Field(
        default=None, description="The column that names a row; its values must be unique"
    )
    format: Literal["csv", "tsv", "jsonl", "txt", "openai-batch"] | None = Field(
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
    bad_rows: Literal["refuse", "fail"] = Field(
        default="refuse",
        description="refuse: a broken row stops the job before anything is sent; fail: that "
        "row fails and the others run",
    )
    files: PathText | None = Field(
        default=None,
        description="The folder below which rows may name files; by default the folder of the "
        "prompts file",
    )

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


class Limits(Section):
    """Upper limits, all optional; batchgen finds out the server's own limits below them."""

    requests_per_minute: Positive | None = Field(
        default=None, description="Requests in any 60 seconds"
    )
    tokens_per_minute: Positive | None = Field(
        default=None, description="Input and output tokens in any 60 seconds"
    )
    images_per_minute: Positive | None = Field(default=None, description="Images in any 60 seconds")
    concurrency: int = Field(
        default=64, ge=1, le=10_000, description="Requests in flight at the same time"
    )
    max_cost: Usd | None = Field(
        default=None, description="USD over all runs of this job; spending never exceeds it"
    )
    max_time: Duration | None = Field(
        default=None,
        description='How long one run may take: "4h", "90m", "1h30m" or seconds; then it '
        "stops, and the next run goes on",
    )
    max_failures: Failures | None = Field(
        default=None,
        description='How many rows may fail or be incomplete: "1%" or a count; with more, the '
        "job stops",
    )


class Retry(Section):
    """When a request is retried, and for how long; times in seconds."""

    attempts: int = Field(
        default=6, ge=1, le=100, description="Attempts for one request, including the first"
    )
    max_wait: Positive = Field(
        default=60, description="The longest wait between two attempts, in seconds"
    )
    timeout: Positive | None = Field(
        default=None,
        description="Seconds for one attempt; by default 600; 900 with service_tier: flex; 60 "
        "for embedding and moderation",
    )
    give_up: Positive = Field(
        default=900, description="Seconds without any success after which the job stops"
    )


class Batches(Section):
    """What happens with the batches of mode: batch."""

    keep_files: bool = Field(
        default=False,
        description="Whether the server keeps the files of a batch whose answers are collected; "
        "by default they are deleted there",
    )


class Price(Section):
    """USD per million tokens of one model."""

    input: Rate | None = Field(
        default=None,
        description="USD per million input tokens; by default the input and output prices of "
        "genai-prices",
    )
    cached_input: Rate | None = Field(
        default=None,
        description="USD per million cached input tokens; by default the same as input",
    )
    output: Rate | None = Field(
        default=None,
        description="USD per million output tokens; without it, only kinds that have no output "
        "tokens have a price",
    )
    request: Rate | None = Field(
        default=None,
        description="USD per request, beside its tokens; goes with input and output",
    )
    image: Rate | None = Field(
        default=None,
        description="The highest price of one picture in USD; max_cost reserves it for image kinds",
    )


class Provider(Section):
    """Where requests go; by default taken from the OPENAI_* environment variables."""

    allow_http: bool = Field(default=False, description="Allow plain http to another machine")
    base_url: str | None = Field(
        default=None,
        description="The API's address; by default OPENAI_BASE_URL, else https://api.openai.com/v1",
    )
    name: ProviderName | None = Field(
        default=None,
        description="Replaces the address in a request's fingerprint: then the address may "
        "change and nothing is paid again",
    )
    api_key_env: Variable | None = Field(
        default="OPENAI_API_KEY",
        description="The NAME of the environment variable that holds the key; null for a "
        "server without keys",
    )
    api_key_file: PathText | None = Field(
        default=None,
        description="A file that holds the key, relative to the job file; used before api_key_env",
    )
    organization: HeaderWord | None = Field(
        default=None, description="The organization; by default OPENAI_ORG_ID"
    )
    project: HeaderWord | None = Field(
        default=None, description="The project; by default OPENAI_PROJECT_ID"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict,
        description="HTTP headers sent with every request; must not hold secrets",
    )

    @field_validator("base_url")
    @classmethod
    def _usable(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None:  # if allow_http is itself wrong, that error is enough
            normal_url(value, allow_http=info.data.get("allow_http", True))
        return value


class OutputCsv(Section):
    """How CSV tables are written."""

    safe: bool = Field(
        default=False,
        description="Put an apostrophe before cells written by the model that a spreadsheet "
        "would run as a formula",
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
    prefix: str = Field(
        default="",
        description="Put before the names of batchgen's own columns; needed when an input "
        "column has one of these names",
    )
    accept: list[Text] = Field(
        default_factory=list, description="Finish reasons that count as success, such as length"
    )
    csv: OutputCsv = Field(default_factory=OutputCsv, description="How CSV tables are written")
