"""Keeps the garbage collector off the objects that outlive a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def frozen_objects() -> Iterator[None]:
    """Freeze all existing objects (`gc.freeze`) while the block runs.

    A run makes many short-lived objects, so collections are frequent, and each would rescan the
    modules and caches that stay anyway. Does nothing if the caller has frozen objects already:
    `gc.unfreeze` would release theirs too.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
