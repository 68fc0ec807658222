"""`batchgen diff`: answers before and after a change of the prompt or the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab

from batchgen.cli import cells, main
from batchgen.comparison import changed_words
from batchgen.simulator import Simulator

PRICES = {"gpt-5.6-luna": {"input": 1, "output": 4}}


def compared(lab: Lab, *args: object, columns: int = 80) -> Result:
    """What `batchgen diff ARGS` does in this process."""
    env = {**lab.environ(), "COLUMNS": str(columns)}
    return CliRunner().invoke(main, ["diff", *map(str, args)], env=env)


def job_with(lab: Lab, api: Simulator, text: str, **parts: Any) -> Path:
    (lab.folder / "prompts.csv").write_text(text, encoding="utf-8")
    return lab.job(api.url, rows=None, pricing=PRICES, **parts)


def edited(lab: Lab, api: Simulator) -> Path:
    """A job of four rows of which one keeps its answer, one changes it, one gets the same to
    another request, and one is new.
    """
    messages = [{"role": role, "content": f"{{{{ {role} }}}}"} for role in ("system", "user")]
    request = {"model": "gpt-5.6-luna", "messages": messages}
    first = "id,system,user\nkept,x,ECHO:a\nnew words,x,ECHO:the brown fox\nsame,x,ECHO:b\n"
    lab.go(job_with(lab, api, first, request=request))
    second = first.replace("brown fox", "red fox").replace("same,x", "same,y")
    job = job_with(lab, api, second + "late,x,ECHO:c\n", request=request)
    lab.go(job)
    return job


def test_the_last_answer_is_beside_the_one_before(lab: Lab, api: Simulator) -> None:
    """Rows whose answer changed are printed with the words that changed; the others are counted;
    tokens and costs are those of the rows with two answers.
    """
    done = compared(lab, edited(lab, api), columns=100)
    assert done.exit_code == 0, done.output
    lines = [re.sub(" +", " ", line) for line in done.stdout.splitlines()]
    assert lines[0] == "new words"
    assert lines[1].startswith("before: run 1, gpt-5.6-luna, ")
    assert "the [-brown-] fox | the {+red+} fox" in lines
    assert lines[-6:-2] == [
        "compared 2 rows",
        "equal 1",
        "changed 1",
        "other 2 rows with one answer",
    ]
    (cost, tokens) = lines[-2:]
    assert re.fullmatch(r"cost \$0\.\d+ before, \$0\.\d+ after", cost)
    assert re.fullmatch(r"tokens \d+ before, \d+ after", tokens)


def test_two_runs_are_compared(lab: Lab, api: Simulator) -> None:
    """With two runs, each row has the answer that it had after them: also one that the second run
    had no need to ask for.
    """
    job = edited(lab, api)
    forth = compared(lab, job, "--run", 1, "--run", 2, columns=100).stdout
    assert "equal     2\nchanged   1\n" in forth
    assert "other     0 only in after run 1, 1 only in after run 2\n" in forth
    back = compared(lab, job, "--run", 2, "--run", 1, columns=100).stdout
    assert "the [-red-] fox" in back
    assert "it has 1 to 2" in compared(lab, job, "--run", 1, "--run", 3).stderr
    assert compared(lab, job, "--run", 1).exit_code == 2


def test_turns_are_compared_each_with_its_own(lab: Lab, api: Simulator) -> None:
    """Of a conversation each turn has its two answers, under its number."""
    text = "id,t,text\na,t,ECHO:one\nb,t,ECHO:two\n"
    lab.go(job_with(lab, api, text, conversation={"id": "t"}))
    job = job_with(lab, api, text.replace("two", "three"), conversation={"id": "t"})
    lab.go(job)
    lines = compared(lab, job).stdout.splitlines()
    assert lines[0] == "b  turn 2"
    assert "changed   1" in lines


def test_rows_without_ids_cannot_be_compared(lab: Lab, api: Simulator) -> None:
    """Without an id column an edited row is another row, and the message says what to do."""
    job = lab.job(api.url, prompts={"path": "prompts.csv"}, rows=None)
    lab.prompts(1)
    lab.go(job)
    done = compared(lab, job)
    assert done.exit_code == 2
    assert "prompts.id" in done.stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_both_sides_fit_the_terminal(lab: Lab, api: Simulator, columns: int) -> None:
    """P44 No line is wider than the terminal, whatever the letters, and none controls it."""
    (lab.folder / "prompts.csv").write_text("", encoding="utf-8")
    request = {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}
    first = f'id,text\na,"ECHO:{"花瓶と words " * 40}\x1b[2J"\n'
    lab.go(job_with(lab, api, first, request=request))
    job = job_with(lab, api, first.replace("words 花", "other 花"), request=request)
    lab.go(job)
    shown = compared(lab, job, columns=columns).stdout
    assert max(map(cells.width_of, shown.splitlines())) <= columns
    assert "\x1b" not in shown
    assert "{+other+}" in shown.replace("\n", "")


def test_the_page_holds_texts_only(lab: Lab, api: Simulator) -> None:
    """P44 The page marks changed words, and what a model wrote is text: nothing in it runs."""
    script = "<script>alert(1)</script>"
    lab.go(job_with(lab, api, f"id,text\na,ECHO:{script} old\nb,ECHO:x\n"))
    job = job_with(lab, api, f"id,text\na,ECHO:{script} new\nb,ECHO:x\n")
    lab.go(job)
    path = lab.folder / "before-after.html"
    done = compared(lab, job, "--html", path)
    assert (done.exit_code, done.stdout) == (0, f"{path}\n")
    page = path.read_text(encoding="utf-8")
    assert "<del>old</del>" in page
    assert "<ins>new</ins>" in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count("<article") == 1
    refused = compared(lab, job, "--html", lab.folder / "prompts.csv")
    assert refused.exit_code == 2
    assert (lab.folder / "prompts.csv").read_text(encoding="utf-8").startswith("id,text")


def test_a_redo_leaves_one_answer(lab: Lab, api: Simulator) -> None:
    """The same request asked again replaces its answer: there is nothing to compare it with."""
    from batchgen import maintenance

    job = job_with(lab, api, "id,text\na,ECHO:x\n")
    lab.go(job)
    maintenance.redo(lab.load(job), ["a"])
    lab.go(job)
    assert "compared  0 rows" in compared(lab, job).stdout


WORDS = st.text(alphabet="ab 花\n.", max_size=40)


@given(WORDS, WORDS)
def test_parts_are_the_texts(before: str, after: str) -> None:
    """The parts of both texts are the texts, and what is not marked is in both, in order."""
    old, new = changed_words(before, after)
    assert "".join(part.text for part in old) == before
    assert "".join(part.text for part in new) == after

    def kept(parts: list[Any]) -> str:
        return "".join("".join(part.text.split()) for part in parts if not part.is_changed)

    assert kept(old) == kept(new)
    assert any(part.is_changed for part in [*old, *new]) == (before != after)


def test_long_texts_are_compared_in_time() -> None:
    """Texts too long to compare word by word are marked between their equal ends."""
    before = "same start " + "x y " * 5000 + "same end"
    after = "same start " + "y z " * 5000 + "same end"
    old, _ = changed_words(before, after)
    assert [part.is_changed for part in old] == [False, True, False]
