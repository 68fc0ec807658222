"""Where requests go and with which key: from the job's `provider`, else from OPENAI_* variables.

The environment includes the `.env` file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batchgen.errors import AccountError, InputError

if TYPE_CHECKING:
    from batchgen.job.model import Job

DEFAULT_URL = "https://api.openai.com/v1"
# A key has some hundred characters; a larger file is something else.
MAX_KEY_BYTES = 1 << 16

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = IPv4Network("127.0.0.0/8")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_EXAMPLE = f"write an address such as {DEFAULT_URL}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What all requests of a job have in common, except the API key.

    base_url: normalised: scheme and host in lower case, no default port, no trailing slash.
    provider_id: the provider in the fingerprint of a request: `provider.name`, or the base URL.
    organization, project: OpenAI's ids; None for the key's own.
    headers: sent with every request, besides those of the API.
    """

    base_url: str
    provider_id: str
    organization: str | None
    project: str | None
    headers: Mapping[str, str]

    @property
    def host(self) -> str:
        """The host's name or address, without the port."""
        return urlsplit(self.base_url).hostname or ""


def connection(job: Job) -> Connection:
    """The job's provider, completed from OPENAI_BASE_URL, OPENAI_ORG_ID and OPENAI_PROJECT_ID.

    Raises InputError, naming the variable, when one of them cannot be used.
    """
    provider = job.provider
    if provider.base_url is not None:
        base_url = normal_url(provider.base_url, allow_http=provider.allow_http)
    else:
        base_url = _environment_url(job)
    return Connection(
        base_url=base_url,
        provider_id=provider.name or base_url,
        organization=provider.organization or _environment_word(job, "OPENAI_ORG_ID"),
        project=provider.project or _environment_word(job, "OPENAI_PROJECT_ID"),
        headers=dict(provider.headers),
    )


def _environment_url(job: Job) -> str:
    value = job.environ.get("OPENAI_BASE_URL", "").strip()
    try:
        return normal_url(value or DEFAULT_URL, allow_http=job.provider.allow_http)
    except ValueError as error:
        raise InputError(f"the environment variable OPENAI_BASE_URL: {error}") from None


def _environment_word(job: Job, name: str) -> str | None:
    value = job.environ.get(name, "").strip()
    if value and not _PRINTABLE.fullmatch(value):
        raise InputError(
            f"the environment variable {name} holds spaces or characters outside ASCII; fix or "
            "unset it"
        )
    return value or None


def normal_url(url: str, *, allow_http: bool) -> str:
    """The base URL, normalised.

    Raises ValueError; its message never repeats the URL, which may contain a password.
    """
    if not _PRINTABLE.fullmatch(url):
        raise ValueError(f"holds spaces or characters outside ASCII; {_EXAMPLE}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"is not a valid address; {_EXAMPLE}") from None
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host:
        raise ValueError(f"must begin with https:// (or http://) and a host; {_EXAMPLE}")
    if "@" in parts.netloc:
        raise ValueError(
            "must not hold a user name or password; name the key's variable in provider.api_key_env"
        )
    if "?" in url or "#" in url:
        raise ValueError(
            "must not hold a query (?) or a fragment (#); send these values as provider.headers"
        )
    address = _address(host)
    if address is None and not _HOST.fullmatch(host):
        raise ValueError(f"does not name a valid host; {_EXAMPLE}")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ValueError(
            "sends the key and the prompts unencrypted (plain http) to another machine; "
            "use https://, or set provider.allow_http: true (run-batch: --allow-http)"
        )
    shown = f"[{host}]" if isinstance(address, IPv6Address) else host
    suffix = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{shown}{suffix}{parts.path}".rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is certainly this machine: localhost, 127.0.0.0/8 or ::1."""
    address = _address(host)
    if address is None:
        return host == "localhost"
    return address in _LOOPBACK or address == IPv6Address("::1")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def api_key(job: Job) -> str | None:
    """The API key: from provider.api_key_file, else from the variable that provider.api_key_env
    names.

    None when provider.api_key_env is null. Raises AccountError when the key is missing, empty or
    malformed; its message names the file or the variable, never the value.
    """
    provider = job.provider
    key: str | None
    if provider.api_key_file is not None:
        path = Path(os.path.abspath(job.folder / provider.api_key_file))
        source, key, fix = f"the key file {path}", _key_from_file(path), "write the key into it"
    elif provider.api_key_env is not None:
        name = provider.api_key_env
        source, key = f"the environment variable {name}", job.environ.get(name)
        fix = (
            f"export it, or put {name}=... into a .env file in the job's folder or "
            f"above{f' ({job.env_note})' if job.env_note else ''}"
        )
        if provider.base_url is not None:
            fix += ", or set provider.api_key_env: null for a server without keys"
        if key is None:
            raise _unusable(f"{source} is not set", fix)
    else:
        return None
    key = key.strip()
    if not key:
        raise _unusable(f"{source} is empty", fix)
    if not _PRINTABLE.fullmatch(key):
        raise _unusable(
            f"{source} holds spaces, line breaks or characters outside ASCII, so it is not a key",
            fix,
        )
    return key


def _key_from_file(path: Path) -> str:
    try:
        if not stat.S_ISREG(
            path.stat().st_mode
        ):  # a pipe would block, and a device would never end
            raise _unusable(
                f"the key file {path} is not a regular file", "name a text file that holds the key"
            )
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise _unusable(
            f"the key file {path} cannot be read: {reason}", "fix that, or change api_key_file"
        ) from None


def _unusable(problem: str, fix: str) -> AccountError:
    return AccountError(f"{problem}; {fix}, or try the job without a key: --simulate")
