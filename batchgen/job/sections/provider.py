"""The section `provider`: where requests go."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from batchgen.job.provider import normal_url
from batchgen.job.provider_values import (
    HeaderName,
    HeaderValue,
    HeaderWord,
    ProviderName,
    Variable,
)
from batchgen.job.sections.section import Section
from batchgen.job.values import PathText


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
