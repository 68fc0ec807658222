"""How a run stands, in two lines that fit a terminal of any width, or in one for a log.

What it waits for comes first, then counts, then time, money and rate. Where there is too little
room the last are left out; no word is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from batchgen.cli.terminal import styled
from batchgen.escapes import escape_controls

if TYPE_CHECKING:
    from batchgen.dispatch import Progress

# Columns of the shortest and the longest bar.
BAR_AT_LEAST = 10
BAR_AT_MOST = 40

# Seconds without an answer that are worth saying.
SILENT = 20.0


class Part(NamedTuple):
    """A piece of a line, and its colour."""

    text: str
    colour: str | None = None

    def __str__(self) -> str:
        return styled(self.text, colour=self.colour) if self.colour else self.text


def progress_lines(
    name: str, progress: Progress, before: Mapping[str, int], *, width: int, now: float
) -> tuple[str, str]:
    """The two lines of a terminal.

    name: of the job.
    progress: of the run.
    before: the requests by status from before the run.
    width: columns of each line, at the most.
    now: seconds since 1970.
    """
    states = [Part(escape_controls(each.text), each.colour) for each in _states(progress, now)]
    share = _share(progress, before)
    heads = (f"{escape_controls(name)} {share:.0%}".strip(), f"{share:.0%}", "")
    eta = describe_left(progress)
    first = _first_line(heads, states or [Part(eta)], share, width)
    times = [Part(eta)] if states and eta else []
    return first, _fitting([*_counts(progress, before), *times, *_rates(progress)], width)


def progress_sentence(progress: Progress, before: Mapping[str, int], now: float) -> str:
    """The same for a log: one line of any length; the arguments are those of `progress_lines`."""
    state = next((each.text for each in _states(progress, now)), "")
    eta = describe_left(progress)
    parts = [*_counts(progress, before), *([Part(eta)] if eta else []), *_rates(progress)]
    return (f"{state}; " if state else "") + ", ".join(part.text for part in parts)


def describe_left(progress: Progress) -> str:
    """`12 min left`; empty when that is not known."""
    from batchgen.report import describe_duration

    seconds = progress.seconds_left
    return "" if seconds is None or progress.stopping else f"{describe_duration(seconds)} left"


def _states(progress: Progress, now: float) -> Iterator[Part]:
    """What a run waits for, the longer form first; nothing for a run that does not wait."""
    from batchgen.report import describe_end, describe_stop, describe_wait

    wait = progress.wait
    if progress.stopping:
        yield Part(describe_stop(progress.in_flight), "yellow")
        yield Part(f"stopping: {progress.in_flight:,} in flight", "yellow")
    elif wait is not None:
        colour = None if wait.is_pace else "yellow"
        yield Part(describe_wait(wait, now), colour)
        end = "waiting" if wait.until is None else describe_end(wait.until, now)
        yield Part(f"{end}: {wait.cause}", colour)


def _counts(progress: Progress, before: Mapping[str, int]) -> Iterator[Part]:
    done = before.get("succeeded", 0) + progress.done + progress.answered_remotely
    yield Part(f"{done:,}/{max(sum(before.values()), done):,} done", "green")
    if progress.failed:
        yield Part(f"{progress.failed:,} failed", "red")
    if progress.incomplete:
        yield Part(f"{progress.incomplete:,} incomplete", "yellow")
    if progress.in_flight or progress.wait is None:
        yield Part(f"{progress.in_flight:,} in flight")
    if progress.in_flight and progress.silent_for >= SILENT:
        from batchgen.report import describe_duration

        yield Part(f"no answer for {describe_duration(progress.silent_for)}", "yellow")


def _rates(progress: Progress) -> Iterator[Part]:
    if progress.cap is not None:
        spent = progress.spent_before + progress.cost
        yield Part(f"{_usd(spent)} of {_usd(progress.cap)}")
    elif progress.cost:
        yield Part(_usd(progress.cost))
    if progress.rate:
        yield Part(f"{progress.rate:,.{int(progress.rate < 10)}f} a minute")


def _usd(nano: int) -> str:
    amount = nano / 1e9
    return f"${amount:,.2f}" if amount >= 1 or not nano else f"${amount:,.4f}"


def _share(progress: Progress, before: Mapping[str, int]) -> float:
    """The share of a job's requests that need nothing more."""
    total = sum(before.values())
    if not total or not progress.left:
        return 1.0
    # 100 % is for a run that has ended.
    return max(0.0, min(1 - progress.left / total, 0.99))


def _first_line(heads: Sequence[str], states: Sequence[Part], share: float, width: int) -> str:
    """The first of the states that fits, with the longest head that fits and a bar if it does."""
    for state in states:
        for head in heads:
            room = width - _columns(" ".join(filter(None, (head, state.text))))
            if room >= 0:
                bar = _bar(share, room - 1) if head and room > BAR_AT_LEAST else ""
                return " ".join(filter(None, (head, bar, str(state))))
    return str(states[-1]._replace(text=_whole_words(states[-1].text, width)))


def _bar(share: float, columns: int) -> str:
    length = min(columns, BAR_AT_MOST)
    filled = int(share * length)
    return "█" * filled + "░" * (length - filled)


def _fitting(parts: Sequence[Part], width: int) -> str:
    """As many parts as fit, the first ones first."""
    shown: list[Part] = []
    for part in parts:
        if _columns(", ".join(each.text for each in (*shown, part))) > width:
            break
        shown.append(part)
    return ", ".join(map(str, shown)) if shown else _whole_words(parts[0].text, width)


def _whole_words(text: str, width: int) -> str:
    """The first words of a text that fit."""
    words = text.split(" ")
    while words and _columns(" ".join(words)) > width:
        words.pop()
    return " ".join(words)


def _columns(text: str) -> int:
    """How many columns a text takes."""
    from tqdm.utils import disp_len

    return int(disp_len(text))
