"""Pass 1: prompts -> requests -> the journal's rows, once, so that everything wrong is known before anything is sent.

All or nothing: problems leave the journal as it was. While the files and the job are unchanged, the pass is skipped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any, BinaryIO, Literal

from batchgen.errors import SHOWN, InputError, Problem
from batchgen.job import Job
from batchgen.journal import Journal
from batchgen.journal.records import digest_of
from batchgen.pricing import Prices
from batchgen.prompts import Dialect, Prompt, file_digest, open_prompts
from batchgen.replies import Usage
from batchgen.requests import (
    USUAL_PICTURE,
    Axes,
    Mark,
    Renderer,
    Request,
    RequestError,
    canonical,
    combinations,
    no_column,
    unchanged,
)
from batchgen.staging.rows import Expected, StagingTables, kept_prompts

# Tokens that an answer without a cap is expected to have, and bytes that make a token, for forecasts only.
USUAL_ANSWER = 256
BYTES_PER_TOKEN = 4

# Pictures that are noted under one name in the journal, so that no number of them fills the memory.
PICTURES = 1000

Check = Callable[[Sequence[str]], list[Problem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPrompts:
    """What pass 1 left in the journal: the prompts' columns in order and their dialect, and what they were made of;
    `pictures` counts the pages of PICTURES files that lie beside it, `job` is the job file's path; `draws` says that there
    are requests for pictures."""

    signature: str
    source: str
    digest: str
    format: Literal["csv", "tsv", "jsonl", "txt", "openai-batch"]
    delimiter: str
    bom: bool
    header: list[str]
    capped: bool
    pictures: int = 0
    job: str = ""
    draws: bool = True


def staged(journal: Journal) -> StagedPrompts | None:
    """What the last pass 1 left, or None."""
    kept = journal.meta("staged")
    # Another version may have kept other things too.
    return (
        StagedPrompts(
            **{each.name: kept[each.name] for each in fields(StagedPrompts) if each.name in kept}
        )
        if kept
        else None
    )


def is_current(job: Job, journal: Journal, signature: str, *, capped: bool) -> bool:
    """Whether the rows in the journal are those that pass 1 would make of the job, whose `signature` it is, and of the
    files as they are now. Prompts from a stream are those that came last."""
    last, path = staged(journal), job.prompts_path
    if last is None or (capped and not last.capped) or last.signature != signature:
        return False
    if path is not None and not (path.is_file() and last.digest == file_digest(path)):
        return False
    pages = (journal.meta(f"pictures {page}") for page in range(last.pictures))
    return all(page is not None and unchanged(page) for page in pages)


def signature_of(job: Job, renderer: Renderer, base_url: str) -> str:
    """A digest of everything that pass 1 and its forecast depend on, the prompts excepted, and of how its pictures are
    noted. What a request costs is found by its server's `base_url` and by what genai-prices knows of it."""
    pricing = {model: price.model_dump() for model, price in job.pricing.items()}
    prices = [pricing, base_url, version("genai-prices")]
    return digest_of(
        canonical([renderer.signature(), prices, list(job.output.columns), PICTURES])
    ).hex()


def _keep(journal: Journal, pages: int, pictures: list[Mark]) -> int:
    """Note the next page of pictures, if there are any, and empty the list; returns how many pages there are then."""
    if not pictures:
        return pages
    if not journal.shadowed:
        journal.keep(f"pictures {pages}", pictures)
    pictures.clear()
    return pages + 1


def has_more(stream: BinaryIO) -> bool:
    """Whether a stream of prompts brings any: a terminal, or an empty pipe as under cron, does not."""
    if stream.isatty():
        return False
    peek = getattr(stream, "peek", None)
    return bool(peek(1)) if peek is not None else True


def _uncut(header: Sequence[str]) -> str:
    """A hint when a header looks as if another delimiter would cut it."""
    uncut = len(header) == 1 and any(mark in header[0] for mark in ",;\t|")
    return "; the header came out as one column: is prompts.delimiter right?" if uncut else ""


class Stager:
    """One pass over the prompts. `signature` is the job's; `check` finds problems in the header; with `capped` a request
    without a bound on its cost is a problem."""

    def __init__(
        self,
        job: Job,
        renderer: Renderer,
        prices: Prices,
        signature: str,
        *,
        check: Check,
        capped: bool,
    ) -> None:
        self._job, self._renderer, self._prices, self._signature = job, renderer, prices, signature
        self._check, self._capped = check, capped
        self._combinations = combinations(job.matrix)
        self._problems: list[Problem] = []
        self._found = 0
        self._told: set[str] = set()
        self._draws = False
        self._shown = job.prompts.path

    def read(self, journal: Journal, stream: BinaryIO | None = None) -> StagedPrompts:
        """Stage everything in one transaction. Raises InputError with every problem, the journal left as it was."""
        prompts = self._job.prompts
        path = self._job.prompts_path
        if problems := self._renderer.problems(None):
            raise InputError(problems)
        with (
            open_prompts(
                path,
                stream=stream,
                shown=self._shown,
                format=prompts.format,
                delimiter=prompts.delimiter,
                encoding=prompts.encoding,
                bad_rows=prompts.bad_rows,
            ) as file,
            journal.transaction() as connection,
        ):
            return self._stage(file, file.dialect, lambda: file.digest, connection, journal)

    def read_again(self, journal: Journal) -> StagedPrompts:
        """Stage anew the prompts that the journal holds, those of a stream that is gone, for a job that has changed.
        Raises InputError, also when it holds none."""
        last = staged(journal)
        if last is None or last.source != "-":
            raise InputError(
                "stdin: is empty, and prompts.path is '-'; pipe the prompts into batchgen"
            )
        if problems := self._renderer.problems(None):
            raise InputError(problems)
        dialect = Dialect(
            format=last.format,
            delimiter=last.delimiter,
            encoding="utf-8",
            bom=last.bom,
            header=tuple(last.header),
        )
        with journal.transaction() as connection:
            return self._stage(
                kept_prompts(connection), dialect, lambda: last.digest, connection, journal
            )

    def _stage(
        self,
        prompts: Iterable[Prompt],
        dialect: Dialect,
        digest: Callable[[], str],
        connection: sqlite3.Connection,
        journal: Journal,
    ) -> StagedPrompts:
        if dialect.header is not None and (problems := self._header(dialect.header)):
            raise InputError(problems)
        staging = StagingTables(connection, self._doubled)
        header: dict[str, None] = dict.fromkeys(dialect.header or ())
        pages = 0
        try:
            with self._renderer.noting() as pictures:
                for prompt in prompts:
                    header.update(dict.fromkeys(prompt.columns))
                    self._take(prompt, staging)
                    if len(pictures) >= PICTURES:
                        pages = _keep(journal, pages, pictures)
                pages = _keep(journal, pages, pictures)
        except InputError as error:
            self._problems += error.problems
            self._found += error.found
        # Where the file ends before its end, too: what came before may be wrong as well.
        staging.flush()
        if dialect.header is None and not self._problems:
            self._problems += self._header(tuple(header))
        if self._problems:
            ordered = sorted(self._problems, key=lambda problem: (problem.path, problem.line))
            raise InputError(ordered, found=max(self._found, len(ordered)))
        staging.adopt()
        result = StagedPrompts(
            signature=self._signature,
            source=self._shown,
            digest=digest(),
            format=dialect.format,
            delimiter=dialect.delimiter,
            bom=dialect.bom,
            header=list(header),
            job=str(self._job.path),
            capped=self._capped,
            pictures=pages,
            draws=self._draws,
        )
        if not journal.shadowed:
            journal.keep("staged", asdict(result))
        return result

    def _header(self, header: Sequence[str]) -> list[Problem]:
        job = self._job
        wanted: list[tuple[tuple[str, ...], str | None]] = [(("prompts", "id"), job.prompts.id)]
        if job.conversation is not None:
            wanted += [
                (("conversation", "id"), job.conversation.id),
                (("conversation", "turns"), job.conversation.turns),
            ]
        lacking = [
            job.problem(place, f"{'.'.join(place)}: {no_column(name, header)}{_uncut(header)}")
            for place, name in wanted
            if name is not None and name not in header
        ]
        doubled = [
            job.problem(
                ("matrix", axis),
                f"matrix.{axis}: the prompts have a column of this name; rename one of them",
            )
            for axis in job.matrix
            if axis in header
        ]
        return [*lacking, *doubled, *self._renderer.problems(header), *self._check(header)]

    def _take(self, prompt: Prompt, staging: StagingTables) -> None:
        identity, error = self._identity(prompt)
        error = prompt.error or error
        staging.prompt(prompt, None if error else identity)
        if error and self._job.prompts.bad_rows == "refuse":
            self._add(error, prompt.line)
            return
        for axes in self._combinations:
            if error and self._job.prompts.id:
                staging.nameless(prompt.n, axes, self._place(prompt, axes, staging), error)
            elif error:
                staging.broken(prompt.n, None, axes, self._place(prompt, axes, staging), error)
            else:
                self._threads(prompt, identity, axes, staging)

    def _doubled(self, identity: str, line: int, first: int) -> None:
        # Refused even when broken rows may fail: neither is the wrong one.
        self._add(f"{self._job.prompts.id} {identity!r} is the id of line {first} already", line)

    def _identity(self, prompt: Prompt) -> tuple[str | None, str | None]:
        name = self._job.prompts.id
        if name is None or prompt.error:
            return None, None
        value = prompt.columns.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            return None, f"{name} (prompts.id) is empty or no plain value; every row needs an id"
        return str(value), None

    def _place(self, prompt: Prompt, axes: Axes, staging: StagingTables) -> tuple[str, int] | None:
        """The conversation and turn of a row, as far as it can be read: a broken turn blocks those after it."""
        column = self._job.conversation.id if self._job.conversation else None
        thread = prompt.columns.get(column) if column else None
        if thread in (None, ""):
            return None
        name = f"thread {thread}"
        return name, staging.previous(name, axes)[1] + 1

    def _threads(
        self, prompt: Prompt, identity: str | None, axes: Axes, staging: StagingTables
    ) -> None:
        conversation = self._job.conversation
        if conversation is None:
            self._request(prompt, identity, axes, staging)
        elif conversation.id is not None:
            thread = prompt.columns.get(conversation.id)
            if thread in (None, ""):
                self._fail(
                    prompt, identity, axes, staging, f"{conversation.id} (conversation.id) is empty"
                )
                return
            name = f"thread {thread}"
            previous, turn = staging.previous(name, axes)
            self._request(
                prompt, identity, axes, staging, thread=(name, turn + 1), previous=previous
            )
        else:
            self._turns(
                prompt, identity, axes, staging, prompt.columns.get(conversation.turns or "")
            )

    def _turns(
        self, prompt: Prompt, identity: str | None, axes: Axes, staging: StagingTables, turns: Any
    ) -> None:
        if not isinstance(turns, list) or not turns:
            self._fail(
                prompt,
                identity,
                axes,
                staging,
                "the turns column (conversation.turns) is no list of turns",
            )
            return
        previous = b""
        for number, turn in enumerate(turns, 1):
            name = f"row {prompt.n}"
            fingerprint = self._request(
                prompt, identity, axes, staging, thread=(name, number), turn=turn, previous=previous
            )
            if fingerprint is None:
                break
            previous = fingerprint
        if identity is None:
            staging.name_thread(f"row {prompt.n}", axes)

    def _request(
        self,
        prompt: Prompt,
        identity: str | None,
        axes: Axes,
        staging: StagingTables,
        *,
        thread: tuple[str, int] | None = None,
        turn: Any = None,
        previous: bytes = b"",
    ) -> bytes | None:
        try:
            request = self._renderer.request(
                prompt.columns,
                axes,
                turn=turn,
                previous=previous,
                number=thread[1] if thread else 0,
            )
        except RequestError as fault:
            place = (
                f" ({self._job.shown}:{self._job.where(*fault.location)[0]})"
                if fault.location
                else ""
            )
            self._fail(prompt, identity, axes, staging, f"{fault}{place}", thread)
            return None
        self._draws |= request.pictures > 0
        expected = self._expected(request)
        if self._capped and expected.cost_bound is None:
            self._unbounded(request)
        staging.row(prompt.n, identity, request, thread[0] if thread else None, expected)
        return request.fingerprint

    def _expected(self, request: Request) -> Expected:
        inside = request.text_bytes // BYTES_PER_TOKEN + request.shown * USUAL_PICTURE
        outside = USUAL_ANSWER if request.answer_bound is None else request.answer_bound
        usage = Usage(input_tokens=inside, output_tokens=outside)
        model = str(request.body.get("model", ""))
        bound = self._prices.bound(request)
        cost = bound if request.pictures else self._prices.cost(model, usage)
        return Expected(tokens=inside + outside, cost=cost, cost_bound=bound)

    def _unbounded(self, request: Request) -> None:
        """Say, once, which field a cap on money lacks."""
        message = self._prices.lacking(request)
        if message not in self._told:
            self._told.add(message)
            self._problems.append(
                self._job.problem(("limits", "max_cost"), f"a cap on cost needs {message}")
            )
            self._found += 1

    def _fail(
        self,
        prompt: Prompt,
        identity: str | None,
        axes: Axes,
        staging: StagingTables,
        message: str,
        thread: tuple[str, int] | None = None,
    ) -> None:
        if self._job.prompts.bad_rows == "fail":
            staging.broken(prompt.n, identity, axes, thread, message)
        else:
            self._add(message, prompt.line)

    def _add(self, message: str, line: int) -> None:
        self._found += 1
        if len(self._problems) < SHOWN:
            self._problems.append(Problem(path=self._shown, line=line, message=message))
