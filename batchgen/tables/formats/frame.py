"""The results table as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from batchgen.tables.formats.table import ColumnType, Record, Timestamp, Vector

if TYPE_CHECKING:
    import pandas


def frame(records: Iterable[Record], columns: Mapping[str, ColumnType]) -> pandas.DataFrame:
    """The records as a pandas DataFrame.

    Cells keep their Python types, and a missing one is None, so that no number changes. Embeddings
    are arrays of float32, times are UTC timestamps.
    """
    import pandas

    cells = [[record.get(name) for name in columns] for record in records]
    table = pandas.DataFrame(cells, columns=list(columns), dtype=object)
    for name, kind in columns.items():
        if kind is Vector:
            table[name] = pandas.Series(map(_array, table[name]), dtype=object, index=table.index)
        elif kind is Timestamp:
            table[name] = pandas.to_datetime(table[name], utc=True)
    return table


def _array(vector: Any) -> Any:
    """An embedding as an array of shape (d,), several as one of shape (n, d)."""
    import pandas

    if not isinstance(vector, list):  # no answer, or the text of one from before a change of kind
        return vector
    make = pandas.DataFrame if isinstance(vector[0], list) else pandas.Series
    return make(vector, dtype="float32").to_numpy()
