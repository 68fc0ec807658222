"""docs/json.md and the commands agree: each field that appears is documented, and the reverse."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, serving

from batchgen.cli import main
from batchgen.dispatch import Learned, Progress, Wait
from batchgen.simulator import RequestInfo, Settings
from batchgen.workspace import Workspace, publishing

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/json.md").read_text(encoding="utf-8")

# Needs a server that throttles, or a file that changes in between; other tests show them.
UNSEEN = {
    "first.error",
    "request.error",
    "unread[]",
    *(f"run.learned.{each.name}" for each in fields(Learned)),
}

REQUEST = {"model": "gpt-5.6-luna", "max_completion_tokens": 100}
# What commands printed in whole.
WHOLE: list[dict[str, Any]] = []
PRICES = {"gpt-5.6-luna": {"input": 0.05, "output": 0.4}}


@dataclass(frozen=True)
class Field:
    """One line of a table of the page.

    types: the JSON types that it may have
    optional: whether it may be absent
    inside: the section that documents its content, "API" for what the API documents, None for here
    """

    types: frozenset[str]
    optional: bool
    inside: str | None


# What documents the content of a field, by what its type says.
INSIDE = {
    "#a-batch": "A batch",
    "#a-run-that-goes-on": "A run that goes on",
    "as the API": "API",
    "as the command": "API",
}


def documented(section: str) -> dict[str, Field]:
    """The fields of a section of the page, by path."""
    table = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|[^|]*\|[^|]*\|$", table, flags=re.MULTILINE)
    names = r"\b(string|integer|number|boolean|object|array|null)\b"
    return {
        path: Field(
            types=frozenset(re.findall(names, cell.split(":")[0])),
            optional="optional" in cell,
            inside=next((inside for mark, inside in INSIDE.items() if mark in cell), None),
        )
        for path, cell in rows
    }


def type_name(value: Any) -> str:
    """The JSON type of a value."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return "null" if value is None else names.get(type(value), "object")


class Checker:
    """Compares JSON with the page and collects the fields that it has seen, by section."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}

    def check(self, section: str, document: Any) -> None:
        """Every field is documented with its type, and only optional ones are absent."""
        self._inside(section, documented(section), document, "")

    def _inside(self, section: str, known: dict[str, Field], value: Any, path: str) -> None:
        if isinstance(value, list):
            for each in value:
                self._field(section, known, each, f"{path}[]")
            return
        if not isinstance(value, dict):
            return
        prefix = f"{path}." if path else ""
        children = {each for each in known if re.fullmatch(re.escape(prefix) + r"[^.\[]+", each)}
        any_name = next((each for each in children if each.endswith(">")), None)
        needed = {each for each in children if not known[each].optional}
        absent = {each for each in needed if each.removeprefix(prefix) not in value}
        assert not absent, f"docs/json.md, {section}: mark as optional or remove {absent}"
        for name, inner in value.items():
            self._field(section, known, inner, any_name or prefix + name)

    def _field(self, section: str, known: dict[str, Field], value: Any, path: str) -> None:
        assert path in known, f"docs/json.md, {section}: document the field {path}"
        types, kind = known[path].types, type_name(value)
        # JSON has one type for numbers: 0.0 may be written 0.
        assert kind in types or (kind == "integer" and "number" in types), (
            f"docs/json.md, {section}: {path} may be {kind}, and the page says {sorted(types)}"
        )
        self.seen.setdefault(section, set()).add(path)
        inside = known[path].inside
        if inside is None:
            self._inside(section, known, value, path)
        elif inside != "API" and value is not None:
            self.check(inside, value)


def printed(*args: str | Path) -> tuple[int, Any]:
    """The exit code and the JSON that a command prints; of one job, that of the job."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main([str(each) for each in args])
    code, found = int(ended.value.code or 0), json.loads(out.getvalue())
    if isinstance(found, dict):
        WHOLE.append(found)
        assert found["exit_code"] == code
        jobs = found.get("jobs", ())
        found = jobs[0] if len(jobs) == 1 else found
    return code, found


def refusing(info: RequestInfo) -> str | None:
    """One row is refused for its content."""
    return "400_policy" if "answer 2" in json.dumps(info.body) else None


@pytest.fixture
def checker(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Checker:
    """A checker, in the folder of the lab, with the environment of the lab."""
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("HOME", str(lab.folder))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("XDG_STATE_HOME", str(lab.folder / "state"))
    return Checker()


def test_every_field_of_the_json_is_documented(lab: Lab, checker: Checker) -> None:
    """Real commands print exactly the documented fields, and every documented field appears."""
    _online(lab, checker)
    _in_batches(lab, checker)
    _with_files(lab, checker)
    _with_tools(lab, checker)
    _with_turns(lab, checker)
    _stopped(lab, checker)
    _going_on(lab, checker)
    printed("spend", "--json")
    checker.check("spend --json", WHOLE.pop())
    printed("doctor", "--simulate", "--json")
    checker.check("doctor --json", WHOLE.pop())
    for each in WHOLE:
        checker.check("The shape", each)
    for section in (
        "plan --json",
        "run --json",
        "status --json",
        "show --json",
        "spend --json",
        "A run that goes on",
        "doctor --json",
        "A batch",
        "The shape",
        "A job that ended with an error",
    ):
        unseen = set(documented(section)) - checker.seen[section] - UNSEEN
        assert not unseen, f"docs/json.md, {section}: no command printed {unseen}"


def _online(lab: Lab, checker: Checker) -> None:
    """Rows that succeed, are incomplete, fail and are left out, a matrix, an edit."""
    lab.prompts(4)
    with open(lab.folder / "prompts.csv", "a", encoding="utf-8") as file:
        file.write("r5,\n")
    with serving(Settings(), script=refusing) as api:
        job = lab.job(
            api.url,
            rows=None,
            prompts={"path": "prompts.csv", "id": "id", "empty": "skip"},
            matrix={"sample": 2},
            pricing=PRICES,
            limits={"requests_per_minute": 6000},
            output={"columns": {"word": "{{ json.word }}"}},
        )
        checker.check("plan --json", printed("plan", job, "--json")[1])
        code, ended = printed("run", job, "--json")
        assert code == ended["run"]["exit_code"] == 3
        checker.check("run --json", ended)
        report = json.loads((lab.output("job") / "report.json").read_text(encoding="utf-8"))
        assert report == ended
        checker.check("plan --json", printed("plan", job, "--json")[1])
        checker.check("status --json", printed("status", job, "--json")[1])
        for row in ("r1", "r2"):
            for each in printed("show", job, row, "--json")[1]:
                checker.check("show --json", each)
        lab.job(api.url, rows=4, matrix={"sample": 2}, request={**REQUEST, "messages": "{{ x }}"})
        code, refused = printed("plan", job, "--json")
        assert code == 2
        assert refused["jobs"] == []
        changed = [{"role": "user", "content": "Now: {{ text }}"}]
        job = lab.job(api.url, matrix={"sample": 2}, request={**REQUEST, "messages": changed})
        planned = printed("plan", job, "--json")[1]
        assert planned["again"]
        checker.check("plan --json", planned)
        checker.check("run --json", printed("run", job, "--limit", "2", "--json")[1])
        (lab.folder / "requests.jsonl").write_text(
            json.dumps(
                {
                    "custom_id": "a",
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {**REQUEST, "messages": changed},
                }
            ),
            encoding="utf-8",
        )
        sent = printed(
            "run-batch",
            "-i",
            "requests.jsonl",
            "-o",
            "results.jsonl",
            "--json",
            "--base-url",
            api.url,
        )[1]
        checker.check("run --json", sent)


def _going_on(lab: Lab, checker: Checker) -> None:
    """A run that goes on and waits."""
    wait = Wait(cause="Retry-After", reason="the server asked for it", until=2e9)
    with serving(Settings()) as api:
        job = lab.job(api.url, name="slow")
        lab.go(job)
    workspace = Workspace.of(lab.load(job))
    with workspace.locked(), publishing(workspace.folder) as note:
        note.write("sending", Progress(wait=wait, cap=5, rate=1.0))
        status = printed("status", job, "--json")[1]
    assert status["running"]["wait"]
    checker.check("status --json", status)


def _in_batches(lab: Lab, checker: Checker) -> None:
    """Open batches, a request that is stale, a cancellation."""
    with serving(Settings(batch_speed=600)) as api:
        job = lab.job(api.url, name="night", mode="batch", pricing=PRICES)
        checker.check("plan --json", printed("plan", job, "--json")[1])
        code, submitted = printed("run", job, "--json")
        assert code == 6
        assert submitted["run"]["batches"]
        checker.check("run --json", submitted)
        checker.check("status --json", printed("status", job, "--json")[1])
        checker.check("plan --json", printed("plan", job, "--json")[1])
        for each in printed("show", job, "r1", "--json")[1]:
            assert each["batch"]
            checker.check("show --json", each)
        checker.check("run --json", printed("cancel", job, "--json")[1])


def _with_files(lab: Lab, checker: Checker) -> None:
    """Requests that upload files, and several jobs at once."""
    shutil.copytree(ROOT / "jobs", lab.folder / "jobs")
    job = "jobs/photo-edits.yaml"
    checker.check("plan --json", printed("plan", job, "--simulate", "--json")[1])
    code, ended = printed("run", job, "jobs/taglines.yaml", "--simulate", "--limit", "1", "--json")
    assert code == 0
    for each in ended["jobs"]:
        checker.check("run --json", each)
    first = (lab.folder / "jobs/photo-edits.csv").read_text(encoding="utf-8").splitlines()[1]
    for each in printed("show", job, first.split(",")[0], "--simulate", "--json")[1]:
        checker.check("show --json", each)


def _with_tools(lab: Lab, checker: Checker) -> None:
    """Requests with a tool of the server, whose fee nobody names."""
    request = {"model": "gpt-5", "input": "{{ text }}", "tools": [{"type": "code_interpreter"}]}
    job = lab.job(name="tools", kind="text", request=request)
    for command, section in (("plan", "plan --json"), ("run", "run --json")):
        checker.check(section, printed(command, job, "--simulate", "--json")[1])
    checker.check("status --json", printed("status", job, "--simulate", "--json")[1])


def _with_turns(lab: Lab, checker: Checker) -> None:
    """A turn that is sent with the one before it."""
    (lab.folder / "turns.csv").write_text("id,t,text\na,t,one\nb,t,two\n", encoding="utf-8")
    prompts = {"path": "turns.csv", "id": "id"}
    job = lab.job(name="turns", prompts=prompts, conversation={"id": "t"})
    printed("run", job, "--simulate", "--json")
    (shown,) = printed("show", job, "b", "--simulate", "--json")[1]
    assert [each["role"] for each in shown["history"]] == ["user", "assistant"]
    checker.check("show --json", shown)


def _stopped(lab: Lab, checker: Checker) -> None:
    """A key that the server refuses, and one that is not there, among several jobs."""
    with serving(Settings(key="another")) as api:
        job = lab.job(api.url, name="refused")
        code, ended = printed("run", job, "--json")
        assert code == 4
        assert ended["run"]["stopped"]
        checker.check("run --json", ended)
        keyless = {"base_url": api.url, "api_key_env": "NO_SUCH_KEY"}
        other = lab.job(name="keyless", provider=keyless)
        code, ended = printed("run", job, other, "--json")
        assert code == 4
        checker.check("run --json", ended["jobs"][0])
        assert ended["jobs"][1]["name"] == "keyless"
        checker.check("A job that ended with an error", ended["jobs"][1])


def test_learned_is_documented() -> None:
    """The limits that a run can learn are those of the page."""
    listed = {path for path in documented("run --json") if path.startswith("run.learned.")}
    assert listed == {f"run.learned.{each.name}" for each in fields(Learned)}
