"""The cells of `output.columns`, and how many of them are empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchgen.job import Job
from batchgen.journal import Row
from batchgen.recorder import render_row
from batchgen.requests import Blank, Renderer, RequestError
from batchgen.tables.formats import Record


class ComputedCells:
    """Makes the cells of `output.columns`, and counts those that an answer leaves empty."""

    def __init__(self, job: Job, renderer: Renderer) -> None:
        self._job, self._renderer = job, renderer
        self._cells = 0
        self._blanks: dict[str, dict[str, Any]] = {}

    @property
    def empty(self) -> dict[str, dict[str, Any]]:
        """Of each column with empty cells: how many `cells` it has and how many are `empty`, the
        `reasons` with their counts, and the `first` of them, its row's id and its `error`.
        """
        return {name: {"cells": self._cells, **each} for name, each in self._blanks.items()}

    def of(self, row: Row, response: Mapping[str, Any], output: str) -> Record:
        """The cells for one answer."""
        if not self._job.output.columns:
            return {}
        columns = self._renderer.columns
        request = self._request(row) if columns.uses_request else {}
        cells = columns.cells({**row.columns, **row.axes}, request, response, output)
        shown = self._job.output.columns_of_own
        self._cells += 1
        for name, cell in cells.items():
            if isinstance(cell, Blank):
                cells[name] = None
                if shown is None or name in shown:
                    self._count(name, row, cell)
        return cells

    def _request(self, row: Row) -> Mapping[str, Any]:
        try:
            return render_row(self._job, self._renderer, row).body
        except RequestError:
            # The job may have changed since; a column that needs the request stays empty.
            return {}

    def _count(self, name: str, row: Row, blank: Blank) -> None:
        first = {"id": row.id, "error": blank.detail}
        counts = self._blanks.setdefault(name, {"empty": 0, "reasons": {}, "first": first})
        counts["empty"] += 1
        counts["reasons"][blank.reason] = counts["reasons"].get(blank.reason, 0) + 1
