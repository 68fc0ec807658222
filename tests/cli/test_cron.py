"""P15 batchgen works under cron: no terminal, no environment, cwd /, LC_ALL=C, no stdin."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab import KEY, Lab, serving

from batchgen.simulator import Settings, Simulator

NAME = "Größe-商品"


def bare(command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """A command line as cron runs it: /bin/sh, cwd /, nothing else."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd="/",
        env=env or {},
        capture_output=True,
        stdin=None,
        timeout=120,
        check=False,
    )


def batchgen(*args: str | Path) -> str:
    """The command, by its full path."""
    return " ".join(f"'{part}'" for part in (sys.executable, "-m", "batchgen", *args))


@pytest.fixture
def job(lab: Lab, api: Simulator) -> Path:
    """A job with UTF-8 in its path, its prompts' name and its data, and a .env with the key."""
    folder = lab.folder / NAME
    folder.mkdir()
    (folder / ".env").write_text(f"OPENAI_API_KEY={KEY}\n", encoding="utf-8")
    (folder / f"{NAME}.csv").write_text(
        "id,Größe\nä,ECHO:weiß 商品 😀\nb,ECHO:é\n", encoding="utf-8"
    )
    text = {
        "name": "job",
        "kind": "chat",
        "prompts": {"path": f"{NAME}.csv", "id": "id"},
        "request": {"model": "m", "messages": [{"role": "user", "content": "{{ Größe }}"}]},
        "provider": {"base_url": api.url},
    }
    path = folder / f"{NAME}.yaml"
    path.write_text(json.dumps(text, ensure_ascii=False), encoding="utf-8")
    return path


def answers(job: Path) -> list[str]:
    """The outputs in the job's table."""
    with open(job.parent / "outputs" / "job" / "results.csv", encoding="utf-8", newline="") as file:
        return [row["output"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "env",
    [{}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}],
    ids=["none", "C", "POSIX"],
)
def test_without_an_environment(job: Path, env: dict[str, str]) -> None:
    """P15 `env -i`, cwd /, an ASCII locale: names and data in UTF-8 go in and out unchanged."""
    done = bare(batchgen("run", job), env)
    assert done.returncode == 0, done.stderr.decode()
    assert answers(job) == ["weiß 商品 😀", "é"]
    shown = bare(batchgen("show", job, "ä"), env)
    assert shown.returncode == 0, shown.stderr.decode()
    assert "weiß 商品 😀" in shown.stdout.decode()


def test_without_any_stream(job: Path) -> None:
    """P14 P15 With stdin, stdout and stderr closed a run works, and no file gets their numbers."""
    done = bare(batchgen("run", job) + " <&- >&- 2>&-")
    assert done.returncode == 0
    assert answers(job) == ["weiß 商品 😀", "é"]
    assert bare(batchgen("verify", job)).returncode == 0


def test_quiet_is_silent_on_success(job: Path) -> None:
    """P15 --quiet prints nothing when every row succeeded, so that cron sends no mail."""
    done = bare(batchgen("run", job, "--quiet"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    (job.parent / f"{NAME}.csv").write_text("id,Größe\nä\n", encoding="utf-8")
    done = bare(batchgen("run", job, "--quiet"))
    assert done.returncode == 2
    assert f"{NAME}.csv:2: " in done.stderr.decode()


def test_few_file_descriptors(lab: Lab) -> None:
    """P15 With a hard `ulimit -n 256`, concurrency 500 opens as many connections as fit."""
    with serving(Settings(latency=0.05)) as api:
        job = lab.job(api.url, rows=600, limits={"concurrency": 500})
        command = f"ulimit -n 256; OPENAI_API_KEY={KEY} exec {batchgen('run', job)}"
        done = bare(command)
        peak = api.requests.peak
    assert done.returncode == 0, done.stderr.decode()
    assert len(lab.table()) == 600
    assert 20 < peak < 256


def test_piped_prompts(lab: Lab, api: Simulator) -> None:
    """P15 Prompts from a pipe; the same command with nothing in the pipe goes on with them."""
    job = lab.job(api.url, prompts={"path": "-", "format": "csv", "id": "id"})
    env = {"OPENAI_API_KEY": KEY}
    done = bare(f"printf 'id,text\\n1,ECHO:a\\n' | {batchgen('run', job)}", env)
    assert done.returncode == 0, done.stderr.decode()
    again = bare(f"{batchgen('run', job)} </dev/null", env)
    assert again.returncode == 0, again.stderr.decode()
    assert api.requests.received == 1
    assert [row["output"] for row in lab.table()] == ["a"]


def test_another_folder_and_home(job: Path) -> None:
    """P15 Neither $HOME nor the working directory decides where anything is."""
    done = bare(f"cd {os.path.sep} && HOME=/nonexistent {batchgen('run', job)}")
    assert done.returncode == 0, done.stderr.decode()
    assert (job.parent / "outputs" / "job" / "report.json").exists()
