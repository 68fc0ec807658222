"""The examples in jobs/: each can be planned and runs against the simulated API, and together they
show everything.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from lab import Lab

from batchgen import Options, load_job, plan, run
from batchgen.job import json_schema
from batchgen.kinds import KINDS

JOBS = Path(__file__).parent.parent / "jobs"
NAMES = sorted(path.stem for path in JOBS.glob("*.yaml"))


def test_the_examples_run_and_run_once(lab: Lab) -> None:
    """P07 All examples in one command end with every row answered and exit 0; again it makes no
    call and says so.
    """
    shutil.copytree(JOBS, lab.folder / "jobs")
    for path in lab.folder.glob("jobs/*.yaml"):
        # Their limits would pace them for half a minute; nothing else of them is changed.
        text = re.sub(r"(_per_minute: \d+)", r"\g<1>00", path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
    command = ["run", *(f"jobs/{name}.yaml" for name in NAMES), "--simulate"]
    env = {name: value for name, value in lab.environ().items() if name != "OPENAI_API_KEY"}
    first = lab.run(*command, env=env)
    assert first.returncode == 0, first.stdout + first.stderr
    for name in NAMES:
        folder = lab.output(name, simulated=True)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        assert report["job"]["rows"]["succeeded"] == report["job"]["total"]
        for form in load_job(lab.folder / "jobs" / f"{name}.yaml").output.tables:
            name = "results.batch.jsonl" if form == "openai-batch" else f"results.{form}"
            assert (folder / name).stat().st_size > 0
    again = lab.run(*command, env=env)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("no call made") == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_planned(name: str, tmp_path: Path) -> None:
    """Every example can be planned as it stands, has 10 to 50 rows of prompts, and its price is
    known.
    """
    job = load_job(JOBS / f"{name}.yaml")
    if job.upstream_path is not None:
        run(load_job(job.upstream_path), Options(simulate=True, output=tmp_path))
    planned = plan(job, simulate=True, output=tmp_path)
    assert planned.first is not None
    combinations = 1
    for axis in job.matrix.values():
        combinations *= len(axis)
    assert 10 <= planned.total / combinations <= 50
    assert planned.cost is not None
    assert (
        (JOBS / f"{name}.yaml")
        .read_text(encoding="utf-8")
        .startswith("# yaml-language-server: $schema=job.schema.json\n")
    )


def test_the_examples_show_everything() -> None:
    """Each kind, requests that say it themselves, both forms of conversation, a matrix, each
    prompts format and each table format but Parquet is shown.
    """
    jobs = [load_job(JOBS / f"{name}.yaml") for name in NAMES]
    assert {job.kind for job in jobs} == {*KINDS, None}
    assert [job for job in jobs if job.conversation and job.conversation.id]
    assert [job for job in jobs if job.conversation and job.conversation.turns]
    assert [job for job in jobs if job.matrix]
    assert [job for job in jobs if job.prompts.job and job.prompts.where]
    suffixes = {Path(job.prompts.path).suffix for job in jobs if job.prompts.path}
    assert suffixes == {".csv", ".tsv", ".txt", ".jsonl"}
    assert {form for job in jobs for form in job.output.tables} == {"csv", "jsonl", "openai-batch"}


def test_the_schema_is_current() -> None:
    """The schema that editors read beside the examples is what `batchgen schema` prints."""
    assert json.loads((JOBS / "job.schema.json").read_text(encoding="utf-8")) == json_schema()
