"""Where SQLite writes what does not fit into its memory: sorted rows and temporary tables.

By itself it takes the system's folder for temporary files, which users share. Prompts and answers
belong beside the journal, or below the user's own folder for state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from batchgen.dispatch.limits.state_file import state_folder
from batchgen.errors import OutputError


def keep_private(connection: sqlite3.Connection, folder: Path) -> None:
    """Let a new connection write what does not fit into memory into `folder`.

    Where that cannot be written, or does not exist yet, the nearest folder of the user's takes its
    place; where there is none, all stays in memory. No folder is made.
    """
    for each in (folder, *_own_folders()):
        if each.is_dir() and _takes(connection, each):
            return
    connection.execute("PRAGMA temp_store = MEMORY")


def _own_folders() -> Iterator[Path]:
    try:
        state = state_folder()
        yield from (state, state.parent, Path.home())
    except (OutputError, RuntimeError):
        return


def _takes(connection: sqlite3.Connection, folder: Path) -> bool:
    """Set the folder; returns whether SQLite takes it.

    All connections of the process share the setting, so that each new one sets it anew.
    https://sqlite.org/pragma.html#pragma_temp_store_directory
    """
    path = str(folder.absolute()).replace("'", "''")
    try:
        connection.execute(f"PRAGMA temp_store_directory = '{path}'")
    except sqlite3.Error:
        return False
    # Some builds of SQLite do not have it, and say nothing.
    return connection.execute("PRAGMA temp_store_directory").fetchone() is not None
