"""What SQLite writes beside the journal, when rows do not fit into its memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab

import batchgen

FDS = Path("/proc/self/fd")
pytestmark = pytest.mark.skipif(not FDS.is_dir(), reason="needs /proc")


def watching(seen: set[str]) -> Callable[[object], None]:
    """Collects the folders of the files that are open and have no name any more."""

    def poll(_: object) -> None:
        for descriptor in os.listdir(FDS):
            try:
                path = os.readlink(FDS / descriptor)
            except OSError:
                continue
            if path.endswith(" (deleted)") and "etilqs" in path:
                seen.add(str(Path(path).parent))

    return poll


@pytest.mark.parametrize("has_run", [False, True])
def test_rows_stay_in_the_users_own_folders(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, has_run: bool
) -> None:
    """P38 A plan of rows that do not fit into SQLite's memory writes them beside the journal, or
    below the user's home as long as there is no journal; never into the system's folder.
    """
    monkeypatch.setenv("HOME", str(lab.folder))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    job = lab.job(rows=3)
    if has_run:
        lab.go(job, simulate=True)
    cell = "x" * 10_000
    lines = "".join(f"q{n},{cell}\n" for n in range(2_500))
    (lab.folder / "prompts.csv").write_text(f"id,text\n{lines}", encoding="utf-8")
    seen: set[str] = set()
    planned = batchgen.plan(lab.load(job), simulate=True, on_lines=watching(seen))
    assert planned.total == 2_500
    own = lab.output(simulated=True) if has_run else lab.folder
    assert seen == {str(own)}
    assert not (lab.folder / ".local").exists()


def test_without_a_folder_of_ones_own_rows_stay_in_memory(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P38 Where the user has no folder, nothing is written."""
    monkeypatch.setenv("HOME", str(lab.folder / "gone"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    (lab.folder / "prompts.csv").write_text(
        "id,text\n" + "".join(f"q{n},{'x' * 10_000}\n" for n in range(2_500)), encoding="utf-8"
    )
    seen: set[str] = set()
    batchgen.plan(lab.load(lab.job(rows=None)), simulate=True, on_lines=watching(seen))
    assert not seen
