"""Records of several values of an axis -> one record, with the values side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchgen.tables.formats import Record, cell
from batchgen.tables.layout import TableLayout, wide_name


def side_by_side(records: Iterable[Record], layout: TableLayout) -> Iterator[Record]:
    """Make one record of those that differ only in the axis `layout.wide`.

    Records of other choices, or other values of another axis, stay apart.

    Args:
        records: those of one row of the prompts file.
        layout: a wide one.
    """
    assert layout.wide is not None
    choice = layout.prefix + "choice"
    axes = [name for name in layout.named[1:] if name != layout.wide]
    lines: dict[tuple[str, ...], Record] = {}
    for record in records:
        # A record without a choice, of a row that failed, stands beside the first choice.
        number = record.get(choice) or 1
        key = (str(number), *(cell(record[axis]) for axis in axes))
        line = lines.setdefault(key, {name: record.get(name) for name in layout.inputs})
        line[choice] = line.get(choice) or record.get(choice)
        for name in layout.repeated:
            line[wide_name(name, record[layout.wide])] = record.get(name)
    yield from lines.values()
