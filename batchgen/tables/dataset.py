"""The results table as a data set for the `datasets` library of Hugging Face.

The folder has one Parquet file, with the pictures in it, and a card:
https://huggingface.co/docs/hub/datasets-manual-configuration
https://huggingface.co/docs/hub/datasets-cards
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchgen.disk import atomic_write, temporary_folder, translating_errors
from batchgen.errors import InputError
from batchgen.escapes import one_line
from batchgen.tables.formats import WRITERS, ColumnType, Picture, Record, TableFile

# The path of a picture in the output folder.
_PICTURE = re.compile(r"images/(?!\.)[^/\0]+")

# Lines that are read together when pictures are put in: each may have megabytes.
_GROUP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """What the card of a data set says.

    Attributes:
        name: the job's.
        kind: the kind of its requests.
        prompts: the name of the prompts file.
        models: those that answered, or the one that was asked.
        rows: lines of the table by status.
        began, ended: when the first and the last answer came, in seconds since 1970; None without
            answers.
        simulated: whether no model was asked.
        version: batchgen's.
    """

    name: str
    kind: str
    prompts: str
    models: Sequence[str]
    rows: Mapping[str, int]
    began: float | None
    ended: float | None
    simulated: bool
    version: str


def card_of(facts: DatasetFacts) -> str:
    """The text of README.md."""
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(facts.rows.items()))
    models = ", ".join(f"`{one_line(model)}`" for model in facts.models)
    if facts.began is None or facts.ended is None:
        dates = "none yet"
    else:
        dates = " to ".join(
            dict.fromkeys(
                f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" for at in (facts.began, facts.ended)
            )
        )
    warning = "**Simulated: no model was asked, nothing here is true.**\n\n" * facts.simulated
    return _CARD.format(facts=facts, counts=counts, models=models, dates=dates, warning=warning)


_CARD = """---
# Choose a licence before you publish: https://huggingface.co/docs/hub/repositories-licenses
license: unknown
configs:
  - config_name: default
    data_files:
      - split: train
        path: data/*.parquet
---

# {facts.name}

{warning}| | |
|---|---|
| rows | {counts} |
| kind of requests | {facts.kind} |
| prompts | {facts.prompts} |
| models | {models} |
| answered | {dates} |
| made with | batchgen {facts.version} |

The column `status` says which rows have a whole answer (`succeeded`); `output` has the answers.
"""


def write_dataset(
    folder: Path,
    records: Iterable[Record],
    columns: Mapping[str, ColumnType],
    *,
    pictures: Path,
    card: str,
    say: Callable[[str], None],
) -> None:
    """Write the folder, whole or not at all.

    Args:
        folder: does not exist yet, or is empty.
        records: those of the results table.
        columns: their columns and types.
        pictures: the folder that paths of pictures are relative to.
        card: the text of README.md.
        say: receives what the user should know about cells.

    Raises InputError when the folder has files, OutputError when it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty; name a new folder")
    with translating_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder.parent, folder.name) as temporary:
        whole = temporary / "whole"
        (whole / "data").mkdir(parents=True)
        plain = temporary / "plain.parquet"
        table = TableFile(
            path=plain,
            columns=columns,
            delimiter=",",
            bom=False,
            disarm=None,
            on_written=None,
            say=lambda message: say(message.replace(plain.name, str(folder))),
        )
        with WRITERS["parquet"](table) as write:
            for record in records:
                write(record)
        shown = [name for name, kind in columns.items() if kind is Picture]
        target = whole / "data/train-00000-of-00001.parquet"
        if shown:
            _with_pictures(plain, target, shown, pictures)
        else:
            os.replace(plain, target)
        with atomic_write(whole / "README.md") as file:
            file.write(card)
        with translating_errors(folder):
            os.replace(whole, folder)


def _with_pictures(plain: Path, target: Path, names: list[str], pictures: Path) -> None:
    """Copy a Parquet file, with the bytes of pictures in place of their paths."""
    import pyarrow
    from pyarrow import parquet

    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    source = parquet.ParquetFile(plain)
    fields = [
        (each.name, picture if each.name in names else each.type) for each in source.schema_arrow
    ]
    features = {
        name: {"_type": "Image"} if name in names else _feature(kind) for name, kind in fields
    }
    schema = pyarrow.schema(
        fields, metadata={"huggingface": json.dumps({"info": {"features": features}})}
    )

    def read(path: str | None) -> dict[str, Any] | None:
        # A cell may also be what a model wrote, from before a change of the job's kind: it names
        # no file of ours. A picture that is gone leaves an empty cell, and `verify` names it.
        if path is None or _PICTURE.fullmatch(path) is None:
            return None
        try:
            return {"bytes": (pictures / path).read_bytes(), "path": os.path.basename(path)}
        except OSError:
            return None

    with atomic_write(target, binary=True) as file, parquet.ParquetWriter(file, schema) as writer:
        for batch in source.iter_batches(_GROUP):
            arrays = [
                pyarrow.array(map(read, column.to_pylist()), picture) if name in names else column
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


def _feature(kind: Any) -> Any:
    """The name that `datasets` has for a type of Arrow."""
    import pyarrow

    if pyarrow.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    if pyarrow.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    words = {"double": "float64", "float": "float32"}
    return {"_type": "Value", "dtype": words.get(str(kind), str(kind))}
