"""`batchgen run-batch`: a file of requests in, one file of results out, no job."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from lab import KEY, Lab, serving, stalling

from batchgen.batch_format import Result, parse_result, request_line
from batchgen.errors import InputError
from batchgen.job import api_key, job_for_batch_file
from batchgen.simulator import RequestInfo, Simulator

CHAT = "/chat/completions"
COMMAND = ("run-batch", "-i", "in.jsonl", "-o", "out.jsonl")


def requests(lab: Lab, *texts: str, name: str = "in.jsonl") -> Path:
    """A file of chat requests named a, b, c, ... with these texts."""
    path = lab.folder / name
    lines = (
        request_line(
            chr(97 + n),
            CHAT,
            {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": text}]},
        )
        for n, text in enumerate(texts)
    )
    path.write_bytes(b"".join(lines))
    return path


def results(lab: Lab, name: str = "out.jsonl") -> list[Result]:
    return [parse_result(line) for line in (lab.folder / name).read_bytes().splitlines()]


def text_of(result: Result) -> Any:
    return result.body["choices"][0]["message"]["content"]


def run(
    lab: Lab, *args: str, source: str = "in.jsonl", target: str = "out.jsonl", **options: Any
) -> Any:
    return lab.run("run-batch", "-i", source, "-o", target, *args, **options)


def test_all_results_in_the_inputs_order(lab: Lab) -> None:
    """Successes and failures are in one file, in the order of their requests.

    Exit 3 says that some failed. The summary names the file.
    """

    def script(request: RequestInfo) -> str | None:
        return "400_policy" if "no" in str(request.body["messages"]) else None

    with serving(script=script) as api:
        requests(lab, "ECHO:1", "ECHO:no", "ECHO:3")
        done = run(lab, "--base-url", api.url)
        assert done.returncode == 3, done.stderr
        assert done.stdout.startswith("run-batch: 3 rows: 2 succeeded, 1 failed; 3 calls; ")
        assert done.stdout.rstrip().endswith(f" -> {lab.folder / 'out.jsonl'}")
    found = results(lab)
    assert [(each.custom_id, each.status) for each in found] == [("a", 200), ("b", 400), ("c", 200)]
    assert (text_of(found[0]), text_of(found[2])) == ("1", "3")
    assert found[1].body["error"]["code"] == "content_policy_violation"
    assert sorted(path.name for path in lab.folder.iterdir()) == [
        "in.jsonl",
        "out.jsonl",
        "out.jsonl.batchgen",
    ]


def test_the_same_command_resumes(lab: Lab) -> None:
    """P07 A stopped run keeps its answers, in the file too; the same command sends only the rest.

    In the end it sends nothing and leaves the file as it is. A file that is gone comes back.
    """
    stopped = [True]
    with serving(script=lambda request: "quota" if stopped and request.n > 2 else None) as api:
        requests(lab, *(f"ECHO:{n}" for n in range(6)))
        assert run(lab, "--base-url", api.url, "--concurrency", "1").returncode == 4
        assert [each.custom_id for each in results(lab)] == ["a", "b"]
        stopped.clear()
        second = run(lab, "--base-url", api.url, "--json")
        assert second.returncode == 0, second.stderr
        assert json.loads(second.stdout)["totals"]["calls"] == 4
        assert [text_of(each) for each in results(lab)] == [str(n) for n in range(6)]
        before = (lab.folder / "out.jsonl").stat().st_ino
        third = run(lab, "--base-url", api.url, "--quiet")
        assert (third.returncode, third.stdout, third.stderr) == (0, "", "")
        assert (lab.folder / "out.jsonl").stat().st_ino == before
        (lab.folder / "out.jsonl").unlink()
        assert "no call made" in run(lab, "--base-url", api.url).stdout
        assert len(results(lab)) == 6


def test_interrupted(lab: Lab) -> None:
    """P14 An interrupted run ends in order, with 130, and what was answered is in the file."""
    with stalling() as (api, arrived, released):
        requests(lab, *(f"ECHO:{n}" for n in range(100)))
        with lab.start(*COMMAND, "--base-url", api.url, "--concurrency", "2") as process:
            assert arrived.wait(60)
            process.send_signal(signal.SIGINT)
            released.set()
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert 100 > len(results(lab)) == api.requests.answered > 0


def test_changed_requests(lab: Lab, api: Simulator) -> None:
    """P08 Of a changed file only new and changed requests are sent; removed ones are dropped."""
    requests(lab, "ECHO:1", "ECHO:2", "ECHO:3")
    run(lab, "--base-url", api.url)
    requests(lab, "ECHO:1", "ECHO:other")
    assert "1 call;" in run(lab, "--base-url", api.url).stdout
    assert [text_of(each) for each in results(lab)] == ["1", "other"]


def test_from_stdin(lab: Lab, api: Simulator) -> None:
    """-i - reads the requests from a pipe, and without one goes on with the last."""
    data = requests(lab, "ECHO:1", "ECHO:2").read_bytes()
    assert run(lab, "--base-url", api.url, "--limit", "1", source="-", stdin=data).returncode == 0
    assert [text_of(each) for each in results(lab)] == ["1"]
    assert run(lab, "--base-url", api.url, source="-").returncode == 0
    assert [text_of(each) for each in results(lab)] == ["1", "2"]


def test_simulated(lab: Lab) -> None:
    """--simulate needs no key, has a journal of its own, and never overwrites real results."""
    requests(lab, "ECHO:1")
    env = {name: value for name, value in lab.environ().items() if name != "OPENAI_API_KEY"}
    done = run(lab, "--simulate", env=env)
    assert (done.returncode, "SIMULATED" in done.stdout) == (0, True), done.stderr
    assert (lab.folder / "out.jsonl.batchgen.simulated" / "journal.db").exists()
    with serving() as api:
        assert run(lab, "--base-url", api.url).returncode == 0
    real = (lab.folder / "out.jsonl").read_bytes()
    refused = run(lab, "--simulate", env=env)
    assert refused.returncode == 2
    assert "has real results" in refused.stderr
    for name in ("out.jsonl.batchgen", "out.jsonl.batchgen.simulated"):
        shutil.rmtree(lab.folder / name)
    assert run(lab, "--simulate", env=env).returncode == 2
    assert (lab.folder / "out.jsonl").read_bytes() == real


def test_without_a_key(lab: Lab) -> None:
    """Only OpenAI's server requires a key, but a variable that is named must exist."""
    requests(lab, "ECHO:1")
    merged = {"HOME": str(lab.folder)}

    def key(base_url: str | None = None, name: str | None = None, **env: str) -> str | None:
        job = job_for_batch_file(
            "in.jsonl",
            lab.folder / "o",
            base_url=base_url,
            api_key_env=name,
            environ={**merged, **env},
        )
        return api_key(job)

    assert key("http://127.0.0.1:1/v1") is None
    assert key(OPENAI_BASE_URL="http://127.0.0.1:1/v1") is None
    assert key("http://127.0.0.1:1/v1", OPENAI_API_KEY=KEY) == KEY
    assert key("http://127.0.0.1:1/v1", "MINE", MINE="m", OPENAI_API_KEY=KEY) == "m"
    env = {name: value for name, value in lab.environ().items() if name != "OPENAI_API_KEY"}
    for args in ((), ("--base-url", "http://127.0.0.1:1/v1", "--api-key-env", "MINE")):
        done = run(lab, *args, env=env)
        assert done.returncode == 4
        assert (
            f"the environment variable {'MINE' if args else 'OPENAI_API_KEY'} is not set"
            in done.stderr
        )
    assert not (lab.folder / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--base-url", "x"], "batchgen run-batch: --base-url: must begin with https://"),
        (["--base-url", "http://gpu:8000/v1"], "(run-batch: --allow-http)"),
        (
            ["--api-key-env", "a b"],
            "batchgen run-batch: --api-key-env: must be the NAME of an environment variable",
        ),
        (["--concurrency", "0"], "'--concurrency': 0 is not in the range"),
        (["--max-cost", "nan"], "'--max-cost': nan is not an amount of money"),
        (["--max-cost", "1"], "batchgen run-batch: a cap on cost needs a cap on the answer"),
        (["-i", "none.jsonl"], "none.jsonl: there is no such file"),
        (["-i", ""], "batchgen run-batch: --input-file: must be a path"),
        (["-i", "wrong.jsonl"], "wrong.jsonl:2:45: url: must be one of /v1/responses"),
        (
            ["-o", "a\nb"],
            "batchgen run-batch: --output-file: must be a path, without control characters",
        ),
        (["-o", "in.jsonl"], "-o would replace the requests"),
        (["-o", "./sub/../in.jsonl"], "-o would replace the requests"),
        (["-o", "-"], "-o must be a file"),
        (["-o", "folder"], "is a directory"),
        (["-o", "link.jsonl"], "-o link.jsonl is a link or not a regular file; name another"),
        (["-o", os.devnull], "is a link or not a regular file"),
    ],
)
def test_what_is_wrong_is_told(lab: Lab, args: list[str], expected: str) -> None:
    """P30 A problem is named by its option or line, with exit 2, before anything is sent.

    No job file is named, because nobody wrote one.
    """
    requests(lab, "ECHO:1")
    (lab.folder / "sub").mkdir()
    (lab.folder / "folder").mkdir()
    (lab.folder / "link.jsonl").symlink_to("elsewhere")
    wrong = '{"custom_id": "x", "method": "POST", "url": "/v2/x", "body": {}}\n'
    (lab.folder / "wrong.jsonl").write_text(
        (lab.folder / "in.jsonl").read_text("utf-8") + wrong, encoding="utf-8"
    )
    before = (lab.folder / "in.jsonl").read_bytes()
    done = run(lab, *args)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert ".yaml" not in done.stderr
    assert (lab.folder / "in.jsonl").read_bytes() == before
    assert not (lab.folder / "out.jsonl").exists()


def test_two_at_once(lab: Lab) -> None:
    """P06 Of two commands with one output file the second ends with 75; the first goes on."""
    with stalling() as (api, arrived, released):
        requests(lab, "ECHO:1", "ECHO:2")
        with lab.start(*COMMAND, "--base-url", api.url) as first:
            assert arrived.wait(60)
            assert run(lab, "--base-url", api.url).returncode == 75
            released.set()
            _, errors = first.communicate(timeout=60)
        assert first.returncode == 0, errors
    assert len(results(lab)) == 2


def test_what_a_dead_writer_left_is_removed(lab: Lab, api: Simulator) -> None:
    """P04 The next run removes what a killed run left half written beside the output.

    It removes no other file.
    """
    requests(lab, "ECHO:1")
    left, others = (
        lab.folder / ".out.jsonl.4194304-0.tmp",
        lab.folder / ".other.jsonl.4194304-0.tmp",
    )
    left.touch()
    others.touch()
    assert run(lab, "--base-url", api.url).returncode == 0
    assert (left.exists(), others.exists()) == (False, True)


def test_lines_with_names_of_columns(lab: Lab, api: Simulator) -> None:
    """Other keys of a line may have any name, because there is no table with columns."""
    path = requests(lab, "ECHO:1")
    path.write_text(
        json.dumps({**json.loads(path.read_bytes()), "status": 1, "output": "x"}), encoding="utf-8"
    )
    assert run(lab, "--base-url", api.url).returncode == 0
    assert text_of(results(lab)[0]) == "1"


def test_a_job_without_a_file_has_no_lines(lab: Lab) -> None:
    """A problem of such a job has no line and column."""
    job = job_for_batch_file("in.jsonl", lab.folder / "o.jsonl", environ={})
    assert str(job.problem(("limits", "max_cost"), "wrong")) == "batchgen run-batch: wrong"
    assert job.output_dir(None, False) == lab.folder / "o.jsonl.batchgen"
    with pytest.raises(InputError, match=r"^batchgen run-batch: --base-url: holds spaces"):
        job_for_batch_file("in.jsonl", lab.folder / "o.jsonl", base_url="http://a b", environ={})
