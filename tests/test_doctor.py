"""`batchgen doctor`: what a job needs, and what is wrong with it."""

from __future__ import annotations

import json
import os
import shutil
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from certificates import EXPIRED
from click.testing import CliRunner, Result
from hostile import Hostile, ok
from lab import KEY, Lab, Server, serving

from batchgen.cli import main
from batchgen.doctor import machine, server
from batchgen.doctor.server import Reached
from batchgen.job import DEFAULT_URL, Connection
from batchgen.simulator import Settings, Simulator


def doctor(lab: Lab, *args: str | Path, **environ: str) -> Result:
    """What `batchgen doctor ARGS` does in this process."""
    env: dict[str, str | None] = {"OPENAI_BASE_URL": None, **lab.environ(**environ)}
    return CliRunner().invoke(main, ["doctor", *map(str, args)], env=env)


def states(lab: Lab, *args: str | Path, **environ: str) -> tuple[int, dict[str, str], str]:
    """The exit code, the state of each thing, and all that is wrong."""
    found: dict[str, Any] = json.loads(doctor(lab, *args, "--json", **environ).stdout)
    each = {finding["name"]: finding["state"] for finding in found["findings"]}
    wrong = [finding["message"] for finding in found["findings"] if finding["exit_code"]]
    return found["exit_code"], each, "\n".join(wrong)


def test_one_free_call(lab: Lab) -> None:
    """All that a job needs is checked with one GET of the list of models, which is announced
    first; nothing is written, and the key is shown nowhere.
    """
    with serving(Settings(key=KEY), record=True) as api:
        job = lab.job(api.url)
        before = sorted(lab.folder.rglob("*"))
        done = doctor(lab, job)
        assert [(each.method, each.path) for each in api.log] == [("GET", "/v1/models")]
        assert f"GET {api.url}/models" in done.stderr
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("nothing is wrong\n")
    assert sorted(lab.folder.rglob("*")) == before
    assert KEY not in done.output
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "gpt-5.6-luna: the server has it" in lines["model"]
    assert lines["clock"].endswith("agrees with the server's")


def test_without_a_job(lab: Lab, api: Simulator) -> None:
    """Without a job, the key and the server are those of the environment; --simulate needs none."""
    code, found, _ = states(lab, OPENAI_BASE_URL=api.url)
    assert (code, found["key"], found["server"]) == (0, "ok", "ok")
    assert "model" not in found
    assert api.requests.received == 1
    assert states(lab, "--simulate", OPENAI_API_KEY="")[0] == 0


def test_the_key(lab: Lab) -> None:
    """P18 A key that is missing or refused ends in 4 and says which variable to set; the server is
    still asked, and the refused key is not repeated.
    """
    with serving(Settings(key="another")) as api:
        job = lab.job(api.url)
        code, found, wrong = states(lab, job)
        assert (code, found["key"], found["server"]) == (4, "wrong", "ok")
        assert "provider.api_key_env" in wrong
        assert KEY not in wrong
        code, found, wrong = states(lab, job, OPENAI_API_KEY="")
        assert (code, found["key"], found["server"]) == (4, "wrong", "ok")
        assert "OPENAI_API_KEY is empty" in wrong


def test_a_job_that_cannot_run(lab: Lab, api: Simulator) -> None:
    """Prompts that are gone, and an address that is none, end in 2."""
    job = lab.job(api.url, prompts={"path": "gone.csv"})
    code, found, wrong = states(lab, job)
    assert (code, found["job"]) == (2, "wrong")
    assert "gone.csv" in wrong
    code, found, wrong = states(lab, OPENAI_BASE_URL="ftp://x")
    assert (code, found["address"]) == (2, "wrong")
    assert "OPENAI_BASE_URL" in wrong


def test_prompts_in_a_pipe(lab: Lab, api: Simulator) -> None:
    """They are not opened: that would wait for a writer, and take what a run must read."""
    os.mkfifo(lab.folder / "pipe.csv")
    job = lab.job(api.url, prompts={"path": "pipe.csv"})
    code, found, _ = states(lab, job)
    assert (code, found["job"]) == (0, "ok")


def test_a_certificate(lab: Lab, tmp_path: Path) -> None:
    """An expired certificate ends in 4 and names SSL_CERT_FILE; the server is sent nothing."""
    pem = tmp_path / "server.pem"
    pem.write_text(EXPIRED)
    hostile = Hostile(lambda n: ok(), tls=pem)
    thread = Server(hostile.start, hostile.stop)
    try:
        code, found, wrong = states(lab, lab.job(hostile.url))
    finally:
        thread.close()
    assert (code, found["certificate"], found["server"]) == (4, "wrong", "unknown")
    assert "SSL_CERT_FILE" in wrong
    assert hostile.requests == []


def test_a_proxy_keeps_its_password(lab: Lab) -> None:
    """P18 The proxy is named without its password, and one that is none ends in 2."""
    job = lab.job("https://api.test/v1")
    done = doctor(lab, job, HTTPS_PROXY="http://user:secret-word@127.0.0.1:9", NO_PROXY="")
    assert "127.0.0.1:9" in done.stdout
    assert "cannot be reached through the proxy" in done.stdout
    assert done.exit_code == 4
    assert "secret-word" not in done.output
    assert states(lab, job, HTTPS_PROXY="socks5://127.0.0.1:9")[0] == 2


def test_a_disk_that_cannot_be_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output folder that cannot be made, or has no room, ends in 74, before 2 and 4."""
    job = lab.job("http://127.0.0.1:9/v1", output={"dir": "prompts.csv/out"})
    code, found, wrong = states(lab, job)
    assert (code, found["disk"], found["server"]) == (74, "wrong", "wrong")
    assert "choose another output.dir" in wrong
    usage = type(shutil.disk_usage(lab.folder))(10**9, 10**9, 0)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    assert "make room" in machine.disk(lab.folder).message


def test_a_state_folder_that_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users could change the limits of all jobs: that ends in 74."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert machine.state().state == "ok"
    (tmp_path / "batchgen").mkdir(mode=0o700)
    assert machine.state().state == "ok"
    (tmp_path / "batchgen").chmod(0o777)
    assert (machine.state().state, machine.state().exit_code) == ("wrong", 74)


def reached(**headers: str) -> Reached:
    return Reached(headers=headers, models=("gpt-5.6-luna",), received_at=time.time())


def test_a_clock_that_is_wrong() -> None:
    """A clock an hour behind the server's is wrong, and the sentence says by how much."""
    found = server.clock(reached(date=formatdate(time.time() + 3600)))
    assert found.exit_code == 4
    assert "behind" in found.message
    assert server.clock(reached(date="soon")).state == "unknown"


@pytest.mark.parametrize(("url", "state"), [(DEFAULT_URL, "wrong"), ("http://a", "unknown")])
def test_a_model_that_is_not_listed(url: str, state: str) -> None:
    """OpenAI lists all models that a key may use; other servers need not, so nothing is wrong."""
    there = Connection(base_url=url, provider_id="p", organization=None, project=None, headers={})
    found = server.model(reached(), "gpt-5.6-lune", there)
    assert found.state == state
    assert "gpt-5.6-luna" in found.message


def test_limits_that_the_server_names() -> None:
    """Limits in the reply's headers are shown."""
    found = server.limits(reached(**{"x-ratelimit-limit-requests": "5000"}))
    assert "5,000 requests a minute" in found.message
