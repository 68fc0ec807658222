"""The text of the job file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from batchgen.init.names import expression, printable, quoted
from batchgen.init.options import InitOptions
from batchgen.init.shape import Shape

# For each kind a model, and the lines that keep an answer's cost within bounds.
_MODELS = {
    "chat": "gpt-5.6-luna",
    "text": "gpt-5.6-luna",
    "completion": "davinci-002",
    "image": "gpt-image-2",
    "image_edit": "gpt-image-1-mini",
    "embedding": "text-embedding-3-small",
    "moderation": "omni-moderation-latest",
}
_CAPS = {
    "chat": "max_completion_tokens: 1000  # the model's thinking counts too",
    "text": "max_output_tokens: 1000      # the model's thinking counts too",
    "completion": "max_tokens: 500",
}
# The field of each kind that holds the prompt, where it is not a list of messages.
_FIELDS = {
    "text": "input",
    "completion": "prompt",
    "image": "prompt",
    "image_edit": "prompt",
    "embedding": "input",
    "moderation": "input",
}
_HINT = "# Put what you want from the model in your own words around the cells."


def job_text(
    path: Path,
    prompts: Path,
    options: InitOptions,
    shape: Shape,
    *,
    id_column: str | None,
    skips: bool,
    prefix: str | None,
    capped: bool,
) -> str:
    """The job at `path` for a prompts file beside it.

    Args:
        path: the job file.
        prompts: the prompts file.
        options: what the user said; its encoding is what the file is read in.
        shape: what the rows are.
        id_column: names the rows, None for none.
        skips: whether rows with an empty prompt are to be left out.
        prefix: of batchgen's own columns, None for none.
        capped: whether its cost has a cap.
    """
    kind = options.kind or "chat"
    lines = [
        f"# The rows of {printable(prompts.name)}, each sent as one request. To see what would be "
        "sent:",
        f"#   batchgen plan {printable(shlex.quote(str(path)))}",
    ]
    if not shape.requests:
        lines.append(
            f"{f'kind: {kind}':30} # or {', '.join(each for each in _MODELS if each != kind)}"
        )
    lines += ["prompts:", f"  path: {quoted(prompts.name)}"]
    lines += [f"  {line}" for line in _prompts(options, shape, id_column, skips)]
    if not shape.requests:
        lines += [
            "request:                       # the API's own request body; {{ column }} is filled "
            "in from each row",
            *(f"  {line}" for line in _request(kind, shape)),
        ]
    if shape.turns:
        lines.append(f"conversation: {{turns: {quoted(shape.turns)}}}")
    lines += ["limits:", "  concurrency: 16"]
    if capped:
        lines.append("  max_cost: 1.00               # USD over all runs; never exceeded")
    if kind in ("image", "image_edit") and not shape.requests:
        lines += [
            "pricing:",
            f"  {_MODELS[kind]}: {{image: 0.10}}  # USD for one picture; check the price list",
        ]
    lines += _output(shape, prefix)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _prompts(
    options: InitOptions, shape: Shape, id_column: str | None, skips: bool
) -> Iterator[str]:
    """The lines of the section `prompts` below its path."""
    if shape.requests:
        yield "format: openai-batch         # each row is a request, with its own kind and model"
    elif options.format:
        yield f"format: {options.format}"
    if id_column is not None and not shape.requests:
        yield f"id: {quoted(id_column)}"
    for each in fields(options.table):
        value = getattr(options.table, each.name)
        if value != each.default:
            yield f"{each.name}: {json.dumps(value)}"
    if options.encoding:
        yield f"{f'encoding: {options.encoding}':28} # is every letter right in `batchgen plan`?"
    if skips:
        yield "empty: skip                  # rows with an empty prompt are left out"


def _request(kind: str, shape: Shape) -> Iterator[str]:
    """The lines of the request."""
    yield f"model: {_MODELS[kind]}"
    if shape.messages is not None:
        yield f"{'messages' if kind == 'chat' else 'input'}: {quoted(_tag(shape.messages))}"
    elif kind == "chat":
        yield "messages:"
        if shape.system:
            yield f"  - {{role: system, content: {quoted(_tag(expression(shape.system)))}}}"
        yield "  - role: user"
        yield from (f"  {line}" for line in _content(shape))
    else:
        if shape.system:
            yield f"instructions: {quoted(_tag(expression(shape.system)))}"
        if shape.picture is not None:
            yield f"image: {quoted(_tag(expression(shape.picture.name)))}"
        yield _HINT
        yield f"{_FIELDS[kind]}: |"
        yield from _block(shape.lines)
    for name, value in shape.passed.items():
        yield f"{name}: {quoted(_tag(value))}"
    if kind in _CAPS:
        yield _CAPS[kind]


def _content(shape: Shape) -> Iterator[str]:
    """The content of the user's message."""
    if shape.picture is None:
        yield f"  {_HINT}"
        yield "  content: |"
        yield from (f"  {line}" for line in _block(shape.lines))
        return
    name = expression(shape.picture.name)
    url = name if shape.picture.all("picture_url") else f"{name} | data_url"
    yield "  content:"
    yield "    - type: text"
    yield f"      {_HINT}"
    yield "      text: |"
    yield from (f"      {line}" for line in _block(shape.lines))
    yield f"    - {{type: image_url, image_url: {{url: {quoted(_tag(url))}}}}}"


def _block(lines: Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _tag(value: str) -> str:
    return f"{{{{ {value} }}}}"


def _output(shape: Shape, prefix: str | None) -> Iterator[str]:
    if shape.requests or prefix is not None:
        yield "output:"
    if shape.requests:
        yield "  tables: [csv, openai-batch]"
    if prefix is not None:
        yield (
            f'  prefix: "{prefix}"               # a column of the file has the name of one of '
            "batchgen's own"
        )
