"""The job file: what is accepted, what is refused and where, and which server and key follow from
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from batchgen.errors import AccountError, InputError
from batchgen.job import (
    Job,
    api_key,
    connection,
    json_schema,
    load_job,
    model,
    sections,
    with_prompts,
)
from batchgen.job.yaml_nodes import parse

HEAD = "kind: chat\nprompts: {path: rows.csv}\nrequest: {model: m}\n"
CANARY = "sk-CANARY0123456789abcdef"


def write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def load(folder: Path, text: str, name: str = "job.yaml", **environ: str) -> Job:
    return load_job(write(folder, text, name), environ=environ)


def refusals(folder: Path, text: str | bytes) -> list[str]:
    """The problems of a text, each as line:column: message."""
    path = folder / "job.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        load_job(path, environ={})
    return [str(problem).removeprefix(f"{path}:").strip() for problem in caught.value.problems]


def refusal(folder: Path, text: str | bytes) -> str:
    found = refusals(folder, text)
    assert len(found) == 1, found
    return found[0]


# --- what is accepted


def test_defaults(tmp_path: Path) -> None:
    """A job of three keys has the documented defaults, and the file's stem as its name."""
    job = load(tmp_path, HEAD, "product-copy.yaml")
    assert (job.name, job.mode, job.matrix, job.conversation) == (
        "product-copy",
        "online",
        {},
        None,
    )
    assert (job.limits.concurrency, job.limits.max_cost, job.limits.max_failures) == (
        64,
        None,
        None,
    )
    assert (job.retry.attempts, job.retry.max_wait, job.retry.give_up) == (6, 60, 900)
    assert (job.provider.api_key_env, job.provider.allow_http) == ("OPENAI_API_KEY", False)
    assert (job.output.tables, job.output.prefix, job.output.csv.safe) == (["csv"], "", False)


def test_everything(tmp_path: Path) -> None:
    """Every key of the documented job file is understood, and the job can be dumped without
    warnings.
    """
    job = load(
        tmp_path,
        """
name: product-copy
kind: chat
mode: online
prompts: {path: a.csv, id: sku, format: csv, delimiter: ";", encoding: utf-8,
  bad_rows: fail, files: pictures}
matrix: {language: [German, French], sample: 5, on: [true, 0.5]}
request: {model: "{{ model }}", temperature: 0.4}
conversation: {id: thread}
limits: {requests_per_minute: 500, tokens_per_minute: 2e5, images_per_minute: 20, concurrency: 64,
  max_cost: 5.00, max_time: 1h30m, max_failures: 0.5%}
retry:  {attempts: 6, max_wait: 60, timeout: 30.5, give_up: 900}
pricing: {my-model: {input: 0.5, output: 2, cached_input: 0.1, image: 0.04}}
provider: {base_url: "https://api.openai.com/v1", name: openai, api_key_env: null,
  api_key_file: key.txt,
  organization: null, project: p, headers: {X-Team: a b}, allow_http: false}
output: {dir: ../out/x, tables: [csv, jsonl, parquet], columns: {first: "{{ output }}"}, prefix: b_,
  accept: [length], csv: {safe: true}}
""",
    )
    assert job.matrix == {
        "language": ["German", "French"],
        "sample": [1, 2, 3, 4, 5],
        "on": [True, 0.5],
    }
    assert job.limits.max_cost == Decimal("5")
    assert job.limits.max_time == 5400
    assert job.timeout == 30.5
    assert job.model_dump_json()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("2024-01-01", "2024-01-01"),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("'5'", "5"),
        ('"true"', "true"),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0", 0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5E-3", -0.0015),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ('"\\ud83d\\ude00"', "😀"),
        ("Größe 😀", "Größe 😀"),
    ],
)
def test_scalars(tmp_path: Path, written: str, meant: object) -> None:
    """Scalars follow YAML 1.2's core rules with JSON's numbers; everything else is text."""
    value = load(tmp_path, f"{HEAD.replace('{model: m}', '')}\n  x: {written}\n").request["x"]
    assert value == meant
    assert type(value) is type(meant)


def test_keys_are_text(tmp_path: Path) -> None:
    """A key is what is written, whatever type it would have as a value."""
    job = load(tmp_path, HEAD.replace("model: m", "model: m, no: 1, 1: 2, true: 3, 010: 4"))
    assert list(job.request) == ["model", "no", "1", "true", "010"]


def test_bom_crlf_and_document_start(tmp_path: Path) -> None:
    """A file as Windows editors write it is read, and its lines are counted right."""
    path = tmp_path / "job.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf---\r\n" + HEAD.replace("\n", "\r\n").encode() + b"name: a b\r\n"
    )
    with pytest.raises(InputError, match=r":5:7: name: "):
        load_job(path, environ={})


@pytest.mark.parametrize(
    ("kind", "request_", "seconds"),
    [
        ("chat", "m: 1", 600),
        ("chat", "service_tier: flex", 900),
        ("embedding", "m: 1", 60),
        ("moderation", "m: 1", 60),
    ],
)
def test_timeout(tmp_path: Path, kind: str, request_: str, seconds: float) -> None:
    """The time-out depends on kind and tier unless the job says it."""
    assert (
        load(tmp_path, f"kind: {kind}\nprompts: {{path: a.csv}}\nrequest: {{{request_}}}\n").timeout
        == seconds
    )


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("4h", 14400), ("90m", 5400), ("30s", 30), ("1h30m", 5400), ("7.5", 7.5)],
)
def test_max_time(tmp_path: Path, written: str, seconds: float) -> None:
    """max_time is a duration or a number of seconds."""
    assert load(tmp_path, f"{HEAD}limits: {{max_time: {written}}}\n").limits.max_time == seconds


@pytest.mark.parametrize(
    ("written", "failures", "rows", "allowed"),
    [
        ("1%", 1, 100, True),
        ("1%", 2, 100, False),
        ("1%", 1, 99, False),
        ("0.1%", 1, 1000, True),
        ("0.7%", 7, 1000, True),
        ("0%", 0, 0, True),
        ("100%", 5, 5, True),
        ("3", 3, 4, True),
        ("3", 4, 1000, False),
        ("0", 1, 1000, False),
    ],
)
def test_max_failures(
    tmp_path: Path, written: str, failures: int, rows: int, allowed: bool
) -> None:
    """max_failures is a share of the rows or a count, exact at the bound."""
    limit = load(tmp_path, f"{HEAD}limits: {{max_failures: {written}}}\n").limits.max_failures
    assert limit is not None
    assert limit.allows(failures, rows) is allowed


def test_background_is_a_colour_for_pictures(tmp_path: Path) -> None:
    """`background` is refused where it asks for a later answer, and is a picture's own parameter
    elsewhere.
    """
    text = "kind: image\nprompts: {path: a.csv}\nrequest: {background: transparent}\n"
    assert load(tmp_path, text).request == {"background": "transparent"}


# --- what is refused, and where


def test_all_problems_at_once_sorted(tmp_path: Path) -> None:
    """P30 Every problem of the file is shown in one go, in the order of its lines, with the nearest
    name.
    """
    path = write(
        tmp_path,
        "conversation: {id: a, turns: b}\nkind: chatt\nprompts:\n  pth: a.csv\nlimits:\n"
        "  request_per_minute: 5\n  concurrency: '64'\nrequest:\n  a: &x 1\n  a: 2\n",
    )
    with pytest.raises(InputError) as caught:
        load_job(path, environ={})
    assert str(caught.value).replace(f"{path}:", "").splitlines() == [
        "1:15: conversation: needs either id or turns, and not both",
        "2:7: kind: must be text, completion, chat, image, image_edit, embedding or "
        "moderation; did you mean 'chat'?",
        "4:3: prompts.pth: unknown key; did you mean 'path'?",
        "6:3: limits.request_per_minute: unknown key; did you mean 'requests_per_minute'?",
        "7:16: limits.concurrency: must be a whole number, without quotes",
        "9:6: anchors (&name) are not allowed; write the value out, or quote the text",
        "10:3: the key a is here twice; the first is in line 9",
    ]


def test_path_is_shown_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors name the file as the user did."""
    write(tmp_path, "kind: x\n", "jobs/a.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^\./jobs/a\.yaml:1:1: "):
        load_job("./jobs/a.yaml", environ={})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mode: 3", "4:7: mode: must be online"),
        ("name: .hidden", "4:7: name: must be 1 to 100"),
        ("name: a/b", "4:7: name: must be"),
        ("name: x.simulated", "4:7: name: must not end in .simulated"),
        (f"name: {'a' * 101}", "4:7: name: must be 1 to 100"),
        ("name: 2024", "4:7: name: must be text; put it in quotes"),
        ("matrix: {1x: [a]}", "4:10: matrix.1x: an axis"),
        ("matrix: {a: []}", "4:13: matrix.a: must not be empty"),
        ("matrix: {a: 0}", "4:13: matrix.a: must be 1 to"),
        ("matrix: {a: true}", "4:13: matrix.a: must be a list"),
        ("matrix: {a: x}", "4:13: matrix.a: must be a list"),
        ("matrix: {a: 1000000000000}", "4:13: matrix.a: must be 1 to"),
        ("matrix: {a: [1, 2, 1]}", "4:13: matrix.a: 1 is listed twice"),
        ("matrix: {a: [1, '1']}", "4:13: matrix.a: 1 is listed twice"),
        ("matrix: {a: [x, [y]]}", "4:17: matrix.a[1]: a value of an axis"),
        ("matrix: {a: [x, null]}", "4:17: matrix.a[1]: a value of an axis"),
        ("matrix: {a: 101, b: 100}", "4:9: matrix: every row would run 10,100 times"),
        ("limits: {concurrency: 0}", "4:23: limits.concurrency: must be at least 1"),
        ("limits: {concurrency: 10001}", "4:23: limits.concurrency: must be at most 10000"),
        ("limits: {concurrency: 1.5}", "4:23: limits.concurrency: must be a whole number"),
        ("limits: {requests_per_minute: 0}", "4:31: limits.requests_per_minute: must be above 0"),
        (
            "limits: {requests_per_minute: yes}",
            "4:31: limits.requests_per_minute: must be a number, without quotes",
        ),
        ("limits: {max_cost: 0}", "4:20: limits.max_cost: must be a number of USD"),
        ("limits: {max_cost: '5'}", "4:20: limits.max_cost: must be a number of USD"),
        ("limits: {max_time: 4 h}", "4:20: limits.max_time: must be a time"),
        ("limits: {max_time: 0s}", "4:20: limits.max_time: must be a time"),
        ("limits: {max_time: -1}", "4:20: limits.max_time: must be a time"),
        ("limits: {max_time: ''}", "4:20: limits.max_time: must be a time"),
        ("limits: {max_failures: 101%}", "4:24: limits.max_failures: must be a percentage"),
        ("limits: {max_failures: 0.01}", "4:24: limits.max_failures: must be a percentage"),
        ("limits: {max_failures: -1}", "4:24: limits.max_failures: must be a percentage"),
        ("limits:", "4:8: limits: is empty"),
        ("limits: 5", "4:9: limits: must be a mapping"),
        ("retry: {attempts: 101}", "4:19: retry.attempts: must be at most 100"),
        ("retry: {timeout: 0}", "4:18: retry.timeout: must be above 0"),
        (
            "pricing: {m: {inptu: 1, input: -1}}",
            "4:15: pricing.m.inptu: unknown key; did you mean 'input'?",
        ),
        ("conversation: {}", "4:15: conversation: needs either id or turns"),
        ("conversation: thread", "4:15: conversation: must be a mapping"),
        ("output: {tables: [csv, csv]}", "4:18: output.tables: csv is listed twice"),
        ("output: {tables: []}", "4:18: output.tables: must not be empty"),
        (
            "output: {tables: [ods]}",
            "4:19: output.tables[0]: must be csv, jsonl, parquet, xlsx or openai-batch",
        ),
        ("output: {dir: ''}", "4:15: output.dir: must be"),
        ("output: {dir: /}", "4:15: output.dir: must be a folder below the root"),
        ("output: {dir: x.simulated/}", "4:15: output.dir: must not end in .simulated"),
        ("output: {columns: {'a': 1}}", "4:25: output.columns.a: must be text"),
        ("output: {csv: {safe: 1}}", "4:22: output.csv.safe: must be true or false"),
        ("output: {csv: {saf: true}}", "4:16: output.csv.saf: unknown key; did you mean 'safe'?"),
        ("propmts: x", "4:1: propmts: unknown key; did you mean 'prompts'?"),
        ("x: {{ y }}", '4:4: quote a value that begins with {{ or {%, like "{{ name }}"'),
    ],
)
def test_refused_line(tmp_path: Path, line: str, message: str) -> None:
    """P30 A wrong line is refused at the wrong value, or at the unknown key, in words of the job
    file.
    """
    assert any(found.startswith(message) for found in refusals(tmp_path, f"{HEAD}{line}\n")), (
        refusals(tmp_path, f"{HEAD}{line}\n")
    )


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("rows.csv", "prompts: must be a mapping, such as {path: rows.csv}"),
        ("{path: ''}", "prompts.path: must be a path"),
        ('{path: "a\\0b"}', "prompts.path: must be a path"),
        (
            "{path: a, format: openai_batch}",
            "prompts.format: must be csv, tsv, jsonl, txt, json, parquet, xlsx, ods or "
            "openai-batch; did you mean 'openai-batch'?",
        ),
        ("{path: a, delimiter: ab}", "prompts.delimiter: must be one character"),
        ("{path: a, delimiter: '\"'}", "prompts.delimiter: must be one character"),
        ("{path: a, encoding: utf-9}", "prompts.encoding: is not a text encoding"),
        ("{path: a, encoding: base64}", "prompts.encoding: is not a text encoding"),
        ("{path: a, bad_rows: skip}", "prompts.bad_rows: must be refuse or fail"),
    ],
)
def test_refused_prompts(tmp_path: Path, prompts: str, message: str) -> None:
    """What stands under prompts is checked before the file is opened."""
    assert message in refusal(tmp_path, HEAD.replace("{path: rows.csv}", prompts))


def test_refused_request(tmp_path: Path) -> None:
    """The request is not empty, does not stream and is not sent to the background; each is said at
    its key.
    """
    assert refusals(
        tmp_path,
        "kind: chat\nprompts: {path: a}\nrequest:\n  stream: true\n  background: '{{ b }}'\n",
    ) == [
        "4:3: request.stream: batchgen records whole answers and cannot stream; remove this line",
        "5:3: request.background: batchgen waits for each answer itself and cannot fetch it "
        "later; remove this line",
    ]
    assert refusal(tmp_path, HEAD.replace("{model: m}", "{}")) == "3:10: request: must not be empty"


def test_missing_keys_are_said_at_the_parent(tmp_path: Path) -> None:
    """A missing key is reported where the mapping that lacks it begins."""
    assert refusals(tmp_path, "# a job\nname: x\nprompts: {id: a}\n") == [
        "2:1: kind: is required",
        "2:1: request: is required",
        "3:10: prompts: needs either path (a prompts file, or - for rows that a pipe or Python "
        "gives) or job (another job's file)",
    ]


def test_rows_that_are_requests_leave_nothing_to_the_job(tmp_path: Path) -> None:
    """P30 A job whose rows are requests says neither what they are nor how they are named; each
    such key is refused at its line, and whatever else is wrong is said too.
    """
    head = "prompts: {path: a.jsonl, format: openai-batch}\n"
    job = load(tmp_path, head)
    assert (job.kind, job.request, job.prompts.id, job.timeout) == (None, {}, "custom_id", 600)
    assert job.rows_choose("model")
    assert load(tmp_path, head.replace("}", ", id: custom_id}")).prompts.id == "custom_id"
    body = "request: {stream: 1}\nmatrix: {a: 2}\nconversation: {id: x}\nlimts: {}\n"
    assert refusals(tmp_path, f"kind: chat\n{head.replace('}', ', id: sku}')}{body}") == [
        "1:1: kind: the rows of openai-batch set it themselves; remove it",
        "2:52: prompts.id: the rows of openai-batch are named by custom_id; remove it",
        "3:1: request: the rows of openai-batch set it themselves; remove it",
        "4:1: matrix: the rows of openai-batch set it themselves; remove it",
        "5:1: conversation: the rows of openai-batch set it themselves; remove it",
        "6:1: limts: unknown key; did you mean 'limits'?",
    ]


def test_an_empty_kind(tmp_path: Path) -> None:
    """A kind that is there without a value is told so."""
    assert "1:6: kind: is empty; give it a value or remove the line" in refusals(
        tmp_path, HEAD.replace(" chat", "")
    )


def test_conversation_only_for_chat(tmp_path: Path) -> None:
    """Only chat has conversations."""
    assert refusal(tmp_path, HEAD.replace("chat", "text") + "conversation: {id: a}\n").startswith(
        "4:15: conversation: "
    )


def test_file_name_that_is_no_name(tmp_path: Path) -> None:
    """A file whose stem cannot name a folder needs `name`."""
    path = write(tmp_path, HEAD, "my job.yaml")
    with pytest.raises(InputError, match=r"my job\.yaml:1:1: name: add a name"):
        load_job(path, environ={})
    assert load(tmp_path, HEAD + "name: fine\n", "my job.yaml").name == "fine"


# --- YAML


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the job file is empty"),
        ("# only a comment\n", "the job file is empty"),
        ("---\n", "the job file is empty"),
        ("- a\n", "1:1: a job file is a mapping at the top"),
        ("hello\n", "1:1: a job file is a mapping at the top"),
        (HEAD + "---\na: 1\n", "4:1: only one document is allowed"),
        (HEAD + "x: 'abc\n", "4:4: the quote that opens here is never closed"),
        (HEAD + "x: [a, b\n", "4:4: the bracket that opens here is never closed"),
        (HEAD + "x: [a b: c d e: f]\n", "4:"),
        ("kind: chat\n\tname: x\n", "2:1: a tab cannot indent; use spaces"),
        ("kind: chat\n  name: x\n", "2:7: a colon is not allowed here"),
        ("kind: chat\nname\n", "2:1: a colon is missing"),
        ("a: b: c\n", "1:5: a colon is not allowed here"),
        ("a: @x\n", "1:4: a value cannot start with this character"),
        ("a: 'it's'\n", "1:8: this does not fit the lines before it"),
        ("a: {{ x }}-y\n", "1:4: quote a value that begins with {{"),
        ("a:\n  - {{ row['b'] }} c\n", "2:5: quote a value that begins with {{"),
        ("a: {% if x %}y\n", "1:4: quote a value that begins with {{ or {%"),
        ('a: "\\q"\n', "1:6: unknown escape in double quotes"),
        ('a: "\\x4"\n', "1:7: unfinished escape"),
        ('a: "\\Uffffffff"\n', "1:7: this escape is not a character"),
        ("a: |x\n b\n", "1:5: after | or > the text starts on the next line"),
        ("a: !e!x y\n", "1:4: tags (!name) are not allowed"),
        ("a: \x07\n", "1:4: the character U+0007 is not allowed"),
        ("b: 1\na: x\u2028y\n", "2:5: the character U+2028 is not allowed"),
        (b"a: 1\nb: \xe4\n", "2:4: byte 0xe4 is not UTF-8"),
        (b"\xef\xbb\xbfa: \xe4\n", "1:4: byte 0xe4 is not UTF-8"),
        (HEAD.encode("utf-16"), "this is UTF-16; save the job file as UTF-8"),
        (b"#" * ((1 << 20) + 1), "larger than 1 MiB"),
        ("a: " + "[" * 60 + "\n", "1:53: nested deeper than 50 levels"),
        ("- " * 1000, "1:101: nested deeper than 50 levels"),
    ],
)
def test_broken_yaml(tmp_path: Path, text: str | bytes, message: str) -> None:
    """P42 Broken YAML is one plain sentence at its line and column, and nothing of PyYAML's own
    words.
    """
    found = refusal(tmp_path, text)
    assert found.startswith(message)
    assert not any(
        jargon in found for jargon in ("token", "scalar", "block", "stream", "simple key")
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name: !!str x", "4:7: tags (!name) are not allowed"),
        ("name: !x y", "4:7: tags"),
        ("name: !!python/object/apply:os.system [true]", "4:7: tags"),
        ("name: &a x", "4:7: anchors (&name) are not allowed"),
        ("name: *a", "4:7: aliases (*name) are not allowed"),
        ("<<: {name: x}", "4:1: merge keys (<<) are not allowed"),
        ("? [a]\n: b", "4:3: a key must be text"),
        ("kind: text", "4:1: the key kind is here twice; the first is in line 1"),
        ('"kind": text', "4:1: the key kind is here twice; the first is in line 1"),
        ('pricing: {"\\ud800": {input: 1}}', "4:11: half a surrogate pair"),
    ],
)
def test_refused_yaml(tmp_path: Path, line: str, message: str) -> None:
    """P42 Tags, anchors, aliases, merge keys, duplicate keys and half characters are refused, each
    as one problem.
    """
    assert refusal(tmp_path, f"{HEAD}{line}\n").startswith(message)


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "-1e999"])
def test_numbers_that_are_none(tmp_path: Path, number: str) -> None:
    """A number no JSON reader would take back is refused, not turned into infinity."""
    text = HEAD.replace("{model: m}", f"{{model: m, x: {number}}}")
    assert (
        refusal(tmp_path, text) == "3:24: this number is too large; put it in quotes if it is text"
    )


def test_billion_laughs(tmp_path: Path) -> None:
    """P42 A billion laughs costs milliseconds."""
    rows = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    rows += [
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]" for n in range(20)
    ]
    started = time.perf_counter()
    assert len(refusals(tmp_path, "\n".join(rows))) > 20
    assert time.perf_counter() - started < 0.5


@given(
    st.text(st.sampled_from("ab:-{}[]\"'|>&*!%@`#,? \n\t\\0171eux~<=.é\x85\ud7ff"), max_size=60)
    | st.text(max_size=30)
)
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    """P42 Whatever the text, the reader gives a document or problems with a place, and no other
    exception.
    """
    document, problems = parse(text.encode("utf-8", "replace").decode(), "job.yaml")
    assert document is not None or problems


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**50), 10**50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(min_size=1, max_size=40), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(min_size=1, max_size=40), JSON, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_json_passes_unchanged(data: dict[str, Any]) -> None:
    """JSON is YAML: any JSON object comes through as it is (YAML ends a key at 1,024
    characters).
    """
    import json

    document, problems = parse(json.dumps(data, indent=1), "job.yaml")
    assert not problems
    assert document is not None
    assert document.data == data


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file, a folder, a pipe and a nonsense path are one sentence each, and nothing
    blocks.
    """
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "none.yaml", "there is no such file"),
        (tmp_path, "this is a folder"),
        (tmp_path / "pipe", "this is not a regular file"),
        (Path(f"{tmp_path}/a\0b"), "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            load_job(path, environ={})
        assert len(str(caught.value).splitlines()) == 1


# --- places and paths


def test_places(tmp_path: Path) -> None:
    """A later stage can name the place of anything in the job, down to the deepest node
    there is.
    """
    job = load(
        tmp_path,
        "kind: chat\nprompts: {path: a}\nrequest:\n  messages:\n    - role: user\n      "
        "content: hi\n",
    )
    assert job.position("request", "messages", 0, "content") == (6, 16)
    assert job.position("request", "messages", 0, "name", 3) == (5, 7)
    assert job.position("request", "messages", 7) == (5, 5)
    assert job.position("limits") == (1, 1)
    problem = job.problem(("request", "messages", 0, "role"), "no")
    assert str(problem) == f"{job.display_name}:5:13: no"


def test_paths_follow_the_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P15 Paths resolve against the job file and never the working directory, except one given on
    the command line.
    """
    text = HEAD.replace("rows.csv", "data/../rows.csv")
    job = load(tmp_path, text, "jobs/x.yaml")
    monkeypatch.chdir("/")
    assert job.folder == tmp_path / "jobs"
    assert job.prompts_path == tmp_path / "jobs/rows.csv"
    monkeypatch.chdir(tmp_path)
    other = with_prompts(job, "b.csv")
    assert (other.prompts.path, other.prompts_path) == ("b.csv", tmp_path / "b.csv")
    assert with_prompts(job, "-").prompts_path is None
    assert job.prompts_path == tmp_path / "jobs/rows.csv"


def test_output_dir(tmp_path: Path) -> None:
    """The output lies beside the jobs folder, or beside the job file, or where the job or --output
    says.
    """
    job = load(tmp_path, HEAD, "jobs/x.yaml")
    assert job.output_dir(None, False) == tmp_path / "outputs/x"
    assert job.output_dir(None, True) == tmp_path / "outputs/x.simulated"
    assert job.output_dir(tmp_path / "root", True) == tmp_path / "root/x.simulated"
    assert (
        load(tmp_path, HEAD, "else/x.yaml").output_dir(None, False) == tmp_path / "else/outputs/x"
    )
    job = load(tmp_path, HEAD + "output: {dir: ../deep/here/}\n", "jobs/x.yaml")
    assert job.output_dir(None, False) == tmp_path / "deep/here"
    assert job.output_dir(None, True) == tmp_path / "deep/here.simulated"
    assert job.output_dir(tmp_path / "root", False) == tmp_path / "root/x"


# --- provider, keys, environment


@pytest.mark.parametrize(
    ("written", "normal", "host"),
    [
        ("HTTPS://API.Example.com:443/V1/", "https://api.example.com/V1", "api.example.com"),
        ("https://h:8443", "https://h:8443", "h"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1", "localhost"),
        ("http://127.1.2.3:80/v1", "http://127.1.2.3/v1", "127.1.2.3"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1", "::1"),
    ],
)
def test_base_url_is_normalised(tmp_path: Path, written: str, normal: str, host: str) -> None:
    """Two ways of writing an address are one identity."""
    link = connection(load(tmp_path, f"{HEAD}provider: {{base_url: '{written}'}}\n"))
    assert (link.base_url, link.provider_id, link.host) == (normal, normal, host)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v1",
        "http://127.0.0.1.example.com/v1",
        "http://0.0.0.0/v1",
        "http://127.1/v1",
        "http://localhost.example.com",
        "http://user@localhost",
        "ftp://example.com",
        "api.openai.com/v1",
        "https://",
        "https://:443",
        "https://user:PASSWORD@example.com",
        "https://example.com/v1?key=PASSWORD",
        "https://example.com/#x",
        "https://exa mple.com",
        "https://example.com:99999",
        "https://[::1",
        "https://exämple.com",
        "https://{{host}}/v1",
    ],
)
def test_base_url_refused(tmp_path: Path, url: str) -> None:
    """P43 Plain http beyond this machine, credentials and anything that is no address are refused,
    never repeated.
    """
    found = refusal(tmp_path, f"{HEAD}provider: {{base_url: '{url}'}}\n")
    assert found.startswith("4:22: provider.base_url: ")
    assert "PASSWORD" not in found
    job = load(tmp_path, HEAD, OPENAI_BASE_URL=url)
    with pytest.raises(InputError, match="OPENAI_BASE_URL") as caught:
        connection(job)
    assert "PASSWORD" not in str(caught.value)


def test_allow_http(tmp_path: Path) -> None:
    """P43 allow_http: true allows plain http, for an address from the environment too."""
    text = HEAD + "provider: {base_url: 'http://gpu-box:8000/v1', allow_http: true}\n"
    assert connection(load(tmp_path, text)).base_url == "http://gpu-box:8000/v1"
    job = load(
        tmp_path, HEAD + "provider: {allow_http: true}\n", OPENAI_BASE_URL="http://gpu-box/v1/"
    )
    assert connection(job).base_url == "http://gpu-box/v1"


def test_connection_from_environment(tmp_path: Path) -> None:
    """The job wins over the environment, which wins over the default; provider.name is the
    identity.
    """
    environ = {
        "OPENAI_BASE_URL": "https://e.example/v1",
        "OPENAI_ORG_ID": "org\n",
        "OPENAI_PROJECT_ID": "proj",
    }
    assert connection(load(tmp_path, HEAD)).base_url == "https://api.openai.com/v1"
    link = connection(load(tmp_path, HEAD, **environ))
    assert (link.base_url, link.organization, link.project) == (
        "https://e.example/v1",
        "org",
        "proj",
    )
    text = (
        HEAD + "provider: {base_url: 'https://j.example', name: mine, organization: o, project: p, "
        "headers: {X-A: b}}\n"
    )
    link = connection(load(tmp_path, text, **environ))
    assert (link.base_url, link.provider_id, link.organization, link.project) == (
        "https://j.example",
        "mine",
        "o",
        "p",
    )
    assert link.headers == {"X-A": "b"}
    with pytest.raises(InputError, match="OPENAI_ORG_ID"):
        connection(load(tmp_path, HEAD, OPENAI_ORG_ID="a b"))


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("api_key: abc", "4:12: provider.api_key: a key does not belong in a job file"),
        ("api_key_env: A B", "4:25: provider.api_key_env: must be the NAME"),
        (
            "api_key_env: 0123456789abcdef0123456789abcdef",
            "4:25: provider.api_key_env: must be the NAME",
        ),
        (
            "api_key_env: abcdef0123456789abcdef0123456789",
            "4:25: provider.api_key_env: must be the NAME",
        ),
        (
            "headers: {AUTHORIZATION: x}",
            "4:22: provider.headers.AUTHORIZATION: a secret does not belong",
        ),
        ("headers: {api-Key: x}", "4:22: provider.headers.api-Key: a secret does not belong"),
        ("headers: {X-Api-Key: x}", "4:22: provider.headers.X-Api-Key: a secret does not belong"),
        ("headers: {Cookie: x}", "4:22: provider.headers.Cookie: a secret does not belong"),
        (
            "headers: {Transfer-Encoding: chunked}",
            "4:22: provider.headers.Transfer-Encoding: describes the body",
        ),
        (
            "headers: {content-length: x}",
            "4:22: provider.headers.content-length: describes the body",
        ),
        ("headers: {a b: x}", "4:22: provider.headers.'a b': is not a valid name"),
        ('headers: {a: "x\\r\\nb: y"}', "4:25: provider.headers.a: must be printable ASCII"),
        ("name: simulate", "4:18: provider.name: must not be simulate"),
    ],
)
def test_provider_refused(tmp_path: Path, provider: str, message: str) -> None:
    """P39 Keys and secret headers are refused with a word about where they belong, and not
    repeated.
    """
    found = refusal(tmp_path, f"{HEAD}provider: {{{provider}}}\n")
    assert found.startswith(message)
    assert "abc" not in found


@pytest.mark.parametrize(
    "line",
    [
        f"# my key is {CANARY}",
        f"kindd: {CANARY}",
        f"{CANARY}: 1",
        f"{CANARY}: 1\n{CANARY}: 2",
        f"mode: {CANARY}",
        f"provider: {{api_key: {CANARY}}}",
        f"provider: {{api_key_env: {CANARY}}}",
        f"provider: {{base_url: 'https://{CANARY}@x'}}",
        f"matrix: {{a: [{CANARY}, {CANARY}]}}",
        f"request: {{user: {CANARY}}}",
        f"name: 'x {CANARY}",
        f'name: "\\q {CANARY}',
        f'request: {{user: "a\\n{CANARY}"}}',
    ],
)
def test_literal_key(tmp_path: Path, line: str) -> None:
    """P39 What looks like a key is refused wherever it stands, broken YAML included, and never
    repeated.
    """
    found = refusals(tmp_path, f"{HEAD}{line}\n")
    column = line.index("sk-") + 1
    assert any(text.startswith(f"4:{column}: this looks like an API key") for text in found), found
    assert "CANARY" not in "".join(found)


def test_words_that_only_resemble_a_key(tmp_path: Path) -> None:
    """Neither a word that ends in sk- nor a short one is taken for a key."""
    assert load(tmp_path, HEAD + "name: risk-assessment-of-everything-2026\n").name.startswith(
        "risk"
    )
    assert load(tmp_path, HEAD + "output: {prefix: sk-short}\n").output.prefix == "sk-short"


def test_key_from_environment(tmp_path: Path) -> None:
    """P39 The key comes from the variable named, stripped; the job's repr and dump do not
    hold it.
    """
    job = load(tmp_path, HEAD, OPENAI_API_KEY=f" {CANARY}\r\n")
    assert api_key(job) == CANARY
    assert "CANARY" not in repr(job) + job.model_dump_json() + repr(job._origin.document)
    assert api_key(load(tmp_path, HEAD + "provider: {api_key_env: MY_KEY}\n", MY_KEY="k")) == "k"
    assert (
        api_key(load(tmp_path, HEAD + "provider: {api_key_env: null}\n", OPENAI_API_KEY="k"))
        is None
    )


@pytest.mark.parametrize("value", [None, "", " \n", "a b", f"{CANARY}\nx", "ключ", f"{CANARY}\x7f"])
def test_key_unusable(tmp_path: Path, value: str | None) -> None:
    """P39 A missing or malformed key names the variable and what to do, never the value; loopback
    is no excuse.
    """
    text = HEAD + "provider: {base_url: 'http://localhost:1'}\n"
    job = load(tmp_path, text, **({} if value is None else {"OPENAI_API_KEY": value}))
    with pytest.raises(
        AccountError, match=r"OPENAI_API_KEY.*api_key_env: null.*--simulate"
    ) as caught:
        api_key(job)
    assert "CANARY" not in str(caught.value)
    assert "ключ" not in str(caught.value)


def test_key_file(tmp_path: Path) -> None:
    """P39 A key file lies relative to the job and is named when it cannot be used."""
    job = load(
        tmp_path,
        HEAD + "provider: {api_key_file: ../key.txt}\n",
        "jobs/x.yaml",
        OPENAI_API_KEY="other",
    )
    with pytest.raises(AccountError, match=r"key\.txt cannot be read: no such file.*--simulate"):
        api_key(job)
    key = tmp_path / "key.txt"
    key.write_bytes(b"\xef\xbb\xbf" + CANARY.encode() + b"\r\n")
    assert api_key(job) == CANARY
    for content in (b"", b"\n", f"{CANARY}\n{CANARY}".encode(), b"\xff\xfe", b"CANARY " * 20_000):
        key.write_bytes(content)
        with pytest.raises(AccountError, match=r"key\.txt") as caught:
            api_key(job)
        assert "CANARY" not in str(caught.value)
    key.unlink()
    os.mkfifo(key)
    with pytest.raises(AccountError, match="not a regular file"):
        api_key(job)


def test_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first .env upward from the job is read; the real environment wins and is never written
    to.
    """
    (tmp_path / ".env").write_text("OPENAI_API_KEY=far\n", encoding="utf-8")
    assert api_key(load(tmp_path, HEAD, "a/b/x.yaml")) == "far"
    (tmp_path / "a/.env").write_text(
        "export OPENAI_API_KEY='near$HOME'\nEMPTY\nOPENAI_ORG_ID=o\n", encoding="utf-8"
    )
    job = load(tmp_path, HEAD, "a/b/x.yaml")
    assert api_key(job) == "near$HOME"
    assert connection(job).organization == "o"
    assert "EMPTY" not in job.environ
    assert api_key(load(tmp_path, HEAD, "a/b/x.yaml", OPENAI_API_KEY="real")) == "real"
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    before = dict(os.environ)
    assert api_key(load_job(tmp_path / "a/b/x.yaml")) == "near$HOME"
    assert dict(os.environ) == before


def test_dotenv_that_is_none(tmp_path: Path) -> None:
    """A broken .env costs only its broken lines, an unreadable one is named with the missing key, a
    folder is none.
    """
    (tmp_path / ".env").write_text("OPENAI_API_KEY=far\n", encoding="utf-8")
    (tmp_path / "a/.env").mkdir(parents=True)
    assert api_key(load(tmp_path, HEAD, "a/x.yaml")) == "far"
    (tmp_path / ".env").write_text("this is = 'not\nOPENAI_API_KEY=far\n=\n", encoding="utf-8")
    assert api_key(load(tmp_path, HEAD)) == "far"
    (tmp_path / ".env").write_bytes(b"OPENAI_API_KEY=CANARY\xff\n")
    with pytest.raises(AccountError, match=r"\.env cannot be read: it is not UTF-8") as caught:
        api_key(load(tmp_path, HEAD))
    assert "CANARY" not in str(caught.value)


def test_dotenv_of_a_stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P43 A .env that another user may have written is not read, and named; the next one upward is
    read. That of the job file's owner is no stranger's: the job file may name any server.
    """
    near, far = tmp_path / "a/.env", tmp_path / ".env"
    near.parent.mkdir()
    near.write_text("OPENAI_BASE_URL=https://evil.example/v1\n", encoding="utf-8")
    far.write_text("OPENAI_ORG_ID=o\n", encoding="utf-8")

    def settings() -> tuple[str, str | None, str]:
        job = load(tmp_path, HEAD, "a/x.yaml")
        return connection(job).host, connection(job).organization, job.env_note

    assert settings() == ("evil.example", None, "")
    near.parent.chmod(0o1777)
    host, organization, note = settings()
    assert (host, organization) == ("api.openai.com", "o")
    assert f"{near} is not read: every user may write to its folder" in note
    near.parent.chmod(0o755)
    near.chmod(0o666)
    assert "every user may write to it;" in settings()[2]
    near.chmod(0o644)
    me, mine = os.geteuid(), near.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: me + 4000)
    assert settings()[0] == "evil.example", "the owner of the job file is trusted"
    monkeypatch.undo()
    if mine == 0:  # only root can give a file away
        os.chown(near, 4001, -1)
        assert settings()[0] == "api.openai.com"
        assert "belongs to another user (4001)" in settings()[2]
        os.chown(tmp_path / "a/x.yaml", 4001, -1)
        assert settings()[0] == "evil.example"
        os.chown(tmp_path / "a/x.yaml", mine, -1)
        near.unlink()
        near.symlink_to(far)
        os.chown(near, 4001, -1, follow_symlinks=False)
        assert "belongs to another user" in settings()[2], "a link that a stranger made"


def test_the_dotenv_that_names_the_server_is_known(tmp_path: Path) -> None:
    """P43 It is known which .env names the server, if neither job nor environment does."""
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=https://proxy.example/v1\n", encoding="utf-8")
    named = tmp_path / ".env"
    assert load(tmp_path, HEAD).server_from == named
    assert load(tmp_path, HEAD, OPENAI_BASE_URL="https://other.example/v1").server_from is None
    of_job = HEAD + "provider: {base_url: https://job.example/v1}\n"
    assert load(tmp_path, of_job).server_from is None


# --- schema and start-up


def test_schema_describes_every_field() -> None:
    """The JSON Schema names its dialect and describes every key, for editors."""
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "batchgen job"
    assert schema["required"] == ["prompts"]
    assert schema["else"] == {"required": ["kind", "request"]}
    sections = [schema, *schema["$defs"].values()]
    assert len(sections) == 11
    for section in sections:
        assert section["additionalProperties"] is False
        assert all(value.get("description") for value in section["properties"].values()), section[
            "title"
        ]
    assert "origin" not in str(schema).lower()


def test_schema_shows_what_a_user_may_write() -> None:
    """Where the job holds another type than the file, the schema shows the file's."""
    definitions = json_schema()["$defs"]
    limits = definitions["Limits"]["properties"]
    assert [choice["type"] for choice in limits["max_time"]["anyOf"]] == [
        "number",
        "string",
        "null",
    ]
    assert [choice["type"] for choice in limits["max_failures"]["anyOf"]] == [
        "integer",
        "string",
        "null",
    ]
    assert limits["max_cost"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0}
    axis = json_schema()["properties"]["matrix"]["additionalProperties"]
    assert [choice["type"] for choice in axis["anyOf"]] == ["integer", "array"]


def test_every_section_has_words_for_its_keys() -> None:
    """An unknown key in any section finds its nearest name: the table of sections is complete."""
    classes = {
        value
        for value in (*vars(sections).values(), model.Job)
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and value not in (BaseModel, sections.Section)
    }
    assert classes == {*model._SECTIONS.values(), sections.Price}


def test_jobs_are_frozen(tmp_path: Path) -> None:
    """A job does not change after it was read."""
    job = load(tmp_path, HEAD)
    with pytest.raises(ValueError, match="frozen"):
        job.name = "other"


def test_imports_stay_light() -> None:
    """Reading a job imports none of the packages that cost seconds of start-up."""
    heavy = ("openai", "pandas", "jinja2", "dotenv", "aiohttp", "genai_prices", "numpy")
    code = f"import sys, batchgen.job; print([name for name in {heavy!r} if name in sys.modules])"
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_yaml_that_others_read_alike(tmp_path: Path) -> None:
    """What is accepted means the same to PyYAML, where the two versions of YAML agree."""
    text = (
        HEAD + "output:\n  accept:\n  - length\n  prefix: 'it''s'\nretry: {attempts: 3,\n  "
        "max_wait: 1.5}\n"
    )
    document, problems = parse(text, "job.yaml")
    assert not problems
    assert document is not None
    assert document.data == yaml.safe_load(text)


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_counts_as_unset(tmp_path: Path, value: str) -> None:
    """P39 An empty OPENAI_API_KEY does not hide the key of the .env file."""
    (tmp_path / ".env").write_text("OPENAI_API_KEY=of-the-file\n", encoding="utf-8")
    assert api_key(load(tmp_path, HEAD, OPENAI_API_KEY=value)) == "of-the-file"
