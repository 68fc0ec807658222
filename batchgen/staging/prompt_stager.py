"""One prompt -> its rows: one for each combination of the matrix and each turn."""

from __future__ import annotations

from typing import Any

from batchgen.job import Job
from batchgen.pricing import BatchShares, Prices
from batchgen.prompts import Prompt
from batchgen.requests import Renderer, Request, RequestError, combinations
from batchgen.staging.forecast import forecast
from batchgen.staging.problems import Problems
from batchgen.staging.rows import ALONE, Combination, StagingTables, Turn
from batchgen.staging.selection import Selection

# Names of tools that are kept: they may come from rows.
MOST_FEES = 20


class PromptStager:
    """Stages the prompts of one pass.

    Attributes:
        draws: whether any request so far asks for pictures.
        batch_shares: the highest shares of a request so far.
        fees: tools of requests so far whose fees are in no cost, at most MOST_FEES.
        tokens, charged: the sums of these forecasts so far.
        assumes: what these forecasts assume, each as a phrase, in the order that they came in.
        selection: which prompts became rows so far.
    """

    def __init__(
        self,
        job: Job,
        renderer: Renderer,
        prices: Prices,
        tables: StagingTables,
        problems: Problems,
        *,
        capped: bool,
    ) -> None:
        """Stage nothing yet.

        Args:
            job: the job.
            renderer: makes its requests.
            prices: what they cost.
            tables: receive the prompts and their rows.
            problems: receive what is wrong.
            capped: whether a request without a bound on its cost is a problem.
        """
        self._job, self._renderer, self._prices = job, renderer, prices
        self._tables, self._problems, self._capped = tables, problems, capped
        self._combinations = combinations(job.matrix)
        self._unbounded: set[str] = set()
        self.draws = False
        self.batch_shares = BatchShares(0.0, 0.0)
        self.fees: set[str] = set()
        self.tokens = self.charged = 0
        self.assumes: dict[str, None] = {}
        self.selection = Selection(job, renderer)

    @property
    def charged_share(self) -> float:
        """The expected tokens so far, as a share of those that limits are charged."""
        return self.tokens / self.charged if self.charged else 1.0

    def stage(self, prompt: Prompt) -> None:
        """Add a prompt and its rows, or its problems."""
        fault = prompt.error
        try:
            if fault is None and not self.selection.keeps(prompt):
                # Kept without rows, so that a changed job can take it in again.
                self._tables.prompt(prompt, None)
                return
        except RequestError as unclear:
            fault = self._located(unclear)
        row_id, id_fault = self._id_of(prompt)
        error = fault or id_fault
        self._tables.prompt(prompt, None if error else row_id)
        if error and self._job.prompts.bad_rows == "refuse":
            self._problems.add(error, prompt.line)
            return
        for axes in self._combinations:
            of = Combination(prompt, row_id, axes)
            if not error:
                self._stage_combination(of)
            else:
                nameless = self._job.prompts.id is not None
                self._tables.broken_row(of, self._turn_of_broken(of), error, nameless=nameless)

    def finish(self) -> None:
        """Write the last rows, and add the problems that several prompts have together."""
        self._tables.flush()
        self._problems.add_all(self.selection.problems())

    def _id_of(self, prompt: Prompt) -> tuple[str | None, str | None]:
        """The id of a prompt (None: the job has no id column), and what is wrong with it."""
        name = self._job.prompts.id
        if name is None or prompt.error:
            return prompt.id, None
        value = prompt.columns.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            return None, (
                f"{name} (prompts.id) is empty or not a plain value; every row needs an id"
            )
        return str(value), None

    def _turn_of_broken(self, of: Combination) -> Turn:
        """The position of a broken row in its conversation, if that can be read.

        A broken row counts as a turn, so that it blocks the turns after it.
        """
        column = self._job.conversation.id if self._job.conversation else None
        thread = of.prompt.columns.get(column) if column else None
        if thread in (None, ""):
            return ALONE
        name = f"thread {thread}"
        return Turn(name, self._tables.last_turn(name, of.axes)[1] + 1)

    def _stage_combination(self, of: Combination) -> None:
        conversation = self._job.conversation
        if conversation is None:
            self._stage_request(of)
        elif conversation.id is not None:
            thread = of.prompt.columns.get(conversation.id)
            if thread in (None, ""):
                self._fail(of, f"{conversation.id} (conversation.id) is empty")
                return
            name = f"thread {thread}"
            previous, number = self._tables.last_turn(name, of.axes)
            self._stage_request(of, Turn(name, number + 1), previous=previous)
        else:
            self._stage_turns(of, of.prompt.columns.get(conversation.turns or ""))

    def _stage_turns(self, of: Combination, turns: Any) -> None:
        if not isinstance(turns, list) or not turns:
            self._fail(of, "the turns column (conversation.turns) is not a list of turns")
            return
        name = f"row {of.prompt.n}"
        previous: bytes | None = b""
        for number, text in enumerate(turns, 1):
            turn = Turn(name, number, is_listed=True)
            previous = self._stage_request(of, turn, text=text, previous=previous or b"")
            if previous is None:
                break

    def _stage_request(
        self, of: Combination, turn: Turn = ALONE, *, text: Any = None, previous: bytes = b""
    ) -> bytes | None:
        """Make a request and add its row; returns its fingerprint, or None when it failed.

        Args:
            of: the prompt and the combination that it is made of.
            turn: its position in a conversation.
            text: its element of the turns column.
            previous: the fingerprint of the turn before.
        """
        try:
            request = self._renderer.request(
                of.prompt.columns,
                of.axes,
                turn=text,
                previous=previous,
                turn_number=turn.number,
            )
        except RequestError as error:
            self._fail(of, self._located(error), turn)
            return None
        self.draws |= request.pictures > 0
        expected = forecast(request, self._prices)
        self.tokens += expected.tokens
        self.charged += expected.charged
        self.assumes.update(dict.fromkeys(expected.assumes))
        shares = self._prices.batch_shares(request)
        if shares != self.batch_shares:
            self.batch_shares = BatchShares(*map(max, self.batch_shares, shares))
        if request.unbounded_by is not None and len(self.fees) < MOST_FEES:
            self.fees.update(self._prices.fees_not_included(request))
        if self._capped and expected.cost_bound is None:
            self._report_unbounded(request)
        self._tables.row(of, request, turn, expected)
        return request.fingerprint

    def _located(self, error: RequestError) -> str:
        """What is wrong with a row, and the line of the job that says so."""
        if not error.key_path:
            return str(error)
        return f"{error} ({self._job.display_name}:{self._job.position(*error.key_path)[0]})"

    def _report_unbounded(self, request: Request) -> None:
        """Add the problem that the request's cost has no bound, once for each cause."""
        message = self._prices.missing_for_bound(request)
        if message not in self._unbounded:
            self._unbounded.add(message)
            where = ("limits", next(iter(self._job.limits.on_cost), "max_cost"))
            self._problems.add_all([self._job.problem(where, f"a cap on cost needs {message}")])

    def _fail(self, of: Combination, message: str, turn: Turn = ALONE) -> None:
        if self._job.prompts.bad_rows == "fail":
            self._tables.broken_row(of, turn, message, nameless=False)
        else:
            self._problems.add(message, of.prompt.line)
