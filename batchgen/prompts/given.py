"""Rows that a caller in Python gives -> rows: a pandas DataFrame, or dicts or texts one by one."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from batchgen.errors import InputError, Problem
from batchgen.prompts.batchfile import batch_row
from batchgen.prompts.objects import plain_object
from batchgen.prompts.reader import Dialect, PromptsFile
from batchgen.prompts.rows import RawRow, RowError

if TYPE_CHECKING:
    import pandas

GivenRows: TypeAlias = "pandas.DataFrame | Iterable[Mapping[str, Any] | str]"

# Rows of a DataFrame that are in memory as dicts at once.
_ROWS = 256
_NAME = "prompts"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def open_given(
    rows: GivenRows, *, requests: bool = False, bad_rows: Literal["refuse", "fail"] = "refuse"
) -> PromptsFile:
    """Open rows that come from no file; messages name them `prompts`, and a row by its number.

    Args:
        rows: a pandas DataFrame, or an iterable of dicts or of texts (each a `prompt`), which is
            iterated once.
        requests: whether each row is itself a request, as the Batch API's files have them.
        bad_rows: as in `open_prompts`.

    Raises InputError when they are no such rows, or two columns have one name.
    """
    frame = hasattr(rows, "iloc") and hasattr(rows, "columns")
    header = _header(rows) if frame else None
    items = _records(rows, header) if header is not None else _iterated(rows)
    digest = hashlib.sha256()
    return PromptsFile(
        Dialect(format="jsonl", delimiter="", encoding="utf-8", bom=False, header=header),
        _rows(items, digest.update, requests=requests),
        digest.hexdigest,
        None,
        display_name=_NAME,
        forgive=bad_rows == "fail",
        closing=ExitStack(),
    )


def _iterated(rows: Any) -> Iterator[Any]:
    if isinstance(rows, str | bytes | Mapping) or hasattr(rows, "__fspath__"):
        file = "" if isinstance(rows, Mapping) else "; a file is named by the job's prompts.path"
        raise _refusal(f"must be rows, and is one {type(rows).__name__}{file}")
    try:
        return iter(rows)
    except TypeError:
        raise _refusal(
            f"must be a pandas DataFrame or an iterable of dicts, not {type(rows).__name__}"
        ) from None


def _refusal(message: str) -> InputError:
    return InputError([Problem(path=_NAME, message=message)])


def _header(frame: Any) -> tuple[str, ...]:
    """The names of a DataFrame's columns; those of its index come first, where it has names."""
    names: list[str] = []
    for name in (*_index_names(frame), *frame.columns):
        if isinstance(name, tuple):
            raise _refusal(
                f"has columns of several levels, such as {name!r}; give each one name, for example "
                "with: frame.columns = frame.columns.map('_'.join)"
            )
        names.append(unicodedata.normalize("NFC", str(name)))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _refusal(f"has two columns with the name {twice[0]!r}; rename one")
    return tuple(names)


def _index_names(frame: Any) -> list[Any]:
    return [name for name in frame.index.names if name is not None]


def _records(frame: Any, header: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The rows of a DataFrame, a few at a time."""
    index = _index_names(frame)
    for start in range(0, len(frame), _ROWS):
        some = frame.iloc[start : start + _ROWS]
        columns = [some.index.get_level_values(name).tolist() for name in index]
        columns += [some.iloc[:, at].tolist() for at in range(some.shape[1])]
        for cells in zip(*columns, strict=True):
            yield dict(zip(header, cells, strict=True))


def _rows(
    items: Iterable[Any], update: Callable[[bytes], object], *, requests: bool
) -> Iterator[RawRow]:
    """The rows of items; `update` gets each of them as bytes that tell it from any other."""
    for number, item in enumerate(items, start=1):
        try:
            columns = _columns(item)
            update(_encode(columns).encode())
            yield batch_row(number, columns) if requests else (number, columns, None)
        except RowError as fault:
            yield number, {}, fault
        except UnicodeEncodeError:
            yield number, {}, RowError("a text holds half of a character; write it whole")
        except ValueError:  # Python's own bound on the digits of an int
            yield number, {}, RowError("a number has too many digits; write it as text")


def _columns(item: Any) -> dict[str, Any]:
    """The columns of one item. Raises RowError."""
    if isinstance(item, str):
        return {"prompt": str(item)}
    if not isinstance(item, Mapping):
        raise RowError(f'expected a dict such as {{"prompt": "…"}}, found {type(item).__name__}')
    return plain_object(item.items())
