"""The section `notify`: who hears how a run ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from batchgen.errors import did_you_mean, listed
from batchgen.job.provider import normal_url
from batchgen.job.provider_values import AnyHeaderName, HeaderName, HeaderValue, Variable
from batchgen.job.sections.section import Section

Event = Literal["failure", "finish"]

# What the end of a run is told by; `text` is all of it in one sentence.
NOTICE_FIELDS = (
    "text",
    "job",
    "event",
    "exit_code",
    "meaning",
    "rows",
    "total",
    "calls",
    "cost",
    "file",
)
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")

# Whoever knows such an address can write to the channel.
_SECRET_HOSTS = ("hooks.slack.com", "discord.com", "outlook.office.com")


def _address(url: str) -> str:
    # The path is part of the address here, and may hold what `normal_url` refuses.
    normal_url(url.partition("?")[0], allow_http=True)
    if urlsplit(url).hostname in _SECRET_HOSTS:
        raise ValueError(
            "is a secret, as whoever knows it can write there; put it into an environment "
            "variable and name that in url_env"
        )
    return url


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _body(value: Any) -> Any:
    if not isinstance(value, (str, dict)):
        raise ValueError('must be a mapping, such as {text: "{{ text }}"}, or a text')
    for text in _texts(value):
        for name in PLACEHOLDER.findall(text):
            if name not in NOTICE_FIELDS:
                raise ValueError(
                    f"has no {name!r}{did_you_mean(name, NOTICE_FIELDS)}; there are "
                    f"{listed(NOTICE_FIELDS)}"
                )
    return value


class Notify(Section):
    """Who hears how a run ended: a command, an address, or both."""

    when: Annotated[list[Event], Field(min_length=1)] = Field(
        default=["failure"],
        description="failure: it ended with 1, 2, 3, 4, 5 or 74; finish: it ended with 0",
    )
    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None,
        description="A program and its arguments, without a shell; it gets the body on stdin",
    )
    url: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="The http(s) address to which the body is sent by POST"
    )
    url_env: Variable | None = Field(
        default=None, description="The NAME of the environment variable that holds the address"
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="HTTP headers to send along; must not hold secrets"
    )
    headers_env: dict[AnyHeaderName, Variable] = Field(
        default_factory=dict,
        description="HTTP headers whose values are in environment variables: the NAME of each",
    )
    body: Annotated[Any, AfterValidator(_body)] = Field(
        default=None,
        validate_default=False,
        description="What is sent instead of all fields: a mapping (JSON) or a text, in which "
        "{{ text }} and the other fields may stand",
    )

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.url and self.url_env:
            raise ValueError("has url and url_env; keep one of them")
        if not (self.command or self.url or self.url_env):
            raise ValueError("needs a command, a url or a url_env")
        return self
