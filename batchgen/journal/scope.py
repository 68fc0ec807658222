"""Which rows a run or a plan is about: all, the first ones, or a sample."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from batchgen.journal.journal import Journal

# What a row is drawn by: its id, its conversation (all turns of it are drawn together), or its
# cells. Each stays when rows are added or the job is changed, and so does the sample.
DrawnBy = Literal["id", "conversation", "cells"]

# More rows than any file has.
_ALL = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Some rows of the prompts file, of a journal whose connection has them.

    last: the number of the last one.
    sample: the numbers of those that were drawn; None: all up to the last.
    """

    last: int = _ALL
    sample: frozenset[int] | None = None

    def holds(self, n: int) -> bool:
        """Whether a prompt is in scope, by its number."""
        return n in self.sample if self.sample is not None else n <= self.last

    def condition(self, column: str = "n") -> str:
        """SQL: whether the prompt of this number is in scope."""
        if self.sample is not None:
            return f"{column} IN sampled"
        return f"{column} <= {self.last}" if self.last < _ALL else "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows at random: the same ones for the same seed.

    rows: how many; conversations, if rows are drawn by them.
    seed: another one draws others.
    by: what a row is drawn by.
    """

    rows: int
    seed: int
    by: DrawnBy


WHOLE = Scope()


def scope_of(journal: Journal, limit: int | None, sample: Sample | None = None) -> Scope:
    """The scope of a run or a plan. Prompts that are left out have no rows, and do not count.

    journal: holds the rows. It keeps one sample at a time.
    limit: only the first rows of the prompts, this many (None: all).
    sample: only these rows, whatever the limit.
    """
    if sample is not None:
        return _drawn(journal, sample)
    if limit is None:
        return WHOLE
    first = "SELECT DISTINCT n FROM (SELECT n FROM rows ORDER BY seq) LIMIT ?"
    return Scope(last=journal.query(f"SELECT coalesce(max(n), 0) FROM ({first})", limit)[0][0])


def _drawn(journal: Journal, sample: Sample) -> Scope:
    """Draw the rows with the smallest digests of the seed and what they are drawn by.

    So a row that is added takes at most one place, and all others stay.
    """
    smallest = heapq.nsmallest(
        sample.rows, ((_rank(sample.seed, name), unit) for name, unit in _units(journal, sample.by))
    )
    numbers = {n for _, unit in smallest for n in unit}
    journal.connection.execute("DELETE FROM temp.sampled")
    journal.connection.executemany("INSERT INTO temp.sampled VALUES(?)", [(n,) for n in numbers])
    return Scope(sample=frozenset(numbers))


def _rank(seed: int, name: str) -> bytes:
    return blake2b(json.dumps([seed, name]).encode(), digest_size=16).digest()


def _units(journal: Journal, by: DrawnBy) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What can be drawn, with the numbers of its prompts. A row that cannot be sent is not."""
    if by == "conversation":
        sql = """SELECT conversation, group_concat(DISTINCT n) FROM rows
            WHERE conversation IS NOT NULL GROUP BY conversation HAVING count(error) = 0"""
    else:
        name = "min(r.id)" if by == "id" else "p.columns"
        sql = f"""SELECT {name}, r.n FROM rows r JOIN prompts p ON p.n = r.n
            WHERE r.error IS NULL GROUP BY r.n"""
    with journal.select(sql) as cursor:
        for name, numbers in cursor:
            yield name, tuple(map(int, str(numbers).split(",")))
