"""Where requests go and with which key: the job's `provider`, then the OPENAI_* environment, `.env` included."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from batchgen.errors import AccountError, InputError

if TYPE_CHECKING:
    from batchgen.job.model import Job

DEFAULT_URL = "https://api.openai.com/v1"
# A key is some hundred characters; a file larger than this is something else.
MAX_KEY_BYTES = 1 << 16

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = IPv4Network("127.0.0.0/8")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_EXAMPLE = f"write an address such as {DEFAULT_URL}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What every request of a job has in common, the key excepted.

    `base_url` is normalised (scheme and host in lower case, no default port, no trailing slash); `provider_id` is the
    provider's word in the key of a request: `provider.name`, or the base URL.
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
            f"the environment variable {name} holds spaces or characters outside ASCII; mend or unset it"
        )
    return value or None


def normal_url(url: str, *, allow_http: bool) -> str:
    """The base URL normalised. Raises ValueError with a sentence that never repeats the URL: it may hold a password."""
    if not _PRINTABLE.fullmatch(url):
        raise ValueError(f"holds spaces or characters outside ASCII; {_EXAMPLE}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"is no valid address; {_EXAMPLE}") from None
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host:
        raise ValueError(f"must begin with https:// (or http://) and a host; {_EXAMPLE}")
    if "@" in parts.netloc:
        raise ValueError(
            "must not hold a user name or password; name the key's variable in provider.api_key_env"
        )
    if "?" in url or "#" in url:
        raise ValueError(
            "must not hold a query (?) or a fragment (#); give what it says as provider.headers"
        )
    address = _address(host)
    if address is None and not _HOST.fullmatch(host):
        raise ValueError(f"names no valid host; {_EXAMPLE}")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ValueError(
            "sends the key and the prompts unencrypted (plain http) to another machine; "
            "use https://, or set provider.allow_http: true (run-batch: --allow-http)"
        )
    shown = f"[{host}]" if isinstance(address, IPv6Address) else host
    suffix = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{shown}{suffix}{parts.path}".rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for certain: localhost, 127.0.0.0/8 or ::1."""
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
    """The key, stripped, from provider.api_key_file, else from the variable provider.api_key_env names; None for null.

    Raises AccountError naming the file or the variable, never the value, when it is missing, empty or no key.
    """
    provider = job.provider
    key: str | None
    if provider.api_key_file is not None:
        path = Path(os.path.abspath(job.folder / provider.api_key_file))
        source, key, mend = f"the key file {path}", _key_from_file(path), "write the key into it"
    elif provider.api_key_env is not None:
        name = provider.api_key_env
        source, key = f"the environment variable {name}", job.environ.get(name)
        mend = f"export it, or put {name}=... into a .env file in the job's folder or above{job.env_note}"
        if provider.base_url is not None:
            mend += ", or set provider.api_key_env: null for a server without keys"
        if key is None:
            raise _unusable(f"{source} is not set", mend)
    else:
        return None
    key = key.strip()
    if not key:
        raise _unusable(f"{source} is empty", mend)
    if not _PRINTABLE.fullmatch(key):
        raise _unusable(
            f"{source} holds no key but spaces, line breaks or characters outside ASCII", mend
        )
    return key


def _key_from_file(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block, a device never end
            raise _unusable(
                f"the key file {path} is no regular file", "name a text file that holds the key"
            )
        with path.open("rb") as file:
            return file.read(MAX_KEY_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise _unusable(
            f"the key file {path} cannot be read: {reason}", "mend that, or change api_key_file"
        ) from None


def _unusable(what: str, mend: str) -> AccountError:
    return AccountError(f"{what}; {mend}, or try the job without a key: --simulate")


def merged_environment(folder: Path, environ: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The environment over the first `.env` upward from a folder, and a note when that file is unreadable."""
    path = next((up / ".env" for up in (folder, *folder.parents) if _is_file(up / ".env")), None)
    if path is None:
        return dict(environ), ""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = (
            "it is not UTF-8"
            if isinstance(error, UnicodeDecodeError)
            else (error.strerror or "error").lower()
        )
        return dict(environ), f" ({path} cannot be read: {reason})"
    from dotenv import dotenv_values  # here, because most of a start-up is imports

    values = dotenv_values(stream=StringIO(text), interpolate=False)
    return {**{name: value for name, value in values.items() if value is not None}, **environ}, ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder above that may not be searched
        return False
