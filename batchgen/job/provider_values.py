"""The values of a job's `provider` section, and their checks.

A check raises ValueError with a sentence that follows the key's name and never repeats the value,
which may be a secret.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,99}"
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_BODY_HEADERS = frozenset(
    {"content-length", "content-type", "transfer-encoding", "content-encoding"}
)
_SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "cookie"})


def _variable(name: str) -> str:
    # A long name with digits and without _ is probably a key pasted into the wrong line.
    pasted = len(name) >= 20 and "_" not in name and any(character.isdigit() for character in name)
    if pasted or not re.fullmatch(_VARIABLE, name):
        raise ValueError(
            "must be the NAME of an environment variable that holds the key, such as OPENAI_API_KEY"
        )
    return name


def _header_word(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ValueError("must be printable ASCII without spaces")
    return text


def _header_name(name: str) -> str:
    if name.lower() in _SECRET_HEADERS:
        raise ValueError(
            "a secret does not belong in a job file; name its environment variable in api_key_env"
        )
    if not _HEADER.fullmatch(name):
        raise ValueError("is not a valid name of an HTTP header")
    if name.lower() in _BODY_HEADERS:
        raise ValueError("describes the body, and batchgen sets it for each body; remove it")
    return name


def _any_header_name(name: str) -> str:
    if not _HEADER.fullmatch(name) or name.lower() in _BODY_HEADERS:
        raise ValueError("is not the name of an HTTP header that can be set")
    return name


def _header_value(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]*", text):
        raise ValueError("must be printable ASCII on one line")
    return text


def _provider_name(name: str) -> str:
    if name == "simulate":
        raise ValueError("must not be simulate, the name of the simulated API")
    return name


HeaderWord = Annotated[str, AfterValidator(_header_word)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
# Of a header whose value is not in the job file.
AnyHeaderName = Annotated[str, AfterValidator(_any_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
Variable = Annotated[str, AfterValidator(_variable)]
ProviderName = Annotated[str, Field(min_length=1), AfterValidator(_provider_name)]
