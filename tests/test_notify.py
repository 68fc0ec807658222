"""`notify`: a command or an address is told how a run ended."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from lab import KEY, Lab, serving

import batchgen
from batchgen import notify
from batchgen.cli import main
from batchgen.errors import InputError
from batchgen.job import NOTICE_FIELDS
from batchgen.simulator import Simulator


class Hook(HTTPServer):
    """Takes what is posted: path, headers and text of each; answers with `status`."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.posts: list[tuple[str, dict[str, str], str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/secret-path"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.posts.append((self.path, dict(self.headers), text))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    """An address that can be told of a run."""
    with listening() as server:
        yield server


@contextmanager
def listening() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(lab: Lab, *args: str | Path, **environ: str) -> Result:
    """What `batchgen run ARGS` does in this process."""
    env: dict[str, str | None] = dict(lab.environ(**environ))
    return CliRunner().invoke(main, ["run", *map(str, args)], env=env)


def test_a_failure(lab: Lab, hook: Hook) -> None:
    """A run with failed rows is told of with counts, the file to open, and a header from the
    environment; no prompt, no answer and no key is told, and nothing of it is shown.
    """
    section = {"url": hook.url, "headers_env": {"Authorization": "HOOK"}}
    with serving(script=lambda call: "400_policy" if "answer 2" in str(call.body) else None) as api:
        job = lab.job(api.url, rows=3, notify=section)
        done = run(lab, job, HOOK="Bearer hush")
    assert done.exit_code == 3
    ((path, headers, text),) = hook.posts
    assert path == "/secret-path"
    assert headers["Authorization"] == "Bearer hush"
    notice = json.loads(text)
    assert set(notice) == set(NOTICE_FIELDS)
    assert (notice["event"], notice["exit_code"], notice["job"]) == ("failure", 3, "job")
    assert (notice["rows"], notice["total"]) == ({"succeeded": 2, "failed": 1}, 3)
    assert Path(notice["file"]).is_file()
    assert "1 failed" in notice["text"]
    assert not [word for word in ("answer", KEY, "hush") if word in text]
    assert "hush" not in done.output


def test_a_run_that_succeeds(lab: Lab, hook: Hook, api: Simulator) -> None:
    """It is told of only if the job wants that, and never when it is simulated; the body can be
    what Slack takes, or a text.
    """
    job = lab.job(api.url, notify={"url": hook.url})
    assert run(lab, job).exit_code == 0
    section = {"url_env": "HOOK", "when": ["finish"], "body": {"text": "{{ text }}"}}
    job = lab.job(api.url, notify=section)
    assert run(lab, job, "--simulate", HOOK=hook.url).exit_code == 0
    assert hook.posts == []
    assert run(lab, job, HOOK=hook.url).exit_code == 0
    job = lab.job(api.url, notify={**section, "body": "{{job}}: {{ exit_code }}"})
    assert run(lab, job, HOOK=hook.url).exit_code == 0
    (_, _, first), (_, headers, second) = hook.posts
    assert json.loads(first)["text"].startswith("job: every row succeeded")
    assert (second, headers["Content-Type"]) == ("job: 0", "text/plain; charset=utf-8")


def test_a_run_that_cannot_start(lab: Lab, hook: Hook) -> None:
    """P15 Prompts that are gone and templates that are wrong are told of once, also among several
    jobs, and so is a missing key."""
    section = {"url": hook.url, "body": {"code": "{{ exit_code }}", "job": "{{ job }}"}}
    nowhere = "http://127.0.0.1:9/v1"
    gone = lab.job(nowhere, name="gone", prompts={"path": "gone.csv"}, notify=section)
    assert run(lab, gone).exit_code == 2
    other = lab.job(nowhere, name="other")
    assert run(lab, other, gone).exit_code == 2
    request = {"model": "m", "messages": [{"role": "user", "content": "{{ x + }}"}]}
    assert run(lab, lab.job(nowhere, name="bad", request=request, notify=section)).exit_code == 2
    keyless = lab.job(nowhere, name="keyless", notify=section)
    assert run(lab, keyless, OPENAI_API_KEY="").exit_code == 4
    posts = [tuple(json.loads(text).values()) for _, _, text in hook.posts]
    assert posts == [(2, "gone"), (2, "gone"), (2, "bad"), (4, "keyless")]


@pytest.mark.parametrize("status", [302, 500])
def test_telling_that_fails(lab: Lab, api: Simulator, hook: Hook, status: int) -> None:
    """A redirect is not followed, and a failure to tell changes no exit code: it is a line on
    stderr and in run.log, without the address, which may be a secret.
    """
    hook.status = status
    done = run(lab, lab.job(api.url, notify={"url": hook.url, "when": ["finish"]}))
    assert done.exit_code == 0
    assert [path for path, _, _ in hook.posts] == ["/secret-path"]
    line = f"notify: 127.0.0.1: HTTP {status}"
    log = (lab.output() / "run.log").read_text(encoding="utf-8")
    assert line in done.stderr
    assert line in log
    assert "secret-path" not in done.output + log


def test_a_command(lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets JSON on stdin and its arguments as they are, without a shell and without the key; one
    that fails, is not there or does not end changes nothing.
    """

    def run_with(*command: str) -> Result:
        section = {"command": list(command), "when": ["finish"]}
        done = run(lab, lab.job(api.url, notify=section))
        assert done.exit_code == 0
        return done

    run_with("sh", "-c", 'cat > told; echo "$1" > argument; env > variables', "sh", "$HOME; *")
    assert json.loads((lab.folder / "told").read_text(encoding="utf-8"))["total"] == 5
    assert (lab.folder / "argument").read_text(encoding="utf-8") == "$HOME; *\n"
    assert KEY not in (lab.folder / "variables").read_text(encoding="utf-8")
    assert "notify: false: ended with 1" in run_with("false").stderr
    assert "fix notify.command" in run_with("no-such-program").stderr
    monkeypatch.setattr(notify, "TIMEOUT", 0.2)
    began = time.monotonic()
    assert "was ended" in run_with("sh", "-c", "sleep 60 & sleep 60").stderr
    assert time.monotonic() - began < 30


def test_a_server_that_does_not_answer(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds up the end of a run for no longer than the time-out."""
    monkeypatch.setattr(notify, "TIMEOUT", 0.2)
    silent = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    section = {"url": f"http://127.0.0.1:{silent.server_port}/", "when": ["finish"]}
    with silent:
        done = run(lab, lab.job(api.url, notify=section))
    assert done.exit_code == 0
    assert "notify: 127.0.0.1: " in done.stderr


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "needs a command"),
        ({"url": "ftp://a/b"}, "must begin with https://"),
        ({"url": "https://hooks.slack.com/services/a"}, "is a secret"),
        ({"url": "https://u:p@a/b"}, "must not hold a user name"),
        ({"url": "https://a", "url_env": "HOOK"}, "keep one of them"),
        ({"url": "https://a", "headers": {"Authorization": "x"}}, "does not belong in a job file"),
        ({"url": "https://a", "body": {"text": "{{ output }}"}}, "has no 'output'"),
        ({"url": "https://a", "body": 3}, "must be a mapping"),
    ],
)
def test_what_a_job_may_say(lab: Lab, section: dict[str, Any], words: str) -> None:
    """P18 What cannot work, and a secret in the job file, are problems of the job."""
    with pytest.raises(InputError, match=words):
        batchgen.load_job(lab.job(notify=section))
