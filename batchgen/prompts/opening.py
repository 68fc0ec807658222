"""A path or a stream -> an open prompts file: finds out its format, and its reader."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from batchgen.errors import InputError
from batchgen.prompts.batchfile import read_batch
from batchgen.prompts.delimited import read_csv, read_tsv
from batchgen.prompts.documents import read_json
from batchgen.prompts.formats import BINARY, MAGIC_BYTES, FileName, check_bytes, unknown_ending
from batchgen.prompts.lines import Lines
from batchgen.prompts.options import DEFAULTS, TableOptions
from batchgen.prompts.parquet import read_parquet
from batchgen.prompts.reader import Dialect, PromptsFile
from batchgen.prompts.records import read_jsonl, read_txt
from batchgen.prompts.rows import FileError, RawTable
from batchgen.prompts.sheets import read_sheet
from batchgen.prompts.sources import Hashed, open_file, unpacked, unreadable

_READERS: dict[str, Callable[[Any, TableOptions], RawTable]] = {
    "csv": read_csv,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "txt": read_txt,
    "json": read_json,
    # Those of BINARY take the file itself, and not its lines.
    "parquet": read_parquet,
    "xlsx": read_sheet,
    "ods": read_sheet,
    # Never chosen by the file's name: a file of requests ends in .jsonl like any other.
    "openai-batch": read_batch,
}
_SPREADSHEETS = ("xlsx", "ods")
# The formats that each option of TableOptions is for.
_OPTIONS = {
    "delimiter": ("csv",),
    "sheet": _SPREADSHEETS,
    **dict.fromkeys(
        ("skip_lines", "header", "skip_rows", "duplicate_headers"), ("csv", "tsv", *_SPREADSHEETS)
    ),
}


def open_prompts(
    path: Path | None,
    *,
    stream: BinaryIO | None = None,
    display_name: str,
    format: str | None = None,  # noqa: A002 - the job file's own word
    encoding: str | None = None,
    bad_rows: Literal["refuse", "fail"] = "refuse",
    table: TableOptions = DEFAULTS,
    on_lines: Callable[[int], None] | None = None,
) -> PromptsFile:
    """Open a prompts file, or read prompts from a stream.

    Args:
        path: the file.
        stream: read instead of a file; it is never closed here, and needs a `format`.
        display_name: the name of the file in messages.
        format: one of PromptsFormat; by default the file's name decides.
        encoding: Python's name of it; by default the byte order mark, else UTF-8.
        bad_rows: "fail" makes a broken row a Prompt with an `error`; "refuse" makes it a problem.
        table: how the table in the file is written.
        on_lines: called every now and then with how many lines of a text were read.

    Raises InputError when the file cannot be read, its header is wrong, or an argument does not
    fit.
    """
    try:
        name = FileName.of(path.name if path else "")
        kind = format or name.format or _no_format(path)
        _check_arguments(kind, name.packing, stream, encoding, table)
        with ExitStack() as closing:
            if stream is None:
                if path is None:
                    raise InputError("the prompts need a path or a stream")
                stream = closing.enter_context(open_file(path, display_name))
            hashed, lines = Hashed(stream), None
            if kind in BINARY:
                layout = _read_binary(hashed, kind, table)
            else:
                text = unpacked(hashed, name.packing)
                lines = Lines(text, encoding, on_lines, skip_lines=table.skip_lines)
                layout = _READERS[kind](lines, table)
            return PromptsFile(
                Dialect(
                    format=kind,  # type: ignore[arg-type]  # a key of _READERS
                    delimiter=layout.delimiter,
                    encoding=lines.encoding if lines else "utf-8",
                    bom=lines.bom if lines else kind in _SPREADSHEETS,
                    header=layout.header,
                    sheets=layout.sheets,
                ),
                layout.rows,
                hashed.sha256.hexdigest,
                lines,
                display_name=display_name,
                forgive=bad_rows == "fail",
                closing=closing.pop_all(),
            )
    except FileError as fault:
        raise InputError(fault.problems(display_name)) from None


def _no_format(path: Path | None) -> NoReturn:
    if path is None:
        raise InputError(
            "prompts from a stream have no name to tell their format by; "
            f"set prompts.format to one of {', '.join(_READERS)}"
        )
    raise unknown_ending(path.name)


def _read_binary(hashed: Hashed, kind: str, table: TableOptions) -> RawTable:
    file = hashed.whole()
    try:
        check_bytes(file.read(MAGIC_BYTES) or b"", kind)
        file.seek(0)
    except OSError as error:
        raise unreadable(error, 0) from None
    return _READERS[kind](file, table)


def _check_arguments(
    kind: str, packing: str, stream: BinaryIO | None, encoding: str | None, table: TableOptions
) -> None:
    """Raise FileError when the arguments of `open_prompts` do not fit the format or each other.

    `kind` is the format, `packing` the ending of a compression; `stream`, `encoding` and `table`
    are those of `open_prompts`.
    """
    if kind not in _READERS:
        raise FileError(0, f"prompts.format {kind!r} is unknown; there are {', '.join(_READERS)}")
    shown = kind.upper()
    if kind in BINARY and stream is not None:
        raise FileError(0, f"{shown} cannot come from a stream; name the file in prompts.path")
    if kind in BINARY and packing:
        raise FileError(0, f"{shown} is not read from a {packing}; unpack it")
    if kind in BINARY and encoding is not None:
        raise FileError(0, f"prompts.encoding is for text, and this is {shown}; remove it")
    for field in fields(table):
        value = getattr(table, field.name)
        if value != field.default and kind not in _OPTIONS[field.name]:
            if field.name == "delimiter" and kind == "tsv" and value == "\t":
                continue
            formats = ", ".join(_OPTIONS[field.name]).upper()
            raise FileError(
                0, f"prompts.{field.name} is for {formats} only, and this is {shown}; remove it"
            )
    delimiter = table.delimiter
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise FileError(
            0, f"prompts.delimiter must be one character, no quote or line end, not {delimiter!r}"
        )
