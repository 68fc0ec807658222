"""Job + row -> Request: the API's own body, rendered, with its key.

The key is SHA-256 over canonical JSON of the scheme, provider, endpoint, rendered body, hashes of uploaded files and the
previous turn's key. Knobs (limits, retries, time-outs, output) and what batchgen adds by itself are left out of it.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from batchgen.errors import Problem, nearest
from batchgen.kinds import KINDS, sniff
from batchgen.requests.templates import Render, TemplateFault, Templates, Values
from batchgen.spec import Job

# The version of the key's recipe. A new recipe gets a new number; the journal still looks up older ones.
SCHEME = 1

# The image endpoints' own bounds (bytes) on what may be uploaded, and the formats they take.
MAX_PICTURE = 50_000_000
MAX_MASK = 4_000_000
PICTURES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

# Characters and tokens that a chat message costs beyond its text (role, separators), as an upper bound.
PER_MESSAGE = 16

Axes = Mapping[str, Any]
Location = tuple[str | int, ...]


class RequestFault(Exception):  # noqa: N818 - the user's fault, told to the user
    """A row of which no request can be made. `location` is the place in the job file, `message` says why."""

    def __init__(self, location: Location, message: str) -> None:
        self.location = location
        self.message = message
        super().__init__(f"{spoken(location)}: {message}")


def spoken(location: Location) -> str:
    """A location as people write it: `request.messages[0].content`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file of a multipart request; `name` is what the row wrote, `sha256` what the key saw."""

    field: str
    path: str
    name: str
    media_type: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call to the API, ready to send; plain data.

    `id` is the identity that people see, `ident` that of its outcome in the journal. `body` is exactly what the API gets
    (for a later turn, with the conversation so far). `input_bound` is an upper bound of input tokens (UTF-8 bytes and 16 a
    message), `answer_bound` of all answers' tokens together or None without a cap, `pictures` how many are asked for.
    """

    id: str = ""
    ident: str = ""
    axes: Axes = field(default_factory=dict)
    turn: int = 0
    key: str
    endpoint: str
    body: Mapping[str, Any]
    uploads: tuple[Upload, ...] = ()
    input_bound: int
    answer_bound: int | None
    pictures: int


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN; the same value is always the same text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def combinations(matrix: Mapping[str, Sequence[Any]]) -> list[Axes]:
    """Every combination of the matrix, the last axis turning fastest; one empty combination without a matrix."""
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]


def read_upload(upload: Upload) -> bytes:
    """The file's bytes, which must still be those that the key was made of. Raises RequestFault when they are not."""
    try:
        data = Path(upload.path).read_bytes()
    except OSError as error:
        raise RequestFault((upload.field,), f"{upload.name} cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != upload.sha256:
        raise RequestFault((upload.field,), f"{upload.name} has changed since the run began; run again")
    return data


def with_history(request: Request, history: Sequence[Mapping[str, Any]]) -> Request:
    """A later turn's request: the conversation so far, then this turn's own messages without its system messages."""
    body = {**request.body, "messages": [*history, *own_messages(request.body["messages"])]}
    return replace(request, body=body, input_bound=_input_bound(body, canonical(body)))


def own_messages(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A turn's messages less the leading system and developer ones, which come once, from the first turn."""
    return list(itertools.dropwhile(lambda message: message.get("role") in ("system", "developer"), messages))


class Renderer:
    """Makes requests of rows. Built once for a job; `provider` is the word for the provider in the key."""

    def __init__(self, job: Job, provider: str) -> None:
        """Compile every template. Problems in them are kept for `problems`; nothing is raised here."""
        self._job = job
        self._kind = KINDS[job.kind]
        self._provider = provider
        self._folder = _row_files(job)
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._templates = Templates(job.folder, {"data_url": self._data_url})
        self._faults: list[Problem] = []
        self._render = self._compile(job.request, ("request",))
        self._columns = {
            name: self._leaf(text, ("output", "columns", name)) for name, text in job.output.columns.items()
        }
        self._caps = [name for name in self._kind.caps if name in job.request]

    def problems(self, header: Sequence[str] | None) -> list[Problem]:
        """What is wrong with the templates and fields whatever the row; `header` are the prompts' columns if known."""
        missing = [
            self._job.problem(("request",), f"request.{name} is missing; kind {self._kind.name} needs it")
            for name in self._kind.required
            if name not in self._job.request
        ]
        return [*self._faults, *missing, *(self._unknown(header) if header is not None and not self._faults else [])]

    def _unknown(self, header: Sequence[str]) -> Iterator[Problem]:
        known = [*header, *self._job.matrix]
        by_turns = self._job.conversation is not None and self._job.conversation.turns is not None
        free = {"row", *(("turn",) if by_turns else ())}
        for location, text in _strings(self._job.request, ("request",)):
            yield from self._unknown_in(location, text, known, free)

    def _unknown_in(self, location: Location, text: str, known: list[str], free: set[str]) -> Iterator[Problem]:
        try:
            names = self._templates.names(text)
        except Exception as error:
            yield self._job.problem(location, f"{spoken(location)}: {error}")
            return
        for name in sorted(names - set(known) - free):
            message = f"{spoken(location)}: {name!r} is not a column{nearest(name, known)}; columns: {', '.join(known)}"
            yield self._job.problem(location, message)

    def signature(self) -> str:
        """A digest of everything in the job that pass 1 depends on, the prompts' bytes and pictures excepted."""
        job = self._job
        conversation = job.conversation.model_dump() if job.conversation else None
        parts = (
            SCHEME,
            self._provider,
            job.kind,
            job.request,
            dict(job.matrix),
            conversation,
            job.prompts.model_dump(),
        )
        for _, text in _strings(job.request, ()):
            with suppress(Exception):  # what cannot be read is a problem elsewhere
                self._templates.names(text)
        included = dict(sorted(self._templates.included.items()))
        return hashlib.sha256(canonical([*parts, included, job.output.prefix]).encode()).hexdigest()

    def request(self, columns: Values, axes: Axes, *, turn: Any = None, previous: str = "") -> Request:
        """The request of one row and combination; `turn` is the element of a `turns` column, `previous` the key of the
        turn before. Raises RequestFault with the place in the job file."""
        row = {**columns, **axes}
        body = self._render({**row, "row": row, "turn": turn})
        uploads = self._uploads(body)
        self._check(body)
        try:
            text = canonical(body)
        except (TypeError, ValueError) as error:
            raise RequestFault(("request",), f"the rendered request is not JSON: {error}") from None
        parts = [SCHEME, self._provider, self._kind.endpoint, [[each.field, each.sha256] for each in uploads], previous]
        key = hashlib.sha256(f"{canonical(parts)}\n{text}".encode()).hexdigest()
        choices = body.get("n") if isinstance(body.get("n"), int) else 1
        return Request(
            axes=axes,
            key=key,
            endpoint=self._kind.endpoint,
            body={**self._kind.defaults, **body},
            uploads=uploads,
            input_bound=_input_bound(body, text),
            answer_bound=self._answer_bound(body, choices),
            pictures=choices if self._kind.draws else 0,
        )

    def columns(self, row: Values, request: Values, response: Any, output: str) -> dict[str, Any]:
        """The cells of `output.columns` for one answer; a cell whose template fails is None."""
        if not self._columns:
            return {}
        values = {"row": row, "request": request, "response": response, "output": output, "json": _parsed(output)}
        return {name: _cell(render, values) for name, render in self._columns.items()}

    def _answer_bound(self, body: Mapping[str, Any], choices: int) -> int | None:
        if not self._kind.answers_in_tokens or self._kind.draws:
            return 0
        caps = [body[name] for name in self._kind.caps if isinstance(body.get(name), int)]
        return max(caps) * max(choices, body.get("best_of") or 1) if caps else None

    def _check(self, body: Mapping[str, Any]) -> None:
        lacking = [name for name in self._kind.required if name not in body and name not in self._kind.file_fields]
        if lacking:
            raise RequestFault(("request", lacking[0]), "came out as none, and the API needs it")
        messages = body.get("messages")
        if self._kind.name == "chat" and not _are_messages(messages):
            raise RequestFault(("request", "messages"), "must be a list of messages, each with a role")

    def _compile(self, value: Any, location: Location) -> Render:
        if isinstance(value, str):
            return self._leaf(value, location)
        if isinstance(value, Mapping):
            parts = {name: self._compile(item, (*location, name)) for name, item in value.items()}
            optional = {name for name, item in value.items() if isinstance(item, str)}
            return lambda values: _rendered(parts, optional, values)
        if isinstance(value, list):
            items = [(self._compile(item, (*location, n)), isinstance(item, str)) for n, item in enumerate(value)]
            return lambda values: [
                result for render, text in items if (result := render(values)) is not None or not text
            ]
        return lambda values: value

    def _leaf(self, text: str, location: Location) -> Render:
        try:
            render = self._templates.compile(text)
        except TemplateFault as fault:
            self._faults.append(self._job.problem(location, f"{spoken(location)}: {fault}"))
            return lambda values: None

        def leaf(values: Values) -> Any:
            try:
                return render(values)
            except TemplateFault as fault:
                raise RequestFault(location, str(fault)) from None

        return leaf

    def _uploads(self, body: dict[str, Any]) -> tuple[Upload, ...]:
        """Take the file fields out of the body and find their files."""
        uploads: list[Upload] = []
        for name in self._kind.file_fields:
            value = body.pop(name, None)
            if value is None and name not in self._kind.required:
                continue
            paths = value if isinstance(value, list) else [value]
            if not 1 <= len(paths) <= 16:
                raise RequestFault(("request", name), f"names {len(paths)} pictures; the API takes 1 to 16")
            part = f"{name}[]" if isinstance(value, list) else name
            uploads += [self._upload(name, part, path) for path in paths]
        return tuple(uploads)

    def _upload(self, name: str, part: str, given: Any) -> Upload:
        path, form = self.picture(given, ("request", name))
        if name == "mask" and (form != "png" or path.stat().st_size >= MAX_MASK):
            raise RequestFault(("request", name), f"{given} must be a PNG below 4 MB")
        return Upload(field=part, path=str(path), name=str(given), media_type=PICTURES[form], sha256=self._hash(path))

    def picture(self, given: Any, location: Location) -> tuple[Path, str]:
        """The picture file that a row names, and its format. Only regular files below the prompts' folder are read."""
        if not isinstance(given, str) or not given.strip() or "\x00" in given:
            raise RequestFault(location, "names no picture file")
        pure = PurePosixPath(given)
        if pure.is_absolute() or ".." in pure.parts or "\\" in given:
            raise RequestFault(location, f"{given!r} must be a path below {self._folder}, without '..'")
        try:
            path = (self._folder / given).resolve(strict=True)
            about = path.stat()
        except OSError as error:
            raise RequestFault(location, f"{given!r} in {self._folder}: {error.strerror}") from None
        if not path.is_relative_to(self._folder):
            raise RequestFault(location, f"{given!r} is a link that leads out of {self._folder}")
        if not stat.S_ISREG(about.st_mode) or about.st_size >= MAX_PICTURE:
            raise RequestFault(location, f"{given!r} must be a regular file below 50 MB")
        with open(path, "rb") as file:
            form = sniff(file.read(12))
        if form not in PICTURES:
            raise RequestFault(location, f"{given!r} is not a PNG, JPEG or WebP picture")
        return path, form

    def _hash(self, path: Path) -> str:
        about = path.stat()
        mark = (str(path), about.st_size, about.st_mtime_ns)
        if mark not in self._hashes:
            self._hashes[mark] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[mark]

    def uploaded(self) -> list[tuple[str, int, int]]:
        """The pictures read so far as (path, size in bytes, mtime in ns): pass 1 is skipped only while they stay so."""
        return sorted(self._hashes)

    def _data_url(self, given: Any) -> str:
        try:
            path, form = self.picture(given, ("request",))
        except RequestFault as fault:
            raise LookupError(fault.message) from None
        self._hash(path)
        return f"data:{PICTURES[form]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def unchanged(pictures: Sequence[Sequence[Any]]) -> bool:
    """Whether every (path, size, mtime) is still as it was."""
    for path, size, mtime in pictures:
        try:
            about = os.stat(path)
        except OSError:
            return False
        if (about.st_size, about.st_mtime_ns) != (size, mtime):
            return False
    return True


def _row_files(job: Job) -> Path:
    if job.prompts.files is not None:
        return (job.folder / job.prompts.files).resolve()
    prompts = job.prompts_path
    return (prompts.parent if prompts is not None else job.folder).resolve()


def _rendered(parts: Mapping[str, Render], optional: set[str], values: Values) -> dict[str, Any]:
    body = {}
    for name, render in parts.items():
        value = render(values)
        if value is not None or name not in optional:
            body[name] = value
    return body


def _strings(value: Any, location: Location) -> Iterator[tuple[Location, str]]:
    if isinstance(value, str):
        yield location, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, (*location, name))
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _strings(item, (*location, n))


def _are_messages(messages: Any) -> bool:
    if not isinstance(messages, list) or not messages:
        return False
    return all(isinstance(message, Mapping) and isinstance(message.get("role"), str) for message in messages)


def _input_bound(body: Mapping[str, Any], text: str) -> int:
    """A token is at least one byte of the body's text; JSON's own marks only make the bound larger."""
    messages = body.get("messages")
    return len(text.encode()) + PER_MESSAGE * (len(messages) if isinstance(messages, list) else 1)


def _parsed(output: str) -> Any:
    try:
        return json.loads(output)
    except ValueError:
        return None


def _cell(render: Callable[[Values], Any], values: Values) -> Any:
    try:
        value = render(values)
    except RequestFault:
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else value
