"""One job's folder: what a run may never write over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

import batchgen
from batchgen import maintenance
from batchgen.simulator import Simulator

PROMPTS = '{"id": "a", "text": "ECHO:one"}\n'


def prompts_at(lab: Lab, path: str) -> dict[str, Any]:
    """The `prompts` of a job whose prompts file is `path`, which is made."""
    (lab.folder / path).parent.mkdir(parents=True, exist_ok=True)
    (lab.folder / path).write_text(PROMPTS, encoding="utf-8")
    return {"path": path, "id": "id", "format": "jsonl"}


@pytest.mark.parametrize(
    ("written", "tables"),
    [
        ("results.jsonl", ["csv", "jsonl"]),
        ("results.csv", ["csv"]),
        ("errors.csv", ["csv"]),
        ("results.batch.jsonl", ["openai-batch"]),
        ("report.json", ["csv"]),
        ("run.log", ["csv"]),
        ("journal.db", ["csv"]),
    ],
)
def test_a_job_does_not_write_over_its_own_prompts(
    lab: Lab, api: Simulator, written: str, tables: list[str]
) -> None:
    """P30 Prompts that a run would replace by a file of its own are refused before any call, and
    stay as they are; every other command refuses them too.
    """
    parts: dict[str, Any] = {
        "prompts": prompts_at(lab, written),
        "output": {"dir": ".", "tables": tables},
    }
    path = lab.job(api.url, **parts)
    done = lab.run("run", path)
    assert done.returncode == 2, done.stderr
    assert f"prompts.path: a run would write {lab.folder / written} over this file" in done.stderr
    for command in (batchgen.plan, maintenance.export, maintenance.redo):
        with pytest.raises(batchgen.InputError, match="would write"):
            command(lab.load(path))
    assert api.requests.received == 0
    assert (lab.folder / written).read_text(encoding="utf-8") == PROMPTS
    assert sorted(each.name for each in lab.folder.iterdir()) == sorted(["job.yaml", written])


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("kept", ["prompts", "table"])
def test_no_other_name_hides_that_it_is_the_same_file(
    lab: Lab, api: Simulator, link: Any, kept: str
) -> None:
    """P30 Links are seen through, whichever of the two is the link; so is a name in other letters
    where the file system takes both for one, because files are compared and not their names.
    """
    table = lab.output() / "results.csv"
    table.parent.mkdir(parents=True)
    file, name = (lab.folder / "mine.csv", table) if kept == "prompts" else (table, "mine.csv")
    file.write_text("id,text\na,ECHO:one\n", encoding="utf-8")
    link(file, lab.folder / name)
    path = lab.job(api.url, prompts={"path": "mine.csv", "id": "id"})
    with pytest.raises(batchgen.InputError, match=r"job\.yaml:.*prompts\.path: a run would write"):
        lab.go(path)
    assert api.requests.received == 0
    assert file.read_text(encoding="utf-8") == "id,text\na,ECHO:one\n"


def test_prompts_named_on_the_command_line_are_looked_at_too(lab: Lab, api: Simulator) -> None:
    """P30 `--prompts` may not name the job's own table, and a job beside its tables that nobody
    replaces runs.
    """
    path = lab.job(api.url, rows=1, output={"dir": "."})
    assert lab.run("run", path).returncode == 0
    done = lab.run("run", path, "--prompts", "results.csv")
    assert done.returncode == 2
    assert "would write" in done.stderr
    assert lab.run("run", path).returncode == 0
    assert api.requests.received == 1


def test_the_job_file_is_not_written_over(lab: Lab, api: Simulator) -> None:
    """P30 A job file that has the name of a file of the output folder is refused."""
    path = lab.job(api.url, rows=1, name="report", output={"dir": "."})
    text = path.read_text(encoding="utf-8")
    job = path.rename(Path(lab.folder / "report.json"))
    with pytest.raises(batchgen.InputError, match="the job file: a run would write"):
        lab.go(job)
    assert job.read_text(encoding="utf-8") == text


def test_run_batch_sees_through_links(lab: Lab, api: Simulator) -> None:
    """P30 `run-batch -o` may not be the requests under another name."""
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": "ECHO:one"}]},
    }
    source = lab.folder / "in.jsonl"
    source.write_text(json.dumps(line) + "\n", encoding="utf-8")
    os.link(source, lab.folder / "out.jsonl")
    done = lab.run("run-batch", "-i", "in.jsonl", "-o", "out.jsonl", "--base-url", api.url)
    assert done.returncode == 2
    assert "-o would replace the requests" in done.stderr
    assert api.requests.received == 0
