"""Job + row -> Request: the API's own body, rendered, with its key.

The key is SHA-256 over canonical JSON of the scheme, provider, endpoint, rendered body, hashes of uploaded files and the
previous turn's key. Knobs (limits, retries, time-outs, output) and what batchgen adds by itself are left out of it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from batchgen.batch_format import URL_PREFIX
from batchgen.errors import Problem, did_you_mean, listed
from batchgen.job import Job, unsendable
from batchgen.kinds import KIND_BY_ENDPOINT, KINDS, Kind
from batchgen.replies import count_inputs
from batchgen.requests.faults import KeyPath, RequestError, dotted
from batchgen.requests.templates import Render, TemplateError, Templates, Values
from batchgen.requests.uploads import Pictures, PictureStamp, Upload, read_upload, unchanged

__all__ = [
    "SCHEME",
    "TYPICAL_PICTURE_TOKENS",
    "Axes",
    "PictureStamp",
    "Renderer",
    "Request",
    "RequestError",
    "Upload",
    "canonical",
    "combinations",
    "read_upload",
    "unchanged",
    "unknown_column",
    "with_history",
    "without_system_messages",
]

# The version of the key's recipe. A new recipe gets a new number; the journal still looks up older ones.
SCHEME = 1

# Tokens that a chat message costs beyond its text (role, separators), and a picture input_pictures to a model, as upper bounds:
# the dearest known count is 2,833 and 5,667 for each of at most eight tiles.
MAX_MESSAGE_TOKENS = 16
MAX_PICTURE_TOKENS = 50_000
# Tokens that a picture input_pictures to a model usually costs.
TYPICAL_PICTURE_TOKENS = 1_000
# Quotes within a value are escaped, so that neither pattern is ever found in a row's text.
_SHOWN = re.compile(r'"type":"(?:image_url|input_image)"')
_DATA = re.compile(r'"(?:image_)?url":"data:image/[a-z]+;base64,[A-Za-z0-9+/=]*"')
# What has the server read more than the body holds: fields of the body, and parts of messages wherever they stand.
_STORED = ("previous_response_id", "conversation", "web_search_options")
_FILED = re.compile(r'"type":"(input_file|file|input_audio|item_reference)"|"(file_id)":"')
_OWN_TOOLS = frozenset({"function", "custom"})

_canonical = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode

Axes = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call to the API, ready to send; plain data.

    `id` is the identity that people see, `outcome_id` that of its outcome in the journal. `body` is exactly what the API gets
    (for a later turn, with the conversation so far). `input_bound` is an upper bound of input tokens (UTF-8 bytes, 16 a
    message, 50,000 for each of `input_pictures` pictures), `answer_bound` of all answers' tokens together or None without a cap,
    `pictures` how many are asked for. `unbounded_by` names a field that makes the server read more than the body, beyond any
    bound.
    """

    id: str = ""
    outcome_id: str = ""
    axes: Axes = field(default_factory=dict)
    turn: int = 0
    fingerprint: bytes
    endpoint: str
    body: Mapping[str, Any]
    uploads: tuple[Upload, ...] = ()
    input_bound: int
    answer_bound: int | None
    pictures: int
    input_pictures: int = 0
    unbounded_by: str | None = None

    @property
    def text_bytes(self) -> int:
        """The input's size less what its pictures are bounded by."""
        return self.input_bound - MAX_PICTURE_TOKENS * self.input_pictures


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN; the same value is always the same text."""
    return _canonical(value)


def combinations(matrix: Mapping[str, Sequence[Any]]) -> list[Axes]:
    """Every combination of the matrix, the last axis turning fastest; one empty combination without a matrix."""
    return [
        dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())
    ]


def with_history(request: Request, history: Sequence[Mapping[str, Any]]) -> Request:
    """A later turn's request: the conversation so far, then this turn's own messages without its system messages."""
    body = {
        **request.body,
        "messages": [*history, *without_system_messages(request.body["messages"])],
    }
    input_bound, input_pictures = _input(body, canonical(body))
    return replace(request, body=body, input_bound=input_bound, input_pictures=input_pictures)


def without_system_messages(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A turn's messages less the leading system and developer ones, which come once, from the first turn."""
    return list(
        itertools.dropwhile(
            lambda message: message.get("role") in ("system", "developer"), messages
        )
    )


class Renderer:
    """Makes requests of rows. Built once for a job; `provider` is the word for the provider in the key."""

    def __init__(self, job: Job, provider: str) -> None:
        """Compile every template. Problems in them are kept for `problems`; nothing is raised here."""
        self._job = job
        # None where each row is a request, and says it itself.
        self._kind = KINDS[job.kind] if job.kind else None
        self._provider = provider
        self._pictures = Pictures(_row_files(job))
        self._templates = Templates(job.folder, {"data_url": self._pictures.data_url})
        self._faults: list[Problem] = []
        self._recipes: dict[str, str] = {}
        self._render = self._compile(job.request, ("request",))
        self._columns = {
            name: self._leaf(text, ("output", "columns", name))
            for name, text in job.output.columns.items()
        }
        self._by_turns = job.conversation is not None and job.conversation.turns is not None

    def problems(self, header: Sequence[str] | None) -> list[Problem]:
        """What is wrong with the templates and fields whatever the row; `header` are the prompts' columns if known."""
        wrong = [*self._faults, *([] if self._faults else self._unread())]
        never = self._never(self._kind) if self._kind else ()
        return [
            *wrong,
            *never,
            *(self._unknown(header) if header is not None and not wrong else []),
        ]

    def _never(self, kind: Kind) -> Iterator[Problem]:
        """A problem for each field that the request lacks, or that can be right for no row."""
        request = self._job.request
        for name in kind.required:
            if name not in request:
                yield self._job.problem(
                    ("request",), f"request.{name} is missing; kind {kind.name} needs it"
                )
        constant = {
            name: value
            for name, value in request.items()
            if not any("{" in text for _, text in _strings(value, ()))
        }
        for name, message in _wrong(kind, constant):
            yield self._job.problem(("request", name), f"request.{name}: {message}")

    def _unread(self) -> Iterator[Problem]:
        """A problem for each string that includes what cannot be, also in what it includes."""
        texts = (
            *_strings(self._job.request, ("request",)),
            *_strings(self._job.output.columns, ("output", "columns")),
        )
        for key_path, text in texts:
            try:
                self._templates.included(text)
            except Exception as error:
                yield self._job.problem(key_path, f"{dotted(key_path)}: {error}")

    def _unknown(self, header: Sequence[str]) -> Iterator[Problem]:
        columns = list(dict.fromkeys((*header, *self._job.matrix)))
        names = {"row", *columns, *(("turn",) if self._by_turns else ())}
        for key_path, text in _strings(self._job.request, ("request",)):
            yield from self._unknown_in(key_path, text, columns, names)
        for key_path, text in _strings(self._job.output.columns, ("output", "columns")):
            yield from self._unknown_in(key_path, text, columns, _OF_AN_ANSWER)

    def _unknown_in(
        self, key_path: KeyPath, text: str, columns: Sequence[str], names: Collection[str]
    ) -> Iterator[Problem]:
        """A problem for each bare name of a template that is not among `names`, and each `row["..."]` not in `columns`."""
        bare, of_row = self._templates.names(text)
        for name in sorted(of_row - set(columns)):
            yield self._job.problem(
                key_path, f"{dotted(key_path)}: {unknown_column(name, columns)}"
            )
        for name in sorted(bare - set(names)):
            told = (
                unknown_column(name, columns)
                if names is not _OF_AN_ANSWER
                else _no_part(name, columns)
            )
            yield self._job.problem(key_path, f"{dotted(key_path)}: {told}")

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
        return hashlib.sha256(
            canonical([*parts, self._included, job.output.prefix]).encode()
        ).hexdigest()

    @cached_property
    def _included(self) -> dict[str, str]:
        """The files that the request includes, by name."""
        return self._included_by(self._job.request)

    def _included_by(self, part: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for _, text in _strings(part, ()):
            with suppress(Exception):  # what cannot be read is a problem elsewhere
                found |= self._templates.included(text)
        return found

    def columns_signature(self) -> str | None:
        """A digest of everything in the job that the cells of `output.columns` depend on; None where they show pictures,
        which are read as the cells are made."""
        columns = self._job.output.columns
        included = self._included_by(columns)
        if any("data_url" in text for text in (*columns.values(), *included.values())):
            return None
        return hashlib.sha256(canonical([self.signature(), columns, included]).encode()).hexdigest()

    @cached_property
    def reads_files(self) -> bool:
        """Whether making a request reads pictures, tens of megabytes at the most: too long for an event loop."""
        texts = (*(text for _, text in _strings(self._job.request, ())), *self._included.values())
        return bool(self._kind and self._kind.file_fields) or any(
            "data_url" in text for text in texts
        )

    def kind_of(self, columns: Values) -> Kind | None:
        """The kind of a row's request: the job's, or the one that the row's own url is for. None for a row that was read
        before rows were requests."""
        return self._kind or KIND_BY_ENDPOINT.get(str(columns.get("url")).removeprefix(URL_PREFIX))

    def sets_field(self, columns: Values, name: str) -> bool:
        """Whether the body of a row's request has this field by its own word."""
        return name in (self._job.request if self._kind else columns["body"])

    def request(
        self,
        columns: Values,
        axes: Axes,
        *,
        turn: Any = None,
        previous: bytes = b"",
        row_id: str = "",
        outcome_id: str = "",
        turn_number: int = 0,
    ) -> Request:
        """The request of one row and combination; `turn` is the element of a `turns` column, `previous` the key of the
        turn before; `name` (its id), `ident` and the turn's `number` go into the request as they are. Raises RequestError
        with the place in the job file."""
        kind = self.kind_of(columns)
        if kind is None or (self._kind is None and not isinstance(columns.get("body"), Mapping)):
            raise RequestError(
                ("prompts", "format"), "the row was read before rows were requests; run again"
            )
        body, uploads = (
            self._rendered(kind, columns, axes, turn)
            if self._kind
            else (_own_body(kind, columns), ())
        )
        try:
            text = canonical(body)
            fingerprint = hashlib.sha256(
                f"{self._recipe(kind, uploads, previous)}\n{text}".encode()
            ).digest()
        except (TypeError, ValueError, RecursionError) as error:
            place = ("request",) if self._kind else ()
            raise RequestError(
                place, f"the rendered request is not JSON in UTF-8: {error}"
            ) from None
        input_bound, input_pictures = _input(body, text)
        return Request(
            id=row_id,
            outcome_id=outcome_id,
            axes=axes,
            turn=turn_number,
            fingerprint=fingerprint,
            endpoint=kind.endpoint,
            body={**kind.defaults, **body},
            uploads=uploads,
            input_bound=input_bound,
            input_pictures=input_pictures,
            answer_bound=_answer_bound(kind, body),
            pictures=_count(body, "n") if kind.makes_images else 0,
            unbounded_by=_brings_in(body, text),
        )

    def _rendered(
        self, kind: Kind, columns: Values, axes: Axes, turn: Any
    ) -> tuple[dict[str, Any], tuple[Upload, ...]]:
        """The job's request, with a row in it: its body and its files. Raises RequestError."""
        row = {**columns, **axes}
        body = self._render({**row, "row": row, **({"turn": turn} if self._by_turns else {})})
        uploads = self._uploads(kind, body)
        _check(kind, body)
        return body, uploads

    def _recipe(self, kind: Kind, uploads: Sequence[Upload], previous: bytes) -> str:
        """What the key is made of, the body excepted."""
        if not uploads and not previous:
            return self._plain_recipe(kind.endpoint)
        files = [[each.field, each.sha256] for each in uploads]
        return canonical([SCHEME, self._provider, kind.endpoint, files, previous.hex()])

    def _plain_recipe(self, endpoint: str) -> str:
        if endpoint not in self._recipes:
            self._recipes[endpoint] = canonical([SCHEME, self._provider, endpoint, [], ""])
        return self._recipes[endpoint]

    def columns(self, row: Values, request: Values, response: Any, output: str) -> dict[str, Any]:
        """The cells of `output.columns` for one answer; a cell whose template fails is None."""
        if not self._columns:
            return {}
        values = {
            "row": row,
            "request": request,
            "response": response,
            "output": output,
            "json": _parsed(output),
        }
        return {name: _cell(render, values) for name, render in self._columns.items()}

    def recording_pictures(self) -> AbstractContextManager[list[PictureStamp]]:
        """A list to which every picture is added that is read while the block runs, as (path, size in bytes, mtime in ns);
        who takes from it keeps it short. Pass 1 is skipped only while the pictures stay so."""
        return self._pictures.recording_pictures()

    def _uploads(self, kind: Kind, body: dict[str, Any]) -> tuple[Upload, ...]:
        """Take the file fields out of the body and find their files."""
        uploads: list[Upload] = []
        for name in kind.file_fields:
            value = body.pop(name, None)
            if value is not None or name in kind.required:
                uploads += self._pictures.uploads(name, value)
        return tuple(uploads)

    def _compile(self, value: Any, key_path: KeyPath) -> Render:
        if isinstance(value, str):
            return self._leaf(value, key_path)
        if isinstance(value, Mapping):
            parts = {name: self._compile(item, (*key_path, name)) for name, item in value.items()}
            optional = {name for name, item in value.items() if isinstance(item, str)}
            return lambda values: _rendered(parts, optional, values)
        if isinstance(value, list):
            items = [
                (self._compile(item, (*key_path, n)), isinstance(item, str))
                for n, item in enumerate(value)
            ]
            return lambda values: [
                result
                for render, text in items
                if (result := render(values)) is not None or not text
            ]
        return lambda values: value

    def _leaf(self, text: str, key_path: KeyPath) -> Render:
        try:
            render = self._templates.compile(text)
        except TemplateError as fault:
            self._faults.append(self._job.problem(key_path, f"{dotted(key_path)}: {fault}"))
            return lambda values: None

        def leaf(values: Values) -> Any:
            try:
                return render(values)
            except TemplateError as fault:
                raise RequestError(key_path, str(fault)) from None

        return leaf


def _answer_bound(kind: Kind, body: Mapping[str, Any]) -> int | None:
    """The tokens of all answers to a request at the most; None without a cap."""
    if not kind.has_output_tokens or kind.makes_images:
        return 0
    caps = [body[name] for name in kind.token_caps if body.get(name) is not None]
    if not caps or not all(map(_is_count, caps)):
        return None
    return (
        int(max(caps))
        * max(_count(body, "n"), _count(body, "best_of"))
        * count_inputs(body.get("prompt"))
    )


def _check(kind: Kind, body: Mapping[str, Any]) -> None:
    lacking = [name for name in kind.required if name not in body and name not in kind.file_fields]
    if lacking:
        raise RequestError(("request", lacking[0]), "came out as none, and the API needs it")
    for name, message in _wrong(kind, body):
        raise RequestError(("request", name), message)


def _own_body(kind: Kind, columns: Values) -> dict[str, Any]:
    """The body of a row that is a request: data as it stands, no template and nothing of this machine in it. Raises
    RequestError."""
    body: dict[str, Any] = columns["body"]
    for name, message in _unfit(kind, body):
        raise RequestError((), f"body.{name}: {message}")
    return body


def _unfit(kind: Kind, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in body:
        # Where it is off, it asks for what is done anyway.
        if body[name] not in (False, None) and (why := unsendable(name, kind.name)):
            yield name, f"{why}; remove it"
        if name in kind.json_fields:
            yield (
                name,
                f"is a file of a form, and this is JSON; give {kind.json_fields[name]} instead",
            )
    for name in (kind.json_fields.get(each, each) for each in kind.required):
        if name not in body:
            yield name, f"is missing; {URL_PREFIX}{kind.endpoint} needs it"
    yield from _wrong(kind, body)


def _wrong(kind: Kind, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields of a body, or of a part of one, that cannot be what they are, and what they must be."""
    if "model" in body and not (isinstance(body["model"], str) and body["model"].strip()):
        yield "model", "must be the name of a model"
    if kind.name == "chat" and "messages" in body and not _are_messages(body["messages"]):
        yield "messages", "must be a list of messages, each with a role"
    for name in ("n", "best_of"):
        if body.get(name) is not None and not _is_count(body[name]):
            yield name, "must be a whole number above 0"


# What a template of output.columns speaks of.
_OF_AN_ANSWER = frozenset({"row", "request", "response", "output", "json"})


def unknown_column(name: str, columns: Sequence[str]) -> str:
    """What to say of a name that is no column: the columns that there are, and the nearest of them."""
    return f"{name!r} is not a column (columns: {listed(columns)}){did_you_mean(name, columns)}"


def _no_part(name: str, columns: Sequence[str]) -> str:
    """A bare name in a template of output.columns, where columns are reached by `row` only."""
    known = sorted(_OF_AN_ANSWER)
    hint = f'; a column is written row["{name}"]' if name in columns else did_you_mean(name, known)
    return f"{name!r} is not one of {', '.join(known)}{hint}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(body: Mapping[str, Any], name: str) -> int:
    """How many answers a field asks for; 1 where it is absent."""
    return body[name] if _is_count(body.get(name)) else 1


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


def _strings(value: Any, key_path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield key_path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _strings(item, (*key_path, name))
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _strings(item, (*key_path, n))


def _are_messages(messages: Any) -> bool:
    if not isinstance(messages, list) or not messages:
        return False
    return all(
        isinstance(message, Mapping) and isinstance(message.get("role"), str)
        for message in messages
    )


def _input(body: Mapping[str, Any], text: str) -> tuple[int, int]:
    """The bound of a body's input tokens, and how many pictures it shows. A token is at least one byte of the body's text
    (JSON's own marks only make the bound larger), pictures excepted."""
    messages = body.get("messages")
    sent = _DATA.findall(text)
    input_pictures = max(len(_SHOWN.findall(text)), len(sent))
    texts = len(text.encode()) - sum(map(len, sent))
    spoken = MAX_MESSAGE_TOKENS * (len(messages) if isinstance(messages, list) else 1)
    return texts + MAX_PICTURE_TOKENS * input_pictures + spoken, input_pictures


def _brings_in(body: Mapping[str, Any], text: str) -> str | None:
    """The first field that adds to the input what no one can count before: stored turns and prompts, files, sound, and
    tools that run at the server and feed their results back."""
    tools = body.get("tools")
    if any(
        not isinstance(tool, Mapping) or tool.get("type") not in _OWN_TOOLS
        for tool in _listed(tools)
    ):
        return "tools"
    if isinstance(body.get("prompt"), Mapping):
        return "prompt"
    stored = next((name for name in _STORED if body.get(name) is not None), None)
    found = _FILED.search(text)
    return stored or (found and (found[1] or found[2])) or None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _parsed(output: str) -> Any:
    try:
        return json.loads(output)
    except ValueError:
        return None


def _cell(render: Callable[[Values], Any], values: Values) -> Any:
    try:
        value = render(values)
    except RequestError:
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else value
