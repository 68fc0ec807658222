"""Whatever becomes of the rows of conversations, no answer stands in another one."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from thread_life import ThreadLife

SETTINGS = settings(
    max_examples=3,
    stateful_step_count=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class WithIds(ThreadLife):
    ids, listed = True, False


class Named(ThreadLife):
    ids, listed, matrix = False, False, ("dry", "warm")


class ListedWithIds(ThreadLife):
    ids, listed, matrix = True, True, ("dry", "warm")


class Listed(ThreadLife):
    ids, listed = False, True


for _life in (WithIds, Named, ListedWithIds, Listed):
    _life.TestCase.settings = SETTINGS


# hypothesis makes the base class when the program runs.
class TestRowsWithIds(WithIds.TestCase):  # type: ignore[misc, valid-type]
    """P08 P13 Rows with ids that a column makes one conversation."""


class TestNamedConversations(Named.TestCase):  # type: ignore[misc, valid-type]
    """P08 P13 Rows without ids that a column makes one conversation, each in two combinations."""


class TestListedTurnsWithIds(ListedWithIds.TestCase):  # type: ignore[misc, valid-type]
    """P08 P13 Rows with ids that list their turns, each in two combinations."""


class TestListedTurns(Listed.TestCase):  # type: ignore[misc, valid-type]
    """P08 P13 Rows without ids that list their turns."""
