"""A sample of a job: which rows it draws, and what a person sees of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from lab import Lab

from batchgen.cli import main
from batchgen.cli.preview import preview, without_bytes


def drawn(lab: Lab) -> set[str]:
    return {row["id"] for row in lab.table(simulated=True) if row["status"] == "succeeded"}


def threads(folder: Path, names: list[str]) -> None:
    lines = [f"{name}{turn},{name},ECHO:{turn}" for turn in (1, 2, 3) for name in names]
    (folder / "prompts.csv").write_text("\n".join(["id,thread,text", *lines]) + "\n", "utf-8")


def test_a_sample_is_the_same_rows_again(lab: Lab) -> None:
    """P50 The same seed draws the same rows and asks none of them again; rows that are added, and
    another prompt, leave the sample as it is; another seed draws others.
    """
    job = lab.job(rows=40)
    first = lab.go(job, simulate=True, sample=6)
    assert (first.rows, first.run.calls, first.exit_code) == ({"succeeded": 6}, 6, 0)
    chosen = drawn(lab)
    assert chosen != {f"r{n}" for n in range(1, 7)}
    assert lab.go(job, simulate=True, sample=6).run.calls == 0
    lab.prompts(44)
    assert lab.go(job, simulate=True, sample=6).run.calls <= 2
    assert lab.go(job, simulate=True, sample=6, seed=2).run.calls > 2
    lab.prompts(40)
    again = lab.job(rows=40, name="again", output={"dir": "outputs/job"}, matrix={"take": [1, 2]})
    assert lab.go(again, simulate=True, sample=3).rows == {"succeeded": 6}


def test_a_sample_takes_whole_conversations(lab: Lab) -> None:
    """P50 Of rows that make conversations, a sample draws conversations, with all turns."""
    threads(lab.folder, list("abcdefgh"))
    job = lab.job(rows=None, conversation={"id": "thread"})
    assert lab.go(job, simulate=True, sample=2).rows == {"succeeded": 6}
    assert len({name[0] for name in drawn(lab)}) == 2


def test_a_sample_is_read_as_cards(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P50 P44 The answers of a sample are printed to be read: no JSON, nothing that steers the
    terminal, no line wider than it; then the price of the rest and the command that runs it. The
    exit code is that of the sample, and --json prints the report alone.
    """
    lines = ["id,text", *(f"r{n},ECHO:one \x1b[31mtwo {'word ' * 40}" for n in range(30))]
    (lab.folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    job = str(lab.job(rows=None))
    runner = CliRunner(env={**lab.environ(), "COLUMNS": "60", "NO_COLOR": "1"})
    command = ["run", job, "--simulate", "--sample", "3"]
    done = runner.invoke(main, command)
    assert done.exit_code == 0, done.output
    printed = done.stdout.splitlines()[1:]
    assert sum(line.startswith("  answer") for line in printed) == 3
    assert "\\x1b[31mtwo" in done.stdout
    assert "\x1b" not in done.stdout
    assert all(len(line) <= 60 for line in printed[:-1])
    assert printed[-1] == f"  next    batchgen run {job} --simulate"
    text = " ".join(" ".join(printed).split())
    assert "3 rows at random, of 30 rows; --seed 1" in text
    assert "27 requests, about $" in text
    assert "from 3 answers so far; at most $" in text
    assert (
        json.loads(runner.invoke(main, [*command, "--json"]).stdout)["jobs"][0]["run"]["calls"] == 0
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sample", "3", "--limit", "2"], "--limit and --sample both choose rows"),
        (["--sample", "3", "--quiet"], "--quiet prints nothing"),
        (["--sample", "3", "--mode", "batch"], "add --mode online"),
        (["--seed", "3"], "--seed chooses the rows of --sample"),
        (["--sample", "3", "job.yaml"], "--sample takes one job"),
    ],
)
def test_what_a_sample_does_not_go_with(lab: Lab, more: list[str], message: str) -> None:
    """P50 Options that a sample does not go with are refused before anything is sent."""
    job = lab.job()
    done = CliRunner(env=lab.environ()).invoke(main, ["run", str(job), "--simulate", *more])
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not lab.output(simulated=True).exists()


def test_a_plan_prints_no_bytes_and_no_more_than_a_screen(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P50 The first request of a plan is cut to a screen, base64 is named and not printed, in JSON
    too, and --full prints it all.
    """
    encoded = "iVBORw0KGgo" * 400
    text = "many words " * 500
    content: list[Any] = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
        *({"type": "text", "text": "more"} for _ in range(60)),
    ]
    request = {
        "model": "gpt-5.6-luna",
        "messages": [{"role": "user", "content": content}],
        "max_completion_tokens": 9,
    }
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    cut = preview({"body": request})
    assert sum(-(-len(line) // 80) for line in cut.splitlines()) <= 24
    assert "more characters: --full" in cut
    assert "more lines: --full)" in cut
    assert encoded[:250] not in str(without_bytes(request))
    assert text in str(without_bytes(request))
    job = str(lab.job(request=request))
    runner = CliRunner(env=lab.environ())
    for options in ([], ["--json"]):
        printed = runner.invoke(main, ["plan", job, *options]).stdout
        assert encoded[:250] not in printed
        assert encoded in runner.invoke(main, ["plan", job, "--full", *options]).stdout


def test_a_plan_says_why_rows_failed_and_what_an_edit_leaves(lab: Lab) -> None:
    """P50 P08 A plan names a row of each reason why rows failed. In a job without ids it says how
    many answers no row has any more, and an undone edit gives them back.
    """
    parts: dict[str, Any] = {"prompts": {"path": "prompts.csv", "bad_rows": "fail"}}
    path = lab.prompts(3)
    job = lab.job(rows=None, **parts)
    lab.go(job, simulate=True)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("answer 2", "answer two") + "r4\n", encoding="utf-8")
    printed = CliRunner(env=lab.environ()).invoke(main, ["plan", str(job), "--simulate"]).stdout
    assert "rows:     4 (2 succeeded, 1 failed, 1 pending)" in printed
    assert "a row that cannot be read or sent (input), as " in printed
    assert "in line 5: " in printed
    assert "1 recorded answer of rows that were changed or removed: kept" in printed
    path.write_text(text, encoding="utf-8")
    report = lab.go(job, simulate=True)
    assert (report.run.calls, report.rows) == (0, {"succeeded": 3})
