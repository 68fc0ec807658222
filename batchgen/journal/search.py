"""Which threads of the job's rows fit what somebody looks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from batchgen.journal.journal import Journal
from batchgen.journal.records import unpacked
from batchgen.journal.status import MAX_TRIES, state


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a thread must have; empty: anything.

    Attributes:
        status: of one of its rows.
        reason: why one of its rows failed or is incomplete.
        axes: the text of a value for some axes.
        words: each of them in the prompt, the answer or the message of one of its rows, in any
            case.
    """

    status: str = ""
    reason: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    words: Sequence[str] = ()


# Why a row failed or is incomplete, as counts of failures name it.
_WHY = f"""iif(s.status NOT IN ('failed', 'incomplete'), NULL, iif(s.error IS NOT NULL, 'input',
    iif(s.passing AND s.tries >= {MAX_TRIES}, 'gave_up', coalesce(s.reason, s.finish_reason))))"""
# Where words are looked for.
_TEXTS = "s.id, s.conversation, p.columns, s.error, o.message, o.response"


def find_threads(journal: Journal, wanted: Wanted) -> Iterator[int]:
    """The threads that fit, in the file's order: the seq of each one's first row.

    Words are looked for in whole responses, about 20 us a row, so that a number in a request id
    counts too: the caller looks again in what it shows. Nothing else reads the journal meanwhile.
    """
    words = [word.lower() for word in wanted.words]
    connection = journal.connection
    connection.create_function("has_words", -1, lambda *texts: _has_words(words, texts))
    connection.create_function("has_axes", 1, lambda axes: _has_axes(wanted.axes, axes))
    conditions: dict[str, Sequence[Any]] = {}
    if wanted.status:
        conditions["s.status = ?"] = [wanted.status]
    if wanted.reason:
        conditions[f"{_WHY} = ?"] = [wanted.reason]
    if wanted.axes:
        conditions["has_axes(s.axes)"] = []
    if words:
        conditions[f"has_words({_TEXTS})"] = []
    sql = f"""{state()} SELECT coalesce(head.seq, s.seq) AS seq FROM state s
        JOIN prompts p ON p.n = s.n
        LEFT JOIN outcomes o ON o.ident = s.ident AND o.key = s.key
        LEFT JOIN rows head
            ON head.conversation = s.conversation AND head.axes = s.axes AND head.turn = 1
        WHERE {" AND ".join(conditions) or "1"} ORDER BY s.seq"""
    found = set()
    with journal.select(sql, *chain.from_iterable(conditions.values())) as cursor:
        for row in cursor:
            if row["seq"] not in found:
                found.add(row["seq"])
                yield row["seq"]


def _has_words(words: Sequence[str], texts: Sequence[Any]) -> bool:
    parts = [
        unpacked(text).decode(errors="replace") if isinstance(text, bytes) else text or ""
        for text in texts
    ]
    whole = "\n".join(parts).lower()
    return all(word in whole or json.dumps(word)[1:-1] in whole for word in words)


def _has_axes(wanted: Mapping[str, str], axes: str) -> bool:
    values = json.loads(axes)
    return all(
        (value if isinstance(value := values.get(name), str) else json.dumps(value)) == text
        for name, text in wanted.items()
    )
