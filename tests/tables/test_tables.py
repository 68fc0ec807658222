"""Tables: what went in stands beside what came out, unchanged, in every format."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import Lab, Server, serving

import batchgen
from batchgen import maintenance, queries
from batchgen.journal.records import encodable
from batchgen.kinds import KINDS
from batchgen.replies import UnreadableReplyError
from batchgen.simulator import Simulator
from batchgen.simulator.texts import POLICY
from batchgen.tables.formats import WRITERS, TableFile, cell
from batchgen.tables.layout import ERRORS, LEADING, TRAILING

HOSTILE = [
    "",
    " leading and trailing ",
    "\tTAB\t",
    "a\rb",
    "a\nb",
    "a\r\nb",
    "\r",
    "\n",
    "\x00NUL\x00",
    "\u2028line\u2029paragraph\x85next",
    "\ufeffBOM",
    "emoji 👩‍👩‍👧‍👦 \U0001f3f3\ufe0f\u200d\U0001f308",
    "e\u0301 combining, é composed",
    "\u202eright to left\u202c שלום مرحبا",
    'quotes " and ""  and \' and \\',
    "comma, semicolon; tab\t pipe|",
    "007",
    "1e3",
    "NULL",
    "NA",
    "None",
    "true",
    "nan",
    "-0",
    "=1+1",
    "x" * 1_000_000,
    "ü" * 300_000,
]
ECHO = [{"role": "user", "content": "ECHO:{{ text }}"}]
REQUEST = {"model": "gpt-5.6-luna", "messages": ECHO}
BODY = {
    "model": "gpt-5.6-luna",
    "messages": [{"role": "user", "content": "ECHO:{{ text }}"}],
    "max_completion_tokens": 99,
}


# Columns that only some jobs have.
CONDITIONAL = {"choice", "messages", "pictures", "unwrapped"}


def write_csv(lab: Lab, cells: list[str], **dialect: Any) -> None:
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, **dialect)
        writer.writerow(["id", "text"])
        writer.writerows([f"r{n}", text] for n, text in enumerate(cells, 1))


def write_jsonl(lab: Lab, cells: list[Any]) -> None:
    with open(lab.folder / "prompts.jsonl", "w", encoding="utf-8", newline="") as file:
        file.writelines(
            json.dumps({"id": f"r{n}", "text": text}) + "\n" for n, text in enumerate(cells, 1)
        )


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().decode().removesuffix("\n").split("\n")]


# The simulator refuses a prompt that holds its word for a policy, and hypothesis reads that word in
# its source.
CELLS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
        lambda text: POLICY not in text
    ),
    min_size=40,
    max_size=80,
)


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=CELLS)
def test_any_text_of_a_csv_comes_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    """P28 Any text passes unchanged: CSV -> request -> echo -> results.csv and .jsonl, in its own
    cell.
    """
    lab = Lab(tmp_path_factory.mktemp("csv"))
    cells = [*HOSTILE, *cells]
    write_csv(lab, cells)
    with serving() as api:
        lab.go(
            lab.job(
                api.url,
                prompts={"path": "prompts.csv", "id": "id", "empty": "send"},
                request=REQUEST,
                output={"tables": ["csv", "jsonl"]},
            )
        )
    table = lab.table()
    assert [row["text"] for row in table] == cells
    assert [row["output"] for row in table] == cells
    assert [row["output"] or "" for row in jsonl(lab.output() / "results.jsonl")] == cells


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=CELLS)
def test_any_text_of_a_jsonl_comes_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    """P28 The same over JSONL, read and written."""
    lab = Lab(tmp_path_factory.mktemp("jsonl"))
    cells = [*HOSTILE, *cells]
    write_jsonl(lab, cells)
    with serving() as api:
        prompts = {"path": "prompts.jsonl", "id": "id", "empty": "send"}
        lab.go(
            lab.job(api.url, prompts=prompts, request=REQUEST, output={"tables": ["csv", "jsonl"]})
        )
    rows = jsonl(lab.output() / "results.jsonl")
    assert [row["text"] for row in rows] == cells
    assert [row["output"] for row in rows] == cells
    assert [row["output"] for row in lab.table()] == cells


def test_json_types_keep_their_type_in_jsonl(lab: Lab, api: Simulator) -> None:
    """P29 Numbers, booleans, null, lists and objects of a JSONL keep their types in the JSONL
    table, and are JSON in the CSV.
    """
    values = [7, 1.5, True, None, [1, "a"], {"b": None}, "007", 10**40]
    write_jsonl(lab, values)
    job = lab.job(
        api.url,
        prompts={"path": "prompts.jsonl", "id": "id", "empty": "send"},
        request={"model": "m", "messages": [{"role": "user", "content": "Of {{ text }}"}]},
        output={"tables": ["csv", "jsonl", "parquet"]},
    )
    report = lab.go(job)
    assert report.total == 8
    assert [row["text"] for row in jsonl(lab.output() / "results.jsonl")] == values
    cells = ["7", "1.5", "true", "", '[1, "a"]', '{"b": null}', "007", "1" + "0" * 40]
    assert [row["text"] for row in lab.table()] == cells


def test_ids_and_numbers_stay_as_written(lab: Lab, api: Simulator) -> None:
    """P29 Ids and cells stay as written in every table and in the DataFrame: 007, 1e3, NULL, NA,
    None, true, and the empty cell.
    """
    ids = ["007", "1e3", "NULL", "NA", "None", "true", "nan"]
    with open(lab.folder / "prompts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text", "empty"], *([each, each, ""] for each in ids)])
    job = lab.job(
        api.url, rows=None, request=REQUEST, output={"tables": ["csv", "jsonl", "parquet"]}
    )
    lab.go(job)
    wanted = [(each, each, "", each) for each in ids]
    assert [(row["id"], row["text"], row["empty"], row["output"]) for row in lab.table()] == wanted
    rows = jsonl(lab.output() / "results.jsonl")
    assert [(row["id"], row["text"], row["empty"], row["output"]) for row in rows] == wanted
    frame = batchgen.results(lab.load(job))
    assert [
        tuple(each) for each in frame[["id", "text", "empty", "output"]].itertuples(index=False)
    ] == wanted
    assert all(type(each) is str for each in frame["id"])
    assert list(frame["error"]) == [None] * len(ids)


def test_the_frame_has_none_where_there_is_nothing(lab: Lab, api: Simulator) -> None:
    """P29 results() guesses no type: a missing value is None, not a NaN that would turn integers
    into floats.
    """
    job = lab.job(api.url)
    lab.go(job, limit=2)
    frame = batchgen.results(lab.load(job))
    assert list(frame["status"]) == ["succeeded"] * 2 + ["pending"] * 3
    assert [type(each) for each in frame["input_tokens"]] == [
        int,
        int,
        type(None),
        type(None),
        type(None),
    ]
    assert list(frame["output"])[2:] == [None] * 3


def test_parquet_columns_have_their_types(lab: Lab, api: Simulator) -> None:
    """P29 In Parquet the prompts' cells are text, counts are int64, cost and seconds are float64;
    the data do not change the types.
    """
    from pyarrow import parquet

    job = lab.job(
        api.url,
        rows=3,
        output={"tables": ["parquet"]},
        pricing={"gpt-5.6-luna": {"input": 1, "output": 1}},
    )
    lab.go(job, limit=2)
    table = parquet.read_table(lab.output() / "results.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["id"], types["input_tokens"], types["cost"], types["elapsed_s"]) == (
        "string",
        "int64",
        "double",
        "double",
    )
    assert table.column("output").to_pylist() == ["answer 1", "answer 2", None]
    assert table.column("input_tokens").to_pylist()[2] is None
    assert parquet.read_table(lab.output() / "errors.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("data", "delimiter", "bom"),
    [
        ("id,text\nr1,ECHO:ä\n".encode(), ",", False),
        ("\ufeffid,text\nr1,ECHO:ä\n".encode(), ",", True),
        ("id;text\nr1;ECHO:ä\n".encode(), ";", False),
        ("id;text\r\nr1;ECHO:ä\r\n".encode("utf-16"), ";", True),
        (b"sep=;\r\nid;text\r\nr1;ECHO:\xe4\r\n", ";", True),
        ("id\ttext\nr1\tECHO:ä\n".encode(), "\t", False),
    ],
    ids=["plain", "bom", "semicolon", "utf-16", "cp1252", "tab"],
)
def test_the_csv_has_the_inputs_dialect(
    lab: Lab, api: Simulator, data: bytes, delimiter: str, bom: bool
) -> None:
    """P28 The results table has the input's delimiter, and a BOM unless the input was plain
    UTF-8.
    """
    (lab.folder / "prompts.csv").write_bytes(data)
    encoding = {"encoding": "cp1252"} if b"\xe4\r" in data and data.startswith(b"sep") else {}
    lab.go(lab.job(api.url, rows=None, prompts={"path": "prompts.csv", "id": "id", **encoding}))
    made = (lab.output() / "results.csv").read_bytes()
    assert made.startswith(b"\xef\xbb\xbf") == bom
    rows = list(
        csv.DictReader(io.StringIO(made.decode("utf-8-sig"), newline=""), delimiter=delimiter)
    )
    assert (rows[0]["id"], rows[0]["output"]) == ("r1", "ä")


def test_a_tsv_and_a_txt_make_a_table(lab: Lab, api: Simulator) -> None:
    """P28 TSV without quoting and plain text, each line a prompt, keep their characters."""
    (lab.folder / "a.tsv").write_text('id\ttext\nr1\tECHO:say "hi", you\n', encoding="utf-8")
    lab.go(lab.job(api.url, name="tsv", prompts={"path": "a.tsv", "id": "id"}))
    with open(lab.output("tsv") / "results.csv", encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file, delimiter="\t"))["output"] == 'say "hi", you'
    (lab.folder / "a.txt").write_text("ECHO:one, two\n\nECHO:three\n", encoding="utf-8")
    body = {**BODY, "messages": [{"role": "user", "content": "{{ prompt }}"}]}
    lab.go(lab.job(api.url, name="txt", prompts={"path": "a.txt"}, request=body))
    assert [row["output"] for row in lab.table("txt")] == ["one, two", "three"]


def choice(index: int = 0, **message: Any) -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", **message}, "finish_reason": "stop"}


@contextmanager
def replying(
    *contents: str | list[Any], status: int = 200, header: str = "", **more: Any
) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers each chat with the next of these contents (the last one for ever); a
    content is a string or a list of choices, as JSON escapes. `status`, a header and `more` fields
    of the body can be set. Yields its URL and the bodies that it was sent.
    """
    asked: list[Any] = []
    servers: list[asyncio.Server] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            asked.append(json.loads(await reader.readexactly(length)))
            content = contents[min(len(asked), len(contents)) - 1]
            choices = content if isinstance(content, list) else [choice(content=content)]
            body = json.dumps({"choices": choices, "model": "m", **more}).encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{header}".encode()
            )
            writer.write(
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
            )
            await writer.drain()
            writer.close()
            return

    async def start() -> None:
        servers.append(await asyncio.start_server(answer, "127.0.0.1", 0))

    async def stop() -> None:
        servers[0].close()
        await servers[0].wait_closed()

    server = Server(start, stop)
    try:
        yield f"http://127.0.0.1:{servers[0].sockets[0].getsockname()[1]}/v1", asked
    finally:
        server.close()


def test_half_a_character_in_a_reply_is_kept_as_well_as_can_be(lab: Lab) -> None:
    """P28 A lone surrogate in a reply is U+FFFD in CSV and Parquet, which cannot hold it, and stays
    in JSONL.
    """
    with replying("half \ud83d end") as (url, _):
        job = lab.job(
            url,
            rows=2,
            output={"tables": ["csv", "jsonl", "parquet"], "columns": {"copy": "{{ output }}"}},
        )
        report = lab.go(job)
    assert report.rows == {"succeeded": 2}
    assert [row["output"] for row in lab.table()] == ["half \ufffd end"] * 2
    assert [row["copy"] for row in lab.table()] == ["half \ufffd end"] * 2
    assert jsonl(lab.output() / "results.jsonl")[0]["output"] == "half \ud83d end"
    maintenance.export(lab.load(job))


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("choices", "cell", "sent"),
    [
        (
            [choice(content=None, refusal="No.")],
            "No.",
            {"content": [{"type": "refusal", "refusal": "No."}]},
        ),
        ([choice(content="Yes.", refusal=None)], "Yes.", {"content": "Yes."}),
        ([choice(content=None)], "", {"content": ""}),
        ([choice(content=None, tool_calls=[CALL])], json.dumps([CALL]), {"tool_calls": [CALL]}),
        (
            [choice(content=None, function_call=FUNCTION)],
            json.dumps(FUNCTION),
            {"function_call": FUNCTION},
        ),
        (
            [choice(content=None, audio={"id": "a", "transcript": "Hm.", "data": "AAAA"})],
            "Hm.",
            {"content": "Hm."},
        ),
        ([choice(1, content="other"), choice(0, content="first")], "first", {"content": "first"}),
    ],
)
def test_the_next_turn_is_told_what_was_answered(
    lab: Lab, choices: list[Any], cell: str, sent: dict[str, Any]
) -> None:
    """P13 Whatever the reply to a turn was, the next turn carries it, and never an empty message of
    the model; of several choices the first by its index, which the table has first too.
    """
    (lab.folder / "prompts.csv").write_text("id,thread,text\na,t,one\nb,t,two\n", encoding="utf-8")
    with replying(choices, "end") as (url, asked):
        accept = {"accept": ["refusal", "empty"]}
        report = lab.go(lab.job(url, rows=None, conversation={"id": "thread"}, output=accept))
    assert report.rows == {"succeeded": 2}
    assert asked[1]["messages"][1] == {"role": "assistant", **sent}
    assert lab.table()[0]["output"] == cell


def test_half_a_character_in_a_conversation_is_sent_on_as_a_mark(lab: Lab) -> None:
    """P28 A lone surrogate in a reply cannot be sent again: the history of the next turn has U+FFFD
    instead.
    """
    with replying("half \ud83d", "whole") as (url, asked):
        (lab.folder / "prompts.csv").write_text("id,text\na,one\nb,two\n", encoding="utf-8")
        (lab.folder / "talk.csv").write_text("id,thread,text\na,t,one\nb,t,two\n", encoding="utf-8")
        job = lab.job(url, prompts={"path": "talk.csv", "id": "id"}, conversation={"id": "thread"})
        assert lab.go(job).rows == {"succeeded": 2}
    assert asked[1]["messages"][1] == {"role": "assistant", "content": "half \ufffd"}


def test_cells_that_spreadsheets_would_run_get_an_apostrophe(lab: Lab, api: Simulator) -> None:
    """P32 With output.csv.safe, cells written by the model that start with = + - @ TAB CR get an
    apostrophe, except numbers; ids and input columns never change, and the report counts the cells.
    """
    cells = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "-12", "+1.5", "-1,5", "plain", "'=1"]
    write_csv(lab, cells)
    job = lab.job(
        api.url,
        rows=None,
        request=BODY,
        output={"csv": {"safe": True}, "columns": {"again": "{{ output }}"}},
    )
    report = lab.go(job)
    wanted = ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "'\rx", "-12", "+1.5", "-1,5", "plain", "'=1"]
    table = lab.table()
    assert [row["output"] for row in table] == [row["again"] for row in table] == wanted
    assert [row["text"] for row in table] == cells
    assert report.disarmed == 12
    assert "12 cells made safe for spreadsheets" in report.line()
    lab.job(api.url, rows=None, request=BODY)
    lab.go(job)
    assert [row["output"] for row in lab.table()] == cells


def test_the_names_of_columns_are_nobodys_to_make_safe(lab: Lab, api: Simulator) -> None:
    """P32 With output.csv.safe the header keeps the job's own names, whatever they begin with, and
    is not counted.
    """
    output = {"csv": {"safe": True}, "prefix": "-", "columns": {"=own": "same"}}
    report = lab.go(lab.job(api.url, output=output))
    assert {"-status", "-output", "-=own"} <= set(lab.table()[0])
    assert "made safe" not in report.line()


def test_what_a_server_wrote_is_disarmed_too(lab: Lab) -> None:
    """P32 With output.csv.safe, the server's own text is made safe in both tables, and counted:
    code, message and request id of a refusal, model and finish reason of an answer. Ids and input
    columns never change, not even those whose name is a column of the other table.
    """
    rows = "=id,text,code\n=r1,-x,=mine\n"
    (lab.folder / "prompts.csv").write_text(rows, encoding="utf-8")
    parts: dict[str, Any] = {
        "rows": None,
        "prompts": {"path": "prompts.csv", "id": "=id"},
        "request": BODY,
    }
    safe = {"csv": {"safe": True}}
    refusal = {"message": "=HYPERLINK(1)", "code": "=cmd|' /C calc'!A0", "type": "x"}
    with replying("", status=400, header="x-request-id: =1+1\r\n", error=refusal) as (url, _):
        report = lab.go(lab.job(url, **parts, output=safe))
    (error,), (row,) = lab.table(which="errors"), lab.table()
    assert (error["id"], error["code"], error["request_id"]) == (
        "=r1",
        "'=cmd|' /C calc'!A0",
        "'=1+1",
    )
    assert error["message"].startswith("'=HYPERLINK")
    assert (row["=id"], row["text"], row["code"]) == ("=r1", "-x", "=mine")
    assert (row["request_id"], report.disarmed) == ("'=1+1", 4)
    with replying([{**choice(content="fine"), "finish_reason": "@stop"}], model="=model") as (
        url,
        _,
    ):
        accepting = {**safe, "accept": ["@stop"]}
        report = lab.go(lab.job(url, name="answered", **parts, output=accepting))
    (row,) = lab.table("answered")
    assert (row["answered_by"], row["finish_reason"], row["output"], report.disarmed) == (
        "'=model",
        "'@stop",
        "fine",
        2,
    )


TEXT = {"model": "gpt-5.6-luna", "input": "{{ text }}", "max_output_tokens": 100}
PICTURE = {"model": "gpt-image-2", "prompt": "{{ text }}"}
VECTOR = {"model": "text-embedding-3-small", "input": "{{ text }}"}


@pytest.mark.parametrize(
    ("kind", "request_"), [("text", TEXT), ("image", PICTURE), ("embedding", VECTOR)]
)
def test_answers_of_another_kind_are_shown(
    lab: Lab, api: Simulator, kind: str, request_: dict[str, Any]
) -> None:
    """P08 A job whose kind has changed shows the answers of its former kind as outdated until it
    runs again; so do export and results(), and a change back works too.
    """
    job = lab.job(api.url)
    lab.go(job)
    lab.job(api.url, kind=kind, request=request_)
    maintenance.export(lab.load(job))
    assert [row["output"] for row in lab.table()] == [f"answer {n}" for n in range(1, 6)]
    assert lab.go(job, limit=1).run.calls == 1
    table = lab.table()
    assert [row["status"] for row in table] == ["succeeded"] + ["outdated"] * 4
    assert [row["output"] for row in table[1:]] == [f"answer {n}" for n in range(2, 6)]
    maintenance.export(lab.load(job))
    assert lab.table() == table
    assert list(batchgen.results(lab.load(job))["status"]) == [row["status"] for row in table]
    lab.go(job)
    table = lab.table()
    assert [row["status"] for row in table] == ["succeeded"] * 5
    lab.job(
        api.url,
        request={
            **BODY,
            "messages": [{"role": "user", "content": "{{ text }}"}],
            "temperature": 0.5,
        },
    )
    assert lab.go(job, limit=1).run.calls == 1
    assert [row["output"] for row in lab.table()] == [
        "answer 1",
        *(row["output"] for row in table[1:]),
    ]


def test_a_job_that_became_a_conversation_is_shown(lab: Lab, api: Simulator) -> None:
    """P08 export and show work for a job that has become a conversation since it ran: they show
    what there is.
    """
    job = lab.job(api.url, rows=2)
    lab.go(job)
    for turns in ("turns", "text"):
        lab.job(
            api.url,
            rows=None,
            conversation={"turns": turns},
            output={"columns": {"asked": "{{ request }}"}},
        )
        maintenance.export(lab.load(job))
        assert [(row["output"], row["messages"]) for row in lab.table()] == [
            ("answer 1", ""),
            ("answer 2", ""),
        ]
        assert "run again" in queries.show(lab.load(job), "r1")[0]["request"]["error"]


def test_an_answer_that_nothing_reads_leaves_its_cell_empty(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P08 A recorded answer never prevents a table: one that no kind can read any more leaves an
    empty cell, and the rest of its line stays.
    """

    def unreadable(*_: Any) -> Any:
        raise UnreadableReplyError("the reply has changed its form")

    job = lab.job(api.url, rows=2)
    lab.go(job)
    for name, kind in KINDS.items():
        monkeypatch.setitem(KINDS, name, replace(kind, read=unreadable))
    maintenance.export(lab.load(job))
    assert [(row["status"], row["output"], row["answered_by"]) for row in lab.table()] == [
        ("succeeded", "", "gpt-5.6-luna")
    ] * 2


def test_several_choices_are_several_lines(lab: Lab, api: Simulator) -> None:
    """P45 With n above 1 there is a numbered line for each choice; tokens and cost are on the first
    only, so that sums are right.
    """
    body = {**BODY, "n": 3, "messages": [{"role": "user", "content": "Say {{ text }}"}]}
    job = lab.job(
        api.url, rows=2, request=body, pricing={"gpt-5.6-luna": {"input": 1, "output": 1}}
    )
    report = lab.go(job)
    table = lab.table()
    assert [(row["id"], row["choice"]) for row in table] == [
        (f"r{n}", str(c)) for n in (1, 2) for c in (1, 2, 3)
    ]
    assert [bool(row["input_tokens"]) for row in table] == [True, False, False] * 2
    assert sum(float(row["cost"] or 0) for row in table) == pytest.approx(report.run.cost)
    assert len({row["output"] for row in table[:3]}) == 3
    assert report.total == 2


@pytest.mark.parametrize("where", ["axis", "column"])
def test_the_model_that_was_asked_and_the_one_that_answered(lab: Lab, where: str) -> None:
    """P45 `model` as an axis or as a column of the prompts shows what was asked, `answered_by` the
    snapshot that answered, in every format, with and without output.prefix.
    """
    models = ["small", "large"]
    parts: dict[str, Any] = {"rows": None, "request": {**BODY, "model": "{{ model }}"}}
    rows = "id,text\nr,x\n"
    if where == "axis":
        parts["matrix"] = {"model": models}
    else:
        rows = "id,text,model\n" + "".join(f"{model},x,{model}\n" for model in models)
    (lab.folder / "prompts.csv").write_text(rows, encoding="utf-8")
    with replying("fine", model="snapshot-2026-11") as (url, asked):
        job = lab.job(url, output={"tables": ["csv", "jsonl"]}, **parts)
        lab.go(job)
        assert sorted(body["model"] for body in asked) == sorted(models)
    expected = [(model, "snapshot-2026-11") for model in models]
    for table in (lab.table(), jsonl(lab.output() / "results.jsonl")):
        assert [(row["model"], row["answered_by"]) for row in table] == expected
    lab.job(url, output={"prefix": "bg_"}, **parts)
    maintenance.export(lab.load(job))
    assert [(row["model"], row["bg_answered_by"]) for row in lab.table()] == expected


@pytest.mark.parametrize("axis", ["id", *sorted({*LEADING, *TRAILING, *ERRORS} - CONDITIONAL)])
def test_an_axis_that_a_table_has_a_column_for_is_refused(
    lab: Lab, api: Simulator, axis: str
) -> None:
    """P30 An axis with the name of one of batchgen's columns, in the results or the errors, is
    refused with exit 2 and its line in the job, before any call; with output.prefix each has its
    own column.
    """
    (lab.folder / "prompts.csv").write_text("sku,text\nr1,ECHO:hi\n", encoding="utf-8")
    parts: dict[str, Any] = {
        "rows": None,
        "prompts": {"path": "prompts.csv", "id": "sku"},
        "matrix": {axis: ["u", "v"]},
    }
    job = lab.job(api.url, **parts)
    with pytest.raises(
        batchgen.InputError, match=rf"job\.yaml:\d+:\d+: matrix\.{axis}: .*set output\.prefix"
    ) as caught:
        lab.go(job)
    assert (caught.value.exit_code, api.requests.received) == (2, 0)
    lab.job(api.url, **parts, output={"prefix": "bg_"})
    assert lab.go(job).rows == {"succeeded": 2}
    assert [row[axis] for row in lab.table()] == ["u", "v"]


def test_a_matrix_makes_a_line_per_combination(lab: Lab, api: Simulator) -> None:
    """P45 Every row appears once for each combination, the last axis varying fastest, with the axes
    as columns.
    """
    messages = [{"role": "user", "content": "ECHO:{{ text }} {{ tone }} {{ sample }}"}]
    body = {**BODY, "model": "{{ model }}", "messages": messages}
    matrix = {"model": ["gpt-5.6-luna", "gpt-6-sol"], "tone": ["dry", "warm"], "sample": 2}
    lab.go(lab.job(api.url, rows=2, request=body, matrix=matrix))
    table = lab.table()
    assert len(table) == 16
    first = [(row["model"], row["tone"], row["sample"]) for row in table[:4]]
    assert first == [("gpt-5.6-luna", t, s) for t in ("dry", "warm") for s in ("1", "2")]


COLUMNS = {
    "first": "{{ output.split()[0] }}",
    "tokens": "{{ response.usage.total_tokens }}",
    "asked": "{{ request.messages[0].content }}",
    "whose": "{{ row.id }}",
    "word": "{{ json.word }}",
    "fails": "{{ output.splitlines()[99] }}",
}


def test_output_columns_are_computed_and_cost_nothing(lab: Lab, api: Simulator) -> None:
    """P08 output.columns see row, request, response, output and json; a template that fails gives
    an empty cell; editing them and exporting sends nothing.
    """
    write_csv(lab, ['{"word": "hello"}', "two words"])
    job = lab.job(api.url, rows=None, request=BODY)
    lab.go(job)
    lab.job(api.url, rows=None, request=BODY, output={"columns": COLUMNS})
    calls = api.requests.received
    maintenance.export(lab.load(job))
    one, two = lab.table()
    assert (one["word"], two["word"], two["first"], one["whose"]) == ("hello", "", "two", "r1")
    assert two["asked"] == "ECHO:two words"
    assert int(one["tokens"]) > 0
    assert (one["fails"], two["fails"]) == ("", "")
    assert lab.go(job).run.calls == 0
    assert api.requests.received == calls


@pytest.mark.parametrize("name", sorted({*LEADING, *TRAILING} - CONDITIONAL))
def test_a_prompts_column_that_a_table_has_too_is_refused(lab: Lab, name: str) -> None:
    """P30 A column of the prompts with the name of any of batchgen's is refused by plan and run,
    with the sentence that names output.prefix; a prefix that does not help asks for another.
    """
    (lab.folder / "prompts.csv").write_text(f"id,text,{name},bg_{name}\nr,x,y,z\n", "utf-8")
    hints = {"": "set output.prefix, such as `prefix: bg_`", "bg_": "choose another output.prefix"}
    for prefix, hint in hints.items():
        job = lab.job("http://127.0.0.1:9/v1", rows=None, output={"prefix": prefix})
        for ask in (batchgen.plan, batchgen.run):
            with pytest.raises(batchgen.InputError, match=rf"'{prefix}{name}' is also .*; {hint}$"):
                ask(lab.load(job))


def test_columns_that_would_hide_others_are_refused_even_after_the_run(
    lab: Lab, api: Simulator
) -> None:
    """P30 A column of the prompts, or of output.columns, with the name of one of batchgen's is
    refused with a hint, before any call and also when the job changes after its run; output.prefix
    fixes it.
    """
    (lab.folder / "prompts.csv").write_text("id,text,output\nr1,ECHO:hi,mine\n", encoding="utf-8")
    job = lab.job(api.url, rows=None)
    with pytest.raises(
        batchgen.InputError,
        match=r"column 'output' is also a column of the table; set output.prefix",
    ):
        lab.go(job)
    assert api.requests.received == 0
    lab.job(api.url, rows=None, output={"prefix": "bg_"})
    lab.go(job)
    row = lab.table()[0]
    assert (row["output"], row["bg_output"], row["bg_status"]) == ("mine", "hi", "succeeded")
    assert "bg_id" in (lab.output() / "errors.csv").read_text()
    for output in ({"prefix": "bg_", "columns": {"status": "x"}}, {"prefix": ""}):
        lab.job(api.url, rows=None, output=output)
        for ask in (maintenance.export, batchgen.results, batchgen.run):
            with pytest.raises(batchgen.InputError):
                ask(lab.load(job))
    assert api.requests.received == 1


def test_accept_makes_a_cut_answer_count_and_back(lab: Lab, api: Simulator) -> None:
    """P08 accept: [length] after the run makes cut answers succeeded ones without a call, and
    removing it makes them incomplete again; the finish reason stays.
    """
    write_csv(lab, ["word " * 100, "short"])
    job = lab.job(api.url, rows=None, request={**BODY, "max_completion_tokens": 20})
    assert lab.go(job).rows == {"incomplete": 1, "succeeded": 1}
    row = lab.table()[0]
    assert (row["finish_reason"], row["error"]) == ("length", "incomplete: length")
    assert row["output"].startswith("word word")
    for output, rows in (
        ({"accept": ["length"]}, {"succeeded": 2}),
        ({}, {"incomplete": 1, "succeeded": 1}),
    ):
        lab.job(api.url, rows=None, request={**BODY, "max_completion_tokens": 20}, output=output)
        report = lab.go(job)
        assert (report.run.calls, report.rows) == (0, rows)
        assert report.exit_code == (0 if rows == {"succeeded": 2} else 3)
        assert lab.table()[0]["finish_reason"] == "length"


def test_errors_say_why_and_answers_never_do(lab: Lab) -> None:
    """P45 The errors table has a line for each failed or incomplete row: id, reason, status, code,
    message, request id, attempts, when; a failed row's output is empty.
    """
    with serving(
        script=lambda request: "400_policy" if "answer 2" in str(request.body) else None
    ) as api:
        lab.go(lab.job(api.url, rows=3))
    (error,) = lab.table(which="errors")
    assert (error["id"], error["status"], error["http_status"], error["code"]) == (
        "r2",
        "failed",
        "400",
        "content_policy_violation",
    )
    assert error["request_id"].startswith("req_sim")
    assert error["when"].endswith("Z")
    row = lab.table()[1]
    assert (row["status"], row["output"]) == ("failed", "")
    assert row["error"].startswith("policy: ")


def test_every_kind_of_answer_stands_in_its_table(lab: Lab, api: Simulator) -> None:
    """P28 The journal returns embeddings of one and of several inputs in the shape that was asked
    for.
    """
    write_jsonl(lab, ["one", ["a", "b"]])
    request = {"model": "text-embedding-3-small", "input": "{{ text }}"}
    job = lab.job(
        api.url, kind="embedding", prompts={"path": "prompts.jsonl", "id": "id"}, request=request
    )
    assert lab.go(job).rows == {"succeeded": 2}
    one, two = (json.loads(row["output"]) for row in lab.table())
    assert isinstance(one[0], float)
    assert [len(vector) for vector in two] == [len(one)] * 2


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_written_cells_are_read_again(tmp_path: Path, cells: list[str]) -> None:
    """P28 What the CSV and JSONL writers write, readers read: any text, also as a header."""
    columns = [f"{n}{text}" for n, text in enumerate(cells)]
    record = dict(zip(columns, cells, strict=True))

    def table(name: str, columns: list[str]) -> TableFile:
        return TableFile(
            path=tmp_path / name,
            columns=dict.fromkeys(columns, object),
            delimiter=";",
            bom=True,
            disarm=lambda name, text: text,
            on_written=None,
            say=pytest.fail,
        )

    with WRITERS["csv"](table("a.csv", [encodable(c) for c in columns])) as write:
        write({encodable(name): text for name, text in record.items()})
    with open(tmp_path / "a.csv", encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file, delimiter=";")) == [
            [encodable(each) for each in columns],
            [encodable(each) for each in cells],
        ]
    with WRITERS["jsonl"](table("a.jsonl", columns)) as write:
        write(record)
    assert jsonl(tmp_path / "a.jsonl") == [record]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "true"),
        (0, "0"),
        (1.0, "1.0"),
        (0.00000125, "0.00000125"),
        (-0.000000001, "-0.000000001"),
        (0.00012345678901234567, "0.00012345678901234567"),
        (0.000012345678901234567, "0.000012345678901234568"),
        (1e-10, "1e-10"),
        (3.1234567890123e-12, "3.1234567890123e-12"),
        (["ä"], '["ä"]'),
        ("", ""),
    ],
)
def test_cells_are_written_plainly(value: Any, text: str) -> None:
    """P29 A value as text: nothing for None, JSON for what is not text, no exponent in small
    amounts of money.
    """
    assert cell(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_lose_no_digit(number: float) -> None:
    """P29 Every number of a cell reads back as the same number."""
    assert float(cell(number)) == number


def test_a_formula_that_begins_like_a_number_is_none(lab: Lab, api: Simulator) -> None:
    """P32 Only a cell that is a number as a whole keeps its sign without an apostrophe: text after
    a number would run.
    """
    cells = ["-1+1", "+1|cmd", "-1.5=A1", "+1e3", "-1\n2", "-"]
    write_csv(lab, cells)
    lab.go(lab.job(api.url, rows=None, request=BODY, output={"csv": {"safe": True}}))
    assert [row["output"] for row in lab.table()] == [f"'{cell}" for cell in cells]
