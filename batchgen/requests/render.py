"""Job + row -> Request: the job's templates rendered for one row, and the fingerprint of the
result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from batchgen.batch_format import URL_PREFIX
from batchgen.errors import Problem
from batchgen.job import Job, KeyPath, dotted
from batchgen.kinds import KIND_BY_ENDPOINT, KINDS, Kind
from batchgen.replies import FORMAT_FIELDS
from batchgen.requests.bounds import answer_bound, count_of, input_bound, unbounded_by
from batchgen.requests.checks import (
    check_rendered,
    column_problems,
    field_problems,
    include_problems,
    own_body,
    strings_in,
)
from batchgen.requests.columns import Columns
from batchgen.requests.content import numbers_as_texts
from batchgen.requests.emptiness import are_empty, prompt_columns
from batchgen.requests.faults import RequestError, TemplateError
from batchgen.requests.request import SCHEME, Axes, Request, canonical
from batchgen.requests.templates import Render, Templates, Values, compile_value
from batchgen.requests.uploads import Pictures, PictureStamp, Upload
from batchgen.requests.where import Where


class Renderer:
    """Makes requests out of rows. Build it once for a job, because it compiles every template.

    Attributes:
        columns: the columns that are computed from answers.
    """

    def __init__(self, job: Job, provider: str, files: Path | None = None) -> None:
        """`provider` is the provider's id in fingerprints; `files` is the folder below which rows
        may name files, where the job does not say it and has no prompts file.

        Problems in templates are kept for `problems`, not raised.
        """
        self._job = job
        # None when each row is itself a request, which names its own kind.
        self._kind = KINDS[job.kind] if job.kind else None
        self._provider = provider
        self._pictures = Pictures(_files_folder(job, files))
        self._templates = Templates(job.folder, {"data_url": self._pictures.data_url})
        self._syntax_problems: list[Problem] = []
        self._recipes: dict[str, str] = {}
        self._render = compile_value(job.request, ("request",), self._compile_text)
        self.columns = Columns(job, self._templates)
        self.where = Where(job, self._templates)
        self._by_turns = job.conversation is not None and job.conversation.turns is not None

    def problems(self, header: Sequence[str] | None) -> list[Problem]:
        """What is wrong with the templates and fields, whatever the row.

        `header` are the prompts' columns, if known.
        """
        job, templates = self._job, self._templates
        texts = strings_in(job.request, ("request",))
        problems = [*(self._syntax_problems or include_problems(job, templates, texts))]
        # Columns can be looked for only in templates that can be read.
        readable = not problems
        if self._kind:
            problems += field_problems(job, self._kind)
        if header is not None and readable:
            problems += column_problems(job, templates, header, self._by_turns)
        return problems + self.where.problems(header) + self.columns.problems(header)

    def signature(self) -> str:
        """A digest of everything in the job that pass 1 depends on, except the bytes of prompts and
        pictures.
        """
        job = self._job
        parts = (
            SCHEME,
            self._provider,
            job.kind,
            job.request,
            dict(job.matrix),
            job.conversation.model_dump() if job.conversation else None,
            job.prompts.model_dump(),
            self._included,
            job.output.prefix,
        )
        return hashlib.sha256(canonical(parts).encode()).hexdigest()

    def columns_signature(self) -> str | None:
        """A digest of everything in the job that the cells of `output.columns` depend on.

        None when these templates show pictures, because a picture's bytes are read only as its cell
        is made.
        """
        columns = self._job.output.columns
        included = self._included_by(columns)
        if any("data_url" in text for text in (*columns.values(), *included.values())):
            return None
        return hashlib.sha256(canonical([self.signature(), columns, included]).encode()).hexdigest()

    @cached_property
    def _included(self) -> dict[str, str]:
        """The texts of the files that the request includes, by name."""
        return self._included_by(self._job.request)

    def _included_by(self, part: Any) -> dict[str, str]:
        texts: dict[str, str] = {}
        for _, text in strings_in(part, ()):
            with suppress(Exception):  # `problems` reports a file that cannot be read
                texts |= self._templates.included(text)
        return texts

    @cached_property
    def reads_files(self) -> bool:
        """Whether making a request reads pictures: up to tens of megabytes, too slow for an event
        loop.
        """
        texts = (*(text for _, text in strings_in(self._job.request, ())), *self._included.values())
        return bool(self._kind and self._kind.file_fields) or any(
            "data_url" in text for text in texts
        )

    @cached_property
    def prompt_columns(self) -> frozenset[str]:
        """The columns that fill the prompt; none where rows are themselves requests."""
        if self._kind is None:
            return frozenset()
        return prompt_columns(self._job, self._kind, self._templates)

    def leaves_empty(self, columns: Values) -> bool:
        """Whether a row leaves the prompt empty: every one of `prompt_columns` is empty in it."""
        return are_empty(self.prompt_columns, columns)

    def kind_of(self, columns: Values) -> Kind | None:
        """The kind of a row's request: the job's, or the kind that the row's own url belongs to.

        None for a row that was staged when the job's rows were not requests.
        """
        return self._kind or KIND_BY_ENDPOINT.get(str(columns.get("url")).removeprefix(URL_PREFIX))

    def answer_format(self, columns: Values, axes: Axes) -> Values:
        """The fields of a row's request that say which format its answer has."""
        if self._kind is None:
            body = columns.get("body")
            return body if isinstance(body, Mapping) else {}
        row = {**columns, **axes}
        try:
            fields: Values = self._render_format({**row, "row": row})
        except RequestError:
            # The job may have changed since the row was staged.
            return {}
        return fields

    @cached_property
    def _render_format(self) -> Render:
        request = self._job.request
        fields = {name: request[name] for name in FORMAT_FIELDS if name in request}
        return compile_value(fields, ("request",), self._compile_text)

    def sets_field(self, columns: Values, name: str) -> bool:
        """Whether the user set this field of the body: in the job, or in a row that is itself a
        request.
        """
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
        """The request of one row and one combination of the matrix.

        Args:
            columns: the row's columns.
            axes: the values of the axes.
            turn: the user's turn, an element of the column that `conversation.turns` names.
            previous: the fingerprint of the turn before; empty for a first turn.
            row_id, outcome_id, turn_number: go into the request as they are.

        Raises RequestError, which names the key of the job file that the problem comes from.
        """
        kind = self.kind_of(columns)
        if kind is None or (self._kind is None and not isinstance(columns.get("body"), Mapping)):
            raise RequestError(
                ("prompts", "format"),
                "the row was staged before the job's rows were requests; run again",
            )
        if self._kind:
            body, uploads = self._rendered(kind, columns, axes, turn)
        else:
            body, uploads = own_body(kind, columns), ()
        try:
            text = canonical(body)
            identity = f"{self._recipe(kind, uploads, previous)}\n{text}".encode()
        except (TypeError, ValueError, RecursionError) as error:
            key_path = ("request",) if self._kind else ()
            raise RequestError(
                key_path, f"the rendered request is not JSON in UTF-8: {error}"
            ) from None
        bound, input_pictures = input_bound(body, text)
        return Request(
            id=row_id,
            outcome_id=outcome_id,
            axes=axes,
            turn=turn_number,
            fingerprint=hashlib.sha256(identity).digest(),
            endpoint=kind.endpoint,
            # What batchgen itself adds or changes is not in the fingerprint, so that a later
            # version may do it otherwise, and answers of an earlier one stay.
            body={**kind.defaults, **(numbers_as_texts(kind, body) if self._kind else body)},
            uploads=uploads,
            input_bound=bound,
            input_pictures=input_pictures,
            answer_bound=answer_bound(kind, body),
            pictures=count_of(body, "n") if kind.makes_images else 0,
            unbounded_by=unbounded_by(body, text),
        )

    def _rendered(
        self, kind: Kind, columns: Values, axes: Axes, turn: Any
    ) -> tuple[dict[str, Any], tuple[Upload, ...]]:
        """The body and the files of the job's request for one row. Raises RequestError."""
        row = {**columns, **axes}
        body = self._render({**row, "row": row, **({"turn": turn} if self._by_turns else {})})
        uploads = self._take_uploads(kind, body)
        check_rendered(kind, body)
        return body, uploads

    def _recipe(self, kind: Kind, uploads: Sequence[Upload], previous: bytes) -> str:
        """What the fingerprint is made of, besides the body."""
        if not uploads and not previous:
            # The usual case: the same for every row of an endpoint.
            if kind.endpoint not in self._recipes:
                self._recipes[kind.endpoint] = canonical(
                    [SCHEME, self._provider, kind.endpoint, [], ""]
                )
            return self._recipes[kind.endpoint]
        files = [[each.field, each.sha256] for each in uploads]
        return canonical([SCHEME, self._provider, kind.endpoint, files, previous.hex()])

    def recording_pictures(self) -> AbstractContextManager[list[PictureStamp]]:
        """A list that gets a stamp of every picture read while the block runs.

        The caller may take items out of it.

        Pass 1 is skipped only while all of these pictures are unchanged.
        """
        return self._pictures.recording()

    def _take_uploads(self, kind: Kind, body: dict[str, Any]) -> tuple[Upload, ...]:
        """Take the file fields out of the body, and find their files. Raises RequestError."""
        uploads: list[Upload] = []
        for name in kind.file_fields:
            value = body.pop(name, None)
            if value is not None or name in kind.required:
                uploads += self._pictures.uploads(name, value)
        return tuple(uploads)

    def _compile_text(self, text: str, key_path: KeyPath) -> Render:
        try:
            render = self._templates.compile(text)
        except TemplateError as error:
            problem = self._job.problem(key_path, f"{dotted(key_path)}: {error}")
            self._syntax_problems.append(problem)
            return lambda values: None

        def rendered(values: Values) -> Any:
            try:
                return render(values)
            except TemplateError as error:
                raise RequestError(key_path, str(error)) from None

        return rendered


def _files_folder(job: Job, given: Path | None) -> Path:
    """The folder below which rows may name files."""
    if job.prompts.files is not None:
        return (job.folder / job.prompts.files).resolve()
    prompts = job.prompts_path
    return (prompts.parent if prompts is not None else given or job.folder).resolve()
