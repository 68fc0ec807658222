"""The command as people and scripts use it: what it prints to stdout and stderr."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from lab import KEY, Lab, serving

from batchgen.cli import main, progress, terminal
from batchgen.escapes import escape_controls
from batchgen.simulator import Settings, Simulator
from batchgen.workspace import Workspace

NOWHERE = "http://127.0.0.1:9/v1"


def parsed(text: str) -> Any:
    """The one JSON object that a text is."""
    return json.loads(text)


def on_a_terminal(
    lab: Lab,
    *args: str | Path,
    env: dict[str, str] | None = None,
    size: tuple[int, int] = (24, 100),
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal of this size; its exit code and what it drew."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with lab.start(
        *args, stdin=theirs, stdout=theirs, stderr=theirs, env=env or lab.environ(TERM="xterm")
    ) as run:
        os.close(theirs)
        drawn = bytearray()
        while True:
            try:
                drawn += os.read(ours, 65536) or b""
            except OSError:  # how Linux says that the other side has closed
                break
    os.close(ours)
    return run.returncode, drawn.decode()


def test_results_and_messages_are_kept_apart(lab: Lab, api: Simulator) -> None:
    """The summary goes to stdout, and nothing else does; messages go to stderr."""
    job = lab.job(api.url)
    done = lab.run("run", job)
    assert done.stdout.count("\n") == 1
    assert re.match(r"job: 5 rows: 5 succeeded; 5 calls; ", done.stdout)
    # On a busy machine the run takes so long that it says how far it is.
    assert not [line for line in done.stderr.splitlines() if " of 5 succeeded; " not in line]
    lab.job(
        api.url, request={"model": "other", "messages": [{"role": "user", "content": "{{ text }}"}]}
    )
    changed = lab.run("run", job)
    assert "5 answered rows to run again because of a change in the job" in changed.stderr
    assert changed.stdout.count("\n") == 1


@pytest.mark.parametrize("command", ["run", "plan", "status"])
def test_json_is_one_object(lab: Lab, api: Simulator, command: str) -> None:
    """--json prints one object on stdout and nothing else there, in one shape: the exit code,
    totals and a list of jobs, whether it went well or not.
    """
    job = lab.job(api.url)
    lab.go(job)
    found = parsed(lab.run(command, job, "--json").stdout)
    assert list(found) == ["exit_code", "totals", "jobs"]
    assert (found["exit_code"], len(found["jobs"])) == (0, 1)
    assert found["totals"]["rows"] == {"succeeded": 5}
    (lab.folder / "bad.yaml").write_text("kind: chat\n", encoding="utf-8")
    done = lab.run(command, "bad.yaml", "--json")
    assert done.returncode == 2
    assert parsed(done.stdout)["exit_code"] == 2
    assert parsed(done.stdout)["error"] in done.stderr
    assert parsed(done.stdout)["jobs"] == []
    assert parsed(done.stdout)["totals"] == {"rows": {}, "total": 0, "calls": 0, "cost": 0}
    for wrong in ([command, "--json"], [command, "--no-such-option", "--json", job]):
        done = lab.run(*wrong)
        assert (done.returncode, parsed(done.stdout)["exit_code"]) == (2, 2)
        assert parsed(done.stdout)["error"] in done.stderr


def test_json_of_several_jobs(lab: Lab, api: Simulator) -> None:
    """Several jobs are one object with an entry each, also for a job that could not start; the
    exit code and the totals are those of all, and what the totals lack is no cost of 0.
    """
    jobs = [lab.job(api.url, name=name) for name in ("a", "b")]
    (lab.folder / "outputs").mkdir()
    (lab.folder / "outputs" / "a").write_text("in the way", encoding="utf-8")
    done = lab.run("run", *jobs, "--json")
    found = parsed(done.stdout)
    assert found["exit_code"] == 74
    assert (found["totals"]["rows"], found["totals"]["calls"]) == ({"succeeded": 5}, 5)
    assert found["totals"]["cost"] is None
    first, second = found["jobs"]
    assert (done.returncode, first["name"], first["exit_code"]) == (74, "a", 74)
    assert second["job"]["rows"] == {"succeeded": 5}
    assert second["run"]["exit_code"] == 0


def test_the_way_on_from_failed_rows_is_named(lab: Lab) -> None:
    """A run that can do nothing about failed rows says what can."""
    with serving(
        script=lambda request: "400_policy" if "answer 2" in str(request.body) else None
    ) as api:
        job = lab.job(api.url)
        assert "redo" not in lab.run("run", job).stderr
        again = lab.run("run", job)
    assert (again.returncode, "no call made" in again.stdout) == (3, True)
    assert f"batchgen redo {job} --failed" in again.stderr


def test_quiet(lab: Lab) -> None:
    """--quiet is silent when every row succeeded, and tells what did not."""
    with serving(
        script=lambda request: "400_policy" if "answer 2" in str(request.body) else None
    ) as api:
        done = lab.run("run", lab.job(api.url, rows=1), "--quiet")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        done = lab.run("run", lab.job(api.url, rows=3), "--quiet")
    assert done.returncode == 3
    assert "1 failed" in done.stdout


def test_quiet_says_nothing_of_a_batch_that_is_on_its_way(lab: Lab) -> None:
    """P15 --quiet is silent on 6, when a batch is sent and each time it is not done yet, so that
    cron sends no mail for as long as it takes; without it the summary says what to do.
    """
    with serving(Settings(batch_speed=600)) as api:
        job = lab.job(api.url, rows=2, mode="batch")
        for _ in range(2):
            done = lab.run("run", job, "--quiet")
            assert (done.returncode, done.stdout, done.stderr) == (6, "", "")
        done = lab.run("run", job)
        assert (done.returncode, "run again to collect" in done.stdout) == (6, True)


def test_a_limit_is_the_files_first_rows(lab: Lab, api: Simulator) -> None:
    """--limit N runs and counts the file's first N rows, and plan sees the same ones."""
    job = lab.job(api.url, rows=9)
    assert parsed(lab.run("plan", job, "--limit", "3", "--json").stdout)["totals"]["calls"] == 3
    assert parsed(lab.run("run", job, "--limit", "3", "--json").stdout)["totals"]["rows"] == {
        "succeeded": 3
    }
    assert api.requests.received == 3


def test_where_and_from_what(lab: Lab, api: Simulator) -> None:
    """Every command that takes a job takes --output and --prompts, from the working directory."""
    job = lab.job(api.url)
    lab.prompts(2, "other.csv")
    where = ("--output", "there", "--prompts", "other.csv")
    for command in ("plan", "run", "status", "export", "verify"):
        done = lab.run(command, job, *where)
        assert done.returncode == 0, (command, done.stderr)
    assert parsed(lab.run("show", job, "r2", *where, "--json").stdout)[0]["status"] == "succeeded"
    assert lab.run("redo", job, "r2", *where).stdout.startswith("job: 1 marked")
    assert parsed(lab.run("status", job, *where, "--json").stdout)["totals"]["rows"] == {
        "outdated": 1,
        "succeeded": 1,
    }
    assert (lab.folder / "there" / "job" / "results.csv").exists()
    assert not lab.output().exists()


def test_a_dotenv_that_names_the_server_is_named(lab: Lab, api: Simulator) -> None:
    """P43 plan and run say which .env names the server; in a folder that every user may write to
    it is not read, and that is said.
    """
    job = lab.job()
    (lab.folder / ".env").write_text(f"OPENAI_BASE_URL={api.url}\n", encoding="utf-8")
    source = f"OPENAI_BASE_URL in {lab.folder / '.env'}"
    assert f"server:   named by {source}\n" in lab.run("plan", job).stdout
    assert f"job: the server is 127.0.0.1, by {source}\n" in lab.run("run", job).stderr
    assert lab.run("run", job).stderr == "", "nothing is sent, so the server does not matter"
    lab.folder.chmod(0o1777)
    planned = lab.run("plan", job)
    assert "chat at api.openai.com" in planned.stdout
    assert "every user may write to its folder" in planned.stderr


def test_redo_from_a_file(lab: Lab, api: Simulator) -> None:
    """P07 redo marks exactly the ids of a file, also with BOM and CRLF; - is stdin."""
    job = lab.job(api.url)
    lab.run("run", job)
    (lab.folder / "ids.txt").write_bytes("\ufeffr1\r\n\r\nr3\r\n".encode())
    assert "2 marked" in lab.run("redo", job, "--from", "ids.txt").stdout
    assert "1 marked" in lab.run("redo", job, "--from", "-", stdin=b"r5\n").stdout
    lab.run("run", job)
    assert api.requests.received == 8
    (lab.folder / "ids.txt").write_bytes(b"\xff\xfe\n")
    assert "ids.txt: is not UTF-8" in lab.run("redo", job, "--from", "ids.txt").stderr


def test_jobs_that_share_a_folder_are_refused(lab: Lab, api: Simulator) -> None:
    """P08 Two jobs that would write to one folder are refused before either starts, both named.

    So is the same file twice.
    """
    one = lab.job(api.url, name="one", output={"dir": "shared"})
    two = lab.job(api.url, name="two", rows=None, output={"dir": "shared"})
    done = lab.run("run", one, two)
    assert done.returncode == 2
    assert re.search(
        r"two\.yaml: has the output folder of .*one\.yaml .*shared.*set name:", done.stderr
    )
    assert lab.run("run", two, two).returncode == 2
    assert api.requests.received == 0
    assert lab.run("run", one, lab.job(api.url, name="three", rows=None)).returncode == 0


def test_all_jobs_are_read_before_the_first_starts(lab: Lab, api: Simulator) -> None:
    """P30 What is wrong with the prompts of a later job is found before the first job sends
    anything, and all of it is told. A job without a fault is read once.
    """
    one = lab.job(api.url, name="one")
    gone = lab.job(api.url, name="gone", prompts={"path": "gone.csv"})
    messages = [{"role": "user", "content": "{{ txt }}"}]
    request = {"model": "gpt-5.6-luna", "messages": messages}
    unknown = lab.job(api.url, name="unknown", rows=None, request=request)
    done = lab.run("run", one, gone, unknown, "--json")
    assert (done.returncode, api.requests.received) == (2, 0)
    for fault in ("gone.csv: there is no such file", "'txt' is not a column"):
        assert fault in done.stderr
        assert fault in parsed(done.stdout)["error"]
    two = lab.job(api.url, name="two", prompts={"path": "-", "format": "csv", "id": "id"})
    done = lab.run("run", one, two, stdin=b"id,text\nx,ECHO:piped\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["output"] for row in lab.table("two")] == ["piped"]


def test_a_job_that_runs_already_keeps_no_other_from_starting(lab: Lab, api: Simulator) -> None:
    """P17 Of several jobs, one that another process is running ends with 75 when its turn comes;
    the others run.
    """
    one, two = lab.job(api.url, name="one"), lab.job(api.url, name="two")
    with Workspace.of(lab.load(one)).locked():
        done = lab.run("run", one, two)
    assert done.returncode == 75
    assert done.stderr.count("another process is running this job") == 1
    assert len(lab.table("two")) == 5


def test_redo_tells_that_later_turns_are_counted(lab: Lab, api: Simulator) -> None:
    """P13 The count that redo prints includes the later turns of the conversation, and says so."""
    (lab.folder / "prompts.csv").write_text(
        "id,thread,text\na,t,ECHO:x\nb,t,ECHO:y\n", encoding="utf-8"
    )
    job = lab.job(api.url, rows=None, conversation={"id": "thread"})
    lab.run("run", job)
    assert "job: 2 marked, later turns included; batchgen run" in lab.run("redo", job, "a").stdout


def test_an_unknown_id_is_named(lab: Lab, api: Simulator) -> None:
    """show and redo say which id there is not, and mark nothing."""
    job = lab.job(api.url)
    lab.run("run", job)
    for command in (["show", job, "r11"], ["redo", job, "r1", "r11"]):
        done = lab.run(*command)
        assert done.returncode == 2
        assert "r11" in done.stderr
        assert "did you mean" in done.stderr
    assert parsed(lab.run("status", job, "--json").stdout)["totals"]["rows"] == {"succeeded": 5}


def test_errors_come_all_at_once(lab: Lab) -> None:
    """All problems of a job are listed at once, as file:line:column with the nearest name."""
    text = (
        "kind: chatt\nprompts: {path: p.csv, idd: x}\nlimits:\n"
        "  request_per_minute: 5\nrequest: {model: m}\n"
    )
    (lab.folder / "bad.yaml").write_text(text, encoding="utf-8")
    lines = lab.run("plan", "bad.yaml").stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "bad.yaml:1:7",
        "bad.yaml:2:24",
        "bad.yaml:4:3",
    ]
    assert "did you mean 'requests_per_minute'?" in lines[2]


@pytest.mark.parametrize(
    "command", [["--help"], ["schema"], ["run", "job.yaml"], ["plan", "job.yaml"], ["nonsense"]]
)
def test_a_reader_that_goes_away(lab: Lab, api: Simulator, command: list[str]) -> None:
    """P14 A closed stdout is no crash, and no exit code of its own."""
    lab.job(api.url)
    read, write = os.pipe()
    os.close(read)
    with lab.start(*command, stdout=write) as run:
        os.close(write)
        errors = run.communicate(timeout=60)[1]
    assert run.returncode == (2 if command == ["nonsense"] else 0), errors
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_a_full_stdout_is_told(lab: Lab, api: Simulator) -> None:
    """P03 If stdout goes to a full disk, the exit code says so; the job itself is done."""
    job = lab.job(api.url)
    with (
        open("/dev/full", "w", encoding="utf-8") as full,
        lab.start("run", job, stdout=full) as run,
    ):
        errors = run.communicate(timeout=60)[1]
    assert run.returncode == 74, errors
    assert "stdout cannot be written" in errors
    assert len(lab.table()) == 5


EVIL = "\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp.exe \x7f \u2066a\u2067b\u2068c\u2069"


def test_replies_do_not_steer_the_terminal(lab: Lab, api: Simulator) -> None:
    """P44 No command prints a control character of a row, a reply or a server's message."""
    lab.job(api.url, rows=None)
    (lab.folder / "prompts.csv").write_text(f'id,text\n"{EVIL}","ECHO:{EVIL}"\n', encoding="utf-8")
    job = lab.job(api.url, rows=None)
    for args in (
        ["plan", job],
        ["run", job],
        ["status", job],
        ["show", job, EVIL],
        ["show", job, EVIL, "--json"],
        ["redo", job, f"{EVIL}x"],
    ):
        done = lab.run(*args)
        for letter in "\x1b\x07\x9b\u202e\x7f\u2066\u2067\u2068\u2069":
            assert letter not in done.stdout + done.stderr, args
    assert lab.table()[0]["output"] == EVIL  # the table has what came


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\x1bb", "a\\x1bb"), ("a\u202eb", "a\\u202eb"), ("a\tb\nc ä 商", "a\tb\nc ä 商")],
)
def test_plain(text: str, shown: str) -> None:
    """P44 What steers is spelled out; what is text stays."""
    assert escape_controls(text) == shown
    assert json.loads(terminal.as_json({"a": text})) == {"a": text}


def test_every_character_that_steers_is_spelled_out() -> None:
    """P44 Controls, Unicode's line ends, and whatever turns the direction of a text: marks,
    embeddings, overrides and isolates.
    """
    directions = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    steering = [
        letter
        for letter in map(chr, range(0x110000))
        if unicodedata.category(letter) in ("Cc", "Zl", "Zp")
        or unicodedata.bidirectional(letter) in directions
        or letter in "\u061c\u200e\u200f"
    ]
    assert {"\u2066", "\u2069", "\u202e", "\x9b"} < set(steering)
    for letter in set(steering) - {"\t", "\n"}:
        assert letter not in escape_controls(f"a{letter}b")
        assert letter not in terminal.as_json({letter: letter})


def test_a_bug_names_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """P40 A bug exits 1 and shows where it is, but not its message, which may hold a key."""

    def broken() -> None:
        raise RuntimeError(f"with {KEY} inside")

    monkeypatch.setattr("batchgen.job.json_schema", broken)
    done = CliRunner().invoke(main, ["schema"])
    assert done.exit_code == 1
    assert "a bug: RuntimeError" in done.output
    assert "broken" in done.output
    assert KEY not in done.output


@pytest.mark.parametrize("size", [(24, 100), (0, 0)])
def test_the_bar(lab: Lab, size: tuple[int, int]) -> None:
    """A terminal, even one without a size, has a bar with done, total, rate and state.

    It is gone at the end, and it has no colours.
    """
    with serving(Settings(latency=0.2)) as api:
        job = lab.job(api.url, rows=12, limits={"concurrency": 2})
        code, drawn = on_a_terminal(
            lab, "run", job, env=lab.environ(TERM="xterm", NO_COLOR="1"), size=size
        )
    assert code == 0, drawn
    assert re.search(r"job \d+% █*░+ ", drawn)
    assert re.search(r"\d+/12 done, 2 in flight", drawn)
    assert re.search(r"  rows +12: 12 succeeded\r?\n +took +12 calls", drawn)
    assert not re.search(r"\x1b\[[\d;]*m", drawn)


def test_no_bar_for_nothing(lab: Lab, api: Simulator) -> None:
    """A run that has nothing to do draws no bar, and neither does --quiet."""
    job = lab.job(api.url)
    assert on_a_terminal(lab, "run", job, "--quiet") == (0, "")
    assert "░" not in on_a_terminal(lab, "run", job)[1]


def test_reading_long_prompts_is_shown(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal there is a line every 30 seconds of reading, and none under --quiet; on a
    terminal there is a counter.
    """
    path = lab.job(NOWHERE, rows=20_000)
    job = lab.load(path)
    printed: list[str] = []
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(progress, "print_message", printed.append)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: False))
    for quiet in (False, True):
        clock.now = 0.0
        with progress.reading(job, quiet=quiet) as on_lines:
            for clock.now in (29.9, 30.0, 31.0, 75.0):
                on_lines(int(clock.now * 1000))
    assert printed == [f"job: read {lines} lines of prompts.csv" for lines in ("30,000", "75,000")]
    monkeypatch.undo()
    code, drawn = on_a_terminal(lab, "plan", path)
    assert code == 0
    assert re.search(r"job: read [\d,]+ lines of prompts\.csv, [\d,]+ a second", drawn)
    assert "lines of" not in drawn.rsplit("\r", 1)[-1]


def test_version_and_module() -> None:
    """`batchgen --version` is the package's, however it is called."""
    import batchgen

    done = subprocess.run(
        [sys.executable, "-m", "batchgen", "--version"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == f"batchgen {batchgen.__version__}\n"


def test_the_simulator_as_a_server(lab: Lab) -> None:
    """`batchgen simulate` serves until a signal, then ends with 0; a used port exits 2."""
    with serving() as api:
        port = api.url.split(":")[2].split("/")[0]
        done = lab.run("simulate", "--port", port)
    assert done.returncode == 2
    assert "choose another" in done.stderr
    assert "is at" not in done.stderr
    options = ("--latency", "0.01", "--rpm", "600", "--tpm", "90000", "--batch-speed", "0")
    with lab.start("simulate", "--port", port, *options) as server:
        assert server.stderr is not None
        assert f"http://127.0.0.1:{port}/v1" in server.stderr.readline()
        server.terminate()
        assert server.wait(30) == 0
        server.communicate()
