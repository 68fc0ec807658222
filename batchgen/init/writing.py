"""The steps of `init`; at its end the job is written, and `plan` accepts it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write
from batchgen.errors import InputError, Problem, did_you_mean, listed
from batchgen.init.conversations import messages_of, turns_of
from batchgen.init.findings import findings
from batchgen.init.identity import id_column_of, names_things
from batchgen.init.job_text import job_text
from batchgen.init.layout import Layout, layout_of
from batchgen.init.options import InitOptions
from batchgen.init.shape import Shape
from batchgen.init.survey import Survey
from batchgen.init.texts import is_results_table, prompt_column, text_of
from batchgen.job import Job, load_job
from batchgen.planner import plan
from batchgen.prompts.batchfile import FIELDS
from batchgen.prompts.charset import guess_encoding
from batchgen.prompts.formats import FileName
from batchgen.tables import conflicts
from batchgen.workspace import Workspace

EXAMPLE = """id,product,facts
p1,Enamel kettle,"1.5 litres, whistles, works on every stove"
p2,Linen apron,"two pockets, adjustable neck, washable at 60 degrees"
p3,Cast-iron pan,"28 cm, pre-seasoned, for oven and open fire"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What `write_job` did.

    path: the job file.
    findings: lines about the prompts, for a person.
    requests: the prompts file, where each of its rows is itself a request; else None.
    """

    path: Path
    findings: tuple[str, ...]
    requests: Path | None


def write_job(prompts: Path | None, options: InitOptions | None = None) -> Written:
    """Write a job for a prompts file beside it (None: an example with its own file in jobs/).

    Raises InputError when such a file exists already, the prompts cannot be read, or no job for
    them could run; then no job is written.
    """
    options = options or InitOptions()
    if prompts is None:
        prompts = Path("jobs") / "example.csv"
        path = prompts.with_suffix(".yaml")
        _refuse_existing(prompts, path)
        prompts.parent.mkdir(exist_ok=True)
        with atomic_write(prompts) as file:
            file.write(EXAMPLE)
    else:
        path = prompts.parent / f"{_stem(prompts)}.yaml"
        _refuse_existing(path)
    proof: tuple[str, ...] = ()
    if options.encoding is None and (guess := guess_encoding(prompts)) is not None:
        options, proof = replace(options, encoding=guess.encoding), guess.proof
    layout = _layout(prompts, options)
    found, options = layout.survey, layout.options
    shape, id_column = _understand(found, options)
    try:
        made = _write(path, found, shape, options, id_column)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    lines = findings(layout, shape, id_column=id_column, proof=proof, **made)
    return Written(path=path, findings=tuple(lines), requests=prompts if shape.requests else None)


def _layout(prompts: Path, options: InitOptions) -> Layout:
    """What the file holds, and how it is read. Raises InputError in the words of `init`."""
    try:
        return layout_of(prompts, options)
    except InputError as error:
        raise InputError(
            [replace(each, message=_by_option(each.message)) for each in error.problems],
            found=error.found,
        ) from None


def _by_option(message: str) -> str:
    """A reader's message with the options of `init` in place of the keys of a job."""
    return re.sub(
        r"prompts\.(format|delimiter|encoding|sheet|skip_lines|skip_rows)(: (?=\w))?",
        lambda key: f"--{key[1].replace('_', '-')}" + (" " if key[2] else ""),
        message,
    )


def _understand(found: Survey, options: InitOptions) -> tuple[Shape, str | None]:
    """What the rows are, and the column that names them. Raises InputError."""
    for name in (*options.prompt, *([options.id] if options.id else [])):
        if name not in found.columns:
            names = list(found.columns)
            message = f"has no column {name!r} (columns: {listed(names)})"
            raise InputError(
                [Problem(path=str(found.path), message=message + did_you_mean(name, names))]
            )
    shape, whole = None, prompt_column(found)
    if not options.prompt and options.kind is None and _are_requests(found):
        return Shape(found="each row is a request, as the Batch API has them", requests=True), None
    talk = options.kind in (None, "chat", "text") and not is_results_table(found)
    if talk and not options.prompt:
        shape = messages_of(found)
        if shape is None and options.kind != "text" and whole is None:
            shape = turns_of(found)
    prompt = shape.columns if shape else options.prompt or ([whole.name] if whole else [])
    id_column = options.id or id_column_of(found, prompt)
    if shape is None:
        only_names = [id_column] if id_column and not names_things(id_column) else []
        shape = text_of(found, options, only_names)
    if options.kind == "image_edit" and shape.picture is None:
        reasons = "; ".join(shape.unsure) or "no column names picture files in every row"
        raise InputError([Problem(path=str(found.path), message=f"kind image_edit: {reasons}")])
    return shape, id_column


def _are_requests(found: Survey) -> bool:
    return all(
        name in found.columns and found.columns[name].filled == found.rows for name in FIELDS
    )


def _write(
    path: Path, found: Survey, shape: Shape, options: InitOptions, id_column: str | None
) -> dict[str, Any]:
    """Write the job, and plan it; returns what was found out thereby, as `findings` takes it.

    - `path`, `found`, `shape`, `options`, `id_column`: the job, and what it is made of

    Raises InputError when the job cannot be planned.
    """
    text = partial(job_text, path, found.path, options, shape, id_column=id_column)

    def write(**parts: Any) -> Job:
        with atomic_write(path) as file:
            file.write(text(**parts))
        return load_job(path)

    job = write(skips=False, prefix=None, capped=False)
    renderer = Workspace.of(job, simulate=True).renderer
    left_out = sum(map(renderer.leaves_empty, found))
    prefix = _prefix(found) if conflicts(job, list(found.columns)) else None
    capped = not shape.requests
    try:
        plan(write(skips=bool(left_out), prefix=prefix, capped=capped), simulate=True)
    except InputError as error:
        # A cap needs a price, and a server of one's own may have none.
        try:
            plan(write(skips=bool(left_out), prefix=prefix, capped=False), simulate=True)
        except InputError:
            raise error from None
        capped = False
    return {"left_out": left_out, "prefix": prefix, "capped": capped or shape.requests}


def _prefix(found: Survey) -> str:
    """A prefix that no column of the file has."""
    prefix = "bg_"
    while any(name.startswith(prefix) for name in found.columns):
        prefix = f"_{prefix}"
    return prefix


def _refuse_existing(*paths: Path) -> None:
    problems = [
        Problem(path=str(path), message="exists already; edit it or remove it")
        for path in paths
        if path.exists()
    ]
    if problems:
        raise InputError(problems)


def _stem(prompts: Path) -> str:
    """A job's name, from the prompts file's: as much of it as can name a folder."""
    letters = (
        unicodedata.normalize("NFKD", FileName.of(prompts.name).stem)
        .encode("ascii", "ignore")
        .decode()
    )
    name = re.sub(r"\.simulated$", "", re.sub(r"[^\w.-]+", "-", letters), flags=re.IGNORECASE)
    return name.strip("-.")[:80] or "job"
