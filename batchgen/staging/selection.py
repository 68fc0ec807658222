"""Which prompts become rows. A prompt that is left out is counted, and is in no table."""

from __future__ import annotations

from collections import Counter

from batchgen.errors import Problem, listed
from batchgen.job import Job
from batchgen.prompts import Prompt
from batchgen.requests import Renderer

# The lines that a problem names, of all that it is about.
_NAMED_LINES = 3


class Selection:
    """Selects the prompts of one pass.

    Attributes:
        left_out: how many prompts were left out, by the key of the job that left them out.
        empty: how many prompts are empty and not left out.
    """

    def __init__(self, job: Job, renderer: Renderer) -> None:
        self._job, self._renderer = job, renderer
        self.left_out: Counter[str] = Counter()
        self.empty = 0
        self._empty_lines: list[int] = []

    def keeps(self, prompt: Prompt) -> bool:
        """Whether a prompt becomes rows; called once for each prompt that can be read.

        Raises RequestError when `prompts.where` cannot be evaluated for it.
        """
        key = self._left_out_by(prompt)
        if key is not None:
            self.left_out[key] += 1
        return key is None

    def _left_out_by(self, prompt: Prompt) -> str | None:
        """The key of the job that leaves a prompt out, or None."""
        if prompt.pending:
            return "prompts.job"
        if not self._renderer.where.keeps(prompt.columns):
            return "prompts.where"
        if self._renderer.leaves_empty(prompt.columns):
            if self._job.prompts.empty == "skip":
                return "prompts.empty"
            self.empty += 1
            if len(self._empty_lines) < _NAMED_LINES:
                self._empty_lines.append(prompt.line)
        return None

    def problems(self) -> list[Problem]:
        """What is wrong with the prompts that were kept: one problem for all empty ones."""
        if not self.empty or self._job.prompts.empty != "refuse":
            return []
        lines = [*map(str, self._empty_lines), *["…"] * (self.empty > _NAMED_LINES)]
        rows = "1 row has" if self.empty == 1 else f"{self.empty:,} rows have"
        line_s = "line" if self.empty == 1 else "lines"
        names = listed(sorted(self._renderer.prompt_columns))
        message = (
            f"{rows} an empty prompt ({line_s} {', '.join(lines)}): nothing in {names}; fill them, "
            "or set prompts.empty: skip (left out) or send (sent as they are)"
        )
        return [Problem(path=self._job.prompts.source, line=self._empty_lines[0], message=message)]
