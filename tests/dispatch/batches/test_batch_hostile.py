"""Wrong batch objects, lists and result files: each ends in a message; nothing is lost or paid
twice."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lab import KEY, Lab, serving
from liar import (
    ROWS,
    Liar,
    Lie,
    about_a_batch,
    assert_done,
    each_line,
    in_files,
    lying,
    only,
    without,
    written,
)

import batchgen
from batchgen import InputError, Options, queries, runner
from batchgen.dispatch.batches import client, collect, input_file, poll
from batchgen.job import with_mode
from batchgen.simulator import BatchInfo, Fate, Settings


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and fetches do not wait."""
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)


LOGIN = b"<!doctype html><html><title>Log in</title></html>"
UNFINISHED = {"output_file_id": None, "error_file_id": None}

# Replies that do not show how a batch ended: it is polled again.
INCONCLUSIVE: dict[str, Lie] = {
    "a status of 10 MB": about_a_batch(status="x" * 10_000_000),
    "a status that steers": about_a_batch(status="\x1b[2J\n\ud800 done"),
    "a status that is none": about_a_batch(status=["completed"]),
    "no status": without("status"),
    "an error": only(error={"message": f"no, {KEY}", "code": 500}),
    "nothing": only(),
    "ids elsewhere": about_a_batch(output_file_id="../../../../etc/passwd"),
    "ids of ten thousand": about_a_batch(output_file_id="f" * 10_000),
    "ids that nobody can write": about_a_batch(output_file_id="file-\ud800"),
    "files of null": about_a_batch(**UNFINISHED),
    "files of numbers": about_a_batch(output_file_id=7, error_file_id=[1]),
    "a login page": in_files(lambda data: LOGIN),
    "no bytes": in_files(lambda data: b""),
    "half of the file": in_files(lambda data: data[: len(data) // 2]),
    "the first lines": in_files(lambda data: b"".join(data.splitlines(True)[:2])),
    "binary junk": in_files(lambda data: bytes(range(256)) * 4000),
    "JSON that is no result": in_files(lambda data: b'[1]\n{}\n"x"\n{"custom_id": "1"}\n'),
    "the lines of others": each_line(
        lambda line: {**line, "custom_id": f"other-{line['custom_id']}"}
    ),
    "no ids": each_line(lambda line: {**line, "custom_id": None}),
    "ids written otherwise": each_line(lambda line: {**line, "custom_id": f"0{line['custom_id']}"}),
    "ids of other scripts": each_line(
        lambda line: {**line, "custom_id": chr(0x660 + int(line["custom_id"]))}
    ),
    "ids beyond any number": each_line(lambda line: {**line, "custom_id": "9" * 5000}),
}

# False replies with all answers in them.
BESIDE: dict[str, Lie] = {
    "counts that are none": about_a_batch(
        request_counts={"total": float("nan"), "completed": 1e400, "failed": "x"}
    ),
    "counts beyond any number": about_a_batch(
        request_counts={"total": 10**4200, "completed": int("9" * 4299), "failed": int("9" * 4299)}
    ),
    "counts below nothing": about_a_batch(
        request_counts={"total": -1, "completed": -5, "failed": -7}
    ),
    "counts of null": about_a_batch(request_counts=None),
    "times to come": about_a_batch(created_at=4e9, completed_at=4e9, expires_at=1e14),
    "times of the stone age": about_a_batch(created_at=-1e14, completed_at=-1e14, expires_at=-1e14),
    "times in milliseconds": about_a_batch(completed_at=1_790_000_000_000),
    "times as texts": about_a_batch(
        created_at="now", completed_at="2026-11-23T00:00:00Z", expires_at="never"
    ),
    "no metadata": about_a_batch(metadata=None),
    "another name": about_a_batch(id="batch_other"),
    "errors that are none": about_a_batch(errors={"data": [None, 7, {"line": "x"}]}),
    "errors of no line": about_a_batch(
        errors={"data": [{"line": 10**30, "code": ["x"]}, {"line": -1}]}
    ),
    "lines twice": in_files(lambda data: data + data),
    "lines of others, too": in_files(
        lambda data: data.replace(b'"custom_id": "', b'"custom_id": "x') + data
    ),
    "blank lines and carriage returns": in_files(
        lambda data: b"\r\n\r\n" + data.replace(b"\n", b"\r\n")
    ),
    "no newline at the end": in_files(lambda data: data.rstrip()),
    "a byte-order mark in front": in_files(lambda data: b"\xef\xbb\xbf\n" + data),
    "the key": each_line(
        lambda line: {**line, "response": {**line["response"], "request_id": KEY, "echo": KEY}}
    ),
    "a name that nobody can write": each_line(
        lambda line: {**line, "response": {**line["response"], "request_id": "req\ud800\n"}}
    ),
}


@pytest.mark.parametrize("name", INCONCLUSIVE)
def test_a_lie_is_no_end(lab: Lab, name: str) -> None:
    """P12 P18 A batch that cannot have ended, or whose answers cannot be complete, stays open, and
    the run ends with a message. An honest run after that collects everything; nothing is sent
    twice."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = INCONCLUSIVE[name]
        for _ in range(4):
            lied = lab.go(job)
            assert lied.exit_code in (4, 5, 6), lied.stopped
            assert len(lied.batches) == 1
        assert lied.stopped is None or KEY not in lied.stopped
        queries.status(lab.load(job))
        assert all(asked.split()[1].startswith(("/v1/batches", "/v1/files")) for asked in api.asked)
        api.lie = None
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


@pytest.mark.parametrize("name", BESIDE)
def test_a_lie_beside_the_answers(lab: Lab, name: str) -> None:
    """P12 P18 Junk beside the answers changes none of them."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = BESIDE[name]
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)
    assert all(row["answered_at"] <= "2100" for row in lab.table())


# -- the list, where a batch is looked for by its tag ----------------------------------------------


def somebodys(number: int) -> dict[str, Any]:
    """A batch of another user."""
    return {
        "id": f"batch_{number}",
        "created_at": 4_000_000_000 - number,
        "metadata": {"batchgen": "batchgen-other"},
    }


def endless() -> Lie:
    """Pages without end, each with new batches."""
    numbers = itertools.count()
    return lists(
        lambda reply: {"data": [somebodys(next(numbers)) for _ in range(100)], "has_more": True}
    )


def lists(make: Callable[[Any], Any]) -> Lie:
    """The list of batches is changed."""
    return lambda asked, reply: make(reply) if "GET /v1/batches?limit=100" in asked else reply


# Lists that do not show whether there is a batch with the tag.
LISTS: dict[str, Lie] = {
    "no list": lists(lambda reply: {**reply, "data": None}),
    "an object for a list": lists(lambda reply: {**reply, "data": {"0": reply["data"]}}),
    "an error": lists(lambda reply: {"error": {"message": f"no, {KEY}"}}),
    "a login page": lists(lambda reply: LOGIN),
    "the same page again and again": lists(
        lambda reply: {"data": [somebodys(1)], "has_more": True}
    ),
    "pages without end": endless(),
    "an empty page before others": lists(lambda reply: {"data": [], "has_more": True}),
    "batches without names": lists(
        lambda reply: {"data": [{**reply["data"][0], "id": None}], "has_more": True}
    ),
    "junk": lists(
        lambda reply: {"data": [None, 7, "x", [], {}, {"id": "\ud800"}], "has_more": True}
    ),
}

JUNK: tuple[Any, ...] = (None, 7, [], {"batchgen": ["x"]}, "batchgen")

# Lists that have it, among other entries.
FOUND: dict[str, Lie] = {
    "metadata of others": lists(
        lambda reply: {
            **reply,
            "data": [
                *({"id": f"b{n}", "metadata": junk} for n, junk in enumerate(JUNK)),
                *reply["data"],
            ],
        }
    ),
    "junk in front": lists(
        lambda reply: {**reply, "data": [None, 7, "x", [], {}, {"id": "\ud800"}, *reply["data"]]}
    ),
    "times of the stone age": lists(
        lambda reply: {**reply, "data": [{**each, "created_at": 0} for each in reply["data"]]}
    ),
    "times beyond any number": lists(
        lambda reply: {**reply, "data": [{**each, "created_at": 10**400} for each in reply["data"]]}
    ),
}


def half_sent(lab: Lab, api: Liar) -> Path:
    """A job whose batch was created, but whose run never got the reply."""
    job = written(lab, api)
    api.lose, api.lie = 1, lists(lambda reply: LOGIN)
    assert lab.go(job).exit_code in (4, 5)
    return job


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_does_not_say(lab: Lab, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 P18 While the list does not tell whether a batch was created, no other is: the runs end
    with a message, and an honest list settles it."""
    monkeypatch.setattr(client, "MOST_PAGES", 20)
    with lying() as api:
        job = half_sent(lab, api)
        api.lie = LISTS[name]
        for _ in range(2):
            lied = lab.go(job)
            assert lied.exit_code in (4, 5), lied.stopped
            assert KEY not in (lied.stopped or "")
        api.lie = None
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


@pytest.mark.parametrize("name", FOUND)
def test_a_batch_is_found_among_junk(lab: Lab, name: str) -> None:
    """P12 P18 Other entries of the list, however wrong, do not hide a batch."""
    with lying() as api:
        job = half_sent(lab, api)
        api.lie = FOUND[name]
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def test_a_list_with_the_oldest_first(lab: Lab) -> None:
    """P12 A list sorted from the oldest is read to its end: old batches on its first page do not
    hide the new one on its last."""
    old = [{"id": f"old_{n}", "created_at": 1_000_000_000 + n, "metadata": {}} for n in range(100)]

    def lie(asked: str, reply: Any) -> Any:
        if not asked.startswith("GET /v1/batches?limit=100"):
            return reply
        api.files["/v1/batches?limit=100&after=old_99"] = json.dumps(reply).encode()
        return {"data": old, "has_more": True}

    with lying() as api:
        job = half_sent(lab, api)
        api.lie = lie
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


@pytest.mark.parametrize("status", [404, 405, 400])
def test_a_server_without_a_list(lab: Lab, status: int) -> None:
    """P12 A server without a list of batches gets none, because a lost create could not be found.
    If the list fails later, a create whose reply is lost is not retried: the run ends with 4 until
    the user gives the batch up."""
    with lying() as api:
        job = written(lab, api)
        api.refuse = ("GET /v1/batches?limit=1", status)
        assert lab.go(job).exit_code == 4
        assert not any(asked.startswith("POST") for asked in api.asked)
        api.refuse = ("GET /v1/batches?limit=100", status)
        api.lose = 1
        for _ in range(2):
            stopped = lab.go(job)
            assert stopped.exit_code == 4
            assert "batchgen cancel" in (stopped.stopped or "")
        assert api.requests.by_path["/v1/files"] == 1
        given_up = runner.cancel(lab.load(job))
        assert (given_up.exit_code, given_up.rows, given_up.batches) == (0, {"failed": ROWS}, ())


# -- creating --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "", ".", "..", 7, ["x"], "\ud800", "b\n1", "x" * 5000])
def test_a_batch_without_a_name(lab: Lab, name: Any) -> None:
    """P12 P18 Invalid ids: a file is uploaded again, which costs nothing, and a batch is found in
    the list by its tag."""
    with lying() as api:
        job = written(lab, api)
        named = iter([name])

        def lie(asked: str, reply: Any) -> Any:
            if asked == "POST /v1/files":
                return {**reply, "id": next(named, reply["id"])}
            return {**reply, "id": name} if asked == "POST /v1/batches" else reply

        api.lie = lie
        assert lab.go(job).exit_code == 6
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


@pytest.mark.parametrize(
    "name", ["../models", "a/../../b", "x?y=1", "x#y", "%2e%2e", "a b", "\u00fc"]
)
def test_a_name_that_leads_elsewhere(lab: Lab, name: str) -> None:
    """P12 P18 An id cannot lead elsewhere: every call stays below /batches, the run ends with 4,
    and the batch is not created again."""
    with lying() as api:
        job = written(lab, api)
        api.lie = lambda asked, reply: (
            {**reply, "id": name} if asked == "POST /v1/batches" else reply
        )
        assert lab.go(job).exit_code == 6
        before = len(api.asked)
        assert lab.go(job).exit_code in (4, 5)
        assert all(asked.startswith("GET /v1/batches/") for asked in api.asked[before:])


# -- failing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "errors",
    [None, {}, {"data": []}, {"data": [7]}, {"data": [{"line": 0}]}, {"data": [{"line": 10**30}]}],
)
def test_a_batch_that_failed_for_no_reason(lab: Lab, errors: Any) -> None:
    """P23 A batch that failed without naming rows stops the run: --wait would send it forever."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = about_a_batch(
            status="failed", errors=errors, output_file_id=None, request_counts=None
        )
        stopped = lab.go(job, wait=True)
        assert (stopped.exit_code, stopped.rows, stopped.batches) == (4, {"pending": ROWS}, ())


# -- the answers -----------------------------------------------------------------------------------


def test_a_line_without_an_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P20 A line longer than the largest reply is skipped in pieces, and the lines after it are
    read."""
    monkeypatch.setattr(collect, "MAX_TEXT_REPLY", 2000)
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = in_files(lambda data: b"x" * 100_000 + b"\n" + data + b"y" * 100_000)
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def test_two_files_claim_a_row(lab: Lab) -> None:
    """P12 P18 A row in the output file and in the error file gets its answer, once."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        errors = b"".join(
            json.dumps(
                {
                    "custom_id": str(n),
                    "response": None,
                    "error": {"code": "server_error", "message": "no"},
                }
            ).encode()
            + b"\n"
            for n in range(1, ROWS + 1)
        )
        api.files["/v1/files/file-errors/content"] = errors
        api.lie = about_a_batch(error_file_id="file-errors")
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def strange(response: Any) -> Callable[[dict[str, Any]], Any]:
    """The second line has another response, or another error."""
    return lambda line: {**line, **response} if line["custom_id"] == "2" else line


ODD: dict[str, Any] = {
    "a status beyond any number": {
        "response": {"status_code": 10**30, "request_id": "r", "body": {}}
    },
    "a status of nothing": {"response": {"status_code": 0, "body": {}}},
    "an error with a list for a code": {
        "response": None,
        "error": {"code": ["x"], "message": {"a": 1}},
    },
    "an error with half a character": {
        "response": None,
        "error": {"code": "\ud800", "message": "\ud800"},
    },
    "a body of null": {"response": {"status_code": 200, "request_id": None, "body": None}},
    "a body that is deep": {
        "response": {"status_code": 200, "body": json.loads("[" * 900 + "]" * 900)}
    },
    "an error with the key": {"response": None, "error": {"code": "x", "message": f"Bearer {KEY}"}},
    "a refusal with the key": {
        "response": {"status_code": 400, "body": {"error": {"message": f"no, {KEY}", "code": KEY}}}
    },
}


@pytest.mark.parametrize("name", ODD)
def test_an_answer_that_is_none(lab: Lab, name: str) -> None:
    """P18 A line with a junk response fails only its row, or keeps the batch open; the other rows
    get their answers."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = each_line(strange(ODD[name]))
        assert lab.go(job).exit_code in (3, 4, 6)
        rows = {row["id"]: row["status"] for row in lab.table()}
        assert rows.pop("r2") in ("pending", "failed")
        assert set(rows.values()) == {"succeeded"}
        assert not [
            path
            for path in lab.output().rglob("*")
            if path.is_file() and KEY.encode() in path.read_bytes()
        ]


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e400"])
def test_an_answer_with_a_number_that_json_has_not(lab: Lab, number: bytes) -> None:
    """P18 P28 Such a number beside an answer keeps no batch open: it is null in the record."""

    def spoil(line: dict[str, Any]) -> Any:
        line["response"]["body"]["score"] = "NUMBER"
        return line

    with lying() as api:
        job = written(lab, api, output={"tables": ["csv", "jsonl"]})
        assert lab.go(job).exit_code == 6
        spoiled = each_line(spoil)
        api.lie = lambda asked, reply: (
            lied.replace(b'"NUMBER"', number)
            if isinstance(lied := spoiled(asked, reply), bytes)
            else lied
        )
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def test_an_answer_with_half_a_character(lab: Lab) -> None:
    """P28 P18 Half of a surrogate pair in an answer ends no run: the table shows U+FFFD."""

    def spoil(line: dict[str, Any]) -> Any:
        line["response"]["body"]["choices"][0]["message"]["content"] = "a \ud83d b"
        return line

    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = each_line(spoil)
        assert lab.go(job).exit_code == 0
    assert {row["output"] for row in lab.table()} == {"a \ufffd b"}


def test_a_batch_that_is_gone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 A batch that the server does not know stops the run, after the others are collected."""
    monkeypatch.setattr(input_file, "MOST_REQUESTS", 2)
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        first = queries.status(lab.load(job))["batches"][0]["id"]
        api.refuse = (f"GET /v1/batches/{first}", 404)
        stopped = lab.go(job)
        assert (stopped.exit_code, stopped.rows) == (4, {"succeeded": 3, "pending": 2})
        assert "batchgen cancel" in (stopped.stopped or "")
        api.refuse = None
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


# -- giving up, and waiting ------------------------------------------------------------------------


def test_what_is_given_up_counts_as_paid(lab: Lab) -> None:
    """P25 A batch that the server does not know may have been executed. Given up, its requests
    count at their highest cost, so that the cap holds, and their rows may be sent again."""
    pricing = {"gpt-5.6-luna": {"input": 1000, "output": 2000}}
    with lying() as api:
        job = written(lab, api, pricing=pricing, limits={"max_cost": 100})
        most = batchgen.plan(lab.load(job)).cost_at_most
        assert lab.go(job).exit_code == 6
        api.refuse = ("GET /v1/batches/", 404)
        stopped = lab.go(job)
        assert (stopped.exit_code, len(stopped.batches)) == (4, 1)
        assert "does not know the batch" in (stopped.stopped or "")
        (batch,) = stopped.batches
        with pytest.raises(InputError, match="no-such: is not an open batch"):
            runner.cancel(lab.load(job), ids=["no-such"])
        given_up = runner.cancel(lab.load(job), ids=[batch["id"]])
        assert (given_up.exit_code, given_up.batches) == (0, ())
        assert given_up.job.totals.uncertain_cost == pytest.approx(most)
        assert given_up.job.totals.cost is None
        assert {row["reason"] for row in lab.table(which="errors")} == {"invalid_response"}
        api.refuse = None
        assert [lab.go(job).exit_code, lab.go(job).exit_code] == [6, 0]


def test_cancel_by_id(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 `cancel JOB BATCH` cancels one batch and leaves the others alone."""
    monkeypatch.setattr(input_file, "MOST_REQUESTS", 2)
    monkeypatch.setattr(poll, "FIRST_POLL", 0.0)
    with serving(
        Settings(batch_speed=0), fate=lambda batch: Fate(ends="in_progress", answers=0)
    ) as api:
        job = lab.job(api.url, rows=6, mode="batch")
        first, *others = lab.go(job).batches
        ended = lab.run("cancel", job, first["id"])
        assert ended.returncode == 6
        left = queries.status(lab.load(job))["batches"]
        assert [batch["id"] for batch in left] == [batch["id"] for batch in others]
        shown = queries.show(lab.load(job), "r6")[0]
        assert shown["batch"]["id"] == others[-1]["id"]


def test_a_wait_survives_an_outage(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P24 A run that waits for its batches outlasts an outage, up to retry.give_up."""
    monkeypatch.setattr(poll, "FIRST_POLL", 0.01)
    with lying() as api:
        job = written(lab, api)
        api.busy = 9
        assert lab.go(job, wait=True).exit_code == 0
        assert api.busy == 0
        assert_done(lab, api)
        api.busy = 10_000
        retry = {"attempts": 1, "max_wait": 0.01, "give_up": 0.05}
        gave_up = lab.go(lab.job(api.url, name="hopeless", mode="batch", retry=retry), wait=True)
        assert (gave_up.exit_code, len(gave_up.batches)) == (5, 1)


def test_a_queue_that_others_fill_is_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 If batches of others fill a model's queue, a waiting run retries less and less often.
    When they have ended, everything goes through, in few batches."""
    pauses: list[float] = []
    monkeypatch.setattr(poll, "FIRST_POLL", 0.0)
    monkeypatch.setattr(poll, "FULL_AT_LAST", 240.0)

    def fate(batch: BatchInfo) -> Fate:
        return Fate(ends="in_progress") if batch.metadata["job"] == "others" else Fate()

    with serving(Settings(batch_speed=0), fate=fate) as api:

        async def sleep(self: Any, seconds: float, *why: str) -> None:
            pauses.extend([seconds] if seconds >= poll.FULL_AT_FIRST else [])
            if len(pauses) == 4:
                url = f"{api.url}/batches/{others.batches[0]['id']}/cancel"
                httpx2.post(url, headers={"Authorization": "Bearer sk-x"})
            self.raise_if_stopped()

        monkeypatch.setattr(client.BatchClient, "sleep", sleep)
        others = lab.go(lab.job(api.url, name="others", rows=40, mode="batch"))
        api.settings = Settings(batch_speed=0, batch_tokens=100)
        done = lab.go(lab.job(api.url, rows=30, mode="batch"), wait=True)
        assert done.exit_code == 0
        assert pauses[:4] == [60.0, 120.0, 240.0, 240.0]
        assert api.requests.batches < 20


def test_a_batch_that_expired_with_nothing_answered(lab: Lab) -> None:
    """P12 A batch that expired without any answer is not sent again by itself: the run that notices
    ends with 4, the next one sends it."""
    fates = iter([Fate(ends="expired", answers=0), Fate()])
    with serving(Settings(batch_speed=0), fate=lambda batch: next(fates)) as api:
        job = lab.job(api.url, mode="batch")
        assert [lab.go(job).exit_code for _ in range(4)] == [6, 4, 6, 0]


def test_what_no_batch_takes_is_sent_online(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 A row that is too large for a batch stays pending, and a message says what to do. The
    others are sent, and --mode online sends it too."""
    monkeypatch.setattr(input_file, "MOST_BYTES", 400)
    with serving(Settings(batch_speed=0)) as api:
        job = lab.job(api.url, rows=None, mode="batch")
        (lab.folder / "prompts.csv").write_text(
            f"id,text\na,ECHO:one\nb,ECHO:{'x' * 300}\nc,ECHO:three\n", encoding="utf-8"
        )
        assert lab.go(job).exit_code == 6
        done = lab.go(job)
        assert (done.exit_code, done.rows) == (5, {"succeeded": 2, "pending": 1})
        assert "b: it is" in (done.stopped or "")
        assert "--mode online" in (done.stopped or "")
        assert batchgen.run(with_mode(lab.load(job), "online")).exit_code == 0


def test_edits_while_a_batch_is_open(lab: Lab) -> None:
    """P08 P12 Requests in a batch are answered as they were sent: an edited row is sent again, plan
    and run count the stale requests, no run ends with 0 while a batch is open, and undoing the edit
    is free."""
    with serving(
        Settings(batch_speed=0), fate=lambda batch: Fate(shows=("in_progress",) * 4)
    ) as api:
        job = lab.job(api.url, rows=3, mode="batch")
        assert lab.go(job).exit_code == 6
        original = (lab.folder / "prompts.csv").read_text(encoding="utf-8")
        (lab.folder / "prompts.csv").write_text(
            original.replace("ECHO:answer 2", "ECHO:other 2"), encoding="utf-8"
        )
        assert batchgen.plan(lab.load(job)).strays == 1
        sentences: list[str] = []
        online = batchgen.run(with_mode(lab.load(job), "online"), Options(say=sentences.append))
        assert "1 stale request in batches, of rows that have changed since" in "".join(sentences)
        assert (online.exit_code, online.run.calls, len(online.batches)) == (6, 1, 1)
        while lab.go(job).exit_code == 6:
            pass
        assert [row["output"] for row in lab.table()] == ["answer 1", "other 2", "answer 3"]
        (lab.folder / "prompts.csv").write_text(original, encoding="utf-8")
        assert lab.go(job).run.calls == 0
        assert [row["output"] for row in lab.table()] == ["answer 1", "answer 2", "answer 3"]


def test_a_file_that_comes_short_once_is_fetched_again(lab: Lab) -> None:
    """P12 P18 A login page in place of a result file costs nothing: the same run fetches the file
    again."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        pages = iter([LOGIN])
        api.lie = lambda asked, reply: next(pages, reply) if "/content" in asked else reply
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def test_a_batch_that_cannot_be_polled(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 A batch that cannot be polled does not keep others from being collected, and `cancel`
    with its id gives it up."""
    monkeypatch.setattr(input_file, "MOST_REQUESTS", 3)
    with lying() as api:
        job = written(lab, api)
        broken, _ = lab.go(job).batches
        api.refuse = (f"GET /v1/batches/{broken['id']}", 500)
        silent = lab.go(job)
        assert (silent.exit_code, silent.rows) == (5, {"succeeded": 2, "pending": 3})
        assert runner.cancel(lab.load(job)).exit_code == 5
        given_up = runner.cancel(lab.load(job), ids=[broken["id"]])
        assert (given_up.exit_code, given_up.batches) == (0, ())


def test_a_lost_cancel_is_repeated(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 The cancel request of a batch is repeated at every poll until the server acts on it."""
    monkeypatch.setattr(poll, "FIRST_POLL", 0.0)
    with lying() as api:
        job = written(lab, api)
        (batch,) = lab.go(job).batches
        api.lie = about_a_batch(status="in_progress", output_file_id=None)
        asked = f"POST /v1/batches/{batch['id']}/cancel"
        api.refuse = (asked, 400)
        unheard = runner.cancel(lab.load(job))
        assert (unheard.exit_code, unheard.batches[0]["cancelling"]) == (6, True)
        before = api.asked.count(asked)
        lab.go(job)
        assert api.asked.count(asked) > before


def test_a_list_without_metadata(lab: Lab) -> None:
    """P12 A server that does not return metadata: the batch is recognised by its input file."""
    with lying() as api:
        job = half_sent(lab, api)
        api.lie = lists(
            lambda reply: {**reply, "data": [{**each, "metadata": None} for each in reply["data"]]}
        )
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def test_no_trouble_with_a_row_ends_the_waiting(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 A run that waits stays until its batches have ended, also if no batch can take some row;
    that ends the run last, with 5."""
    monkeypatch.setattr(input_file, "MOST_BYTES", 400)
    monkeypatch.setattr(poll, "FIRST_POLL", 0.0)
    with serving(
        Settings(batch_speed=0), fate=lambda batch: Fate(shows=("in_progress",) * 2)
    ) as api:
        job = lab.job(api.url, rows=None, mode="batch")
        (lab.folder / "prompts.csv").write_text(
            f"id,text\na,ECHO:one\nb,ECHO:{'x' * 300}\n", encoding="utf-8"
        )
        done = lab.go(job, wait=True)
        assert (done.exit_code, done.rows, done.batches) == (5, {"succeeded": 1, "pending": 1}, ())


def test_a_batch_that_may_be_of_another_project(lab: Lab) -> None:
    """P12 After a create of unknown outcome, a key that sees neither the batch nor its file creates
    no other: the run ends with 4, and the right key finds the batch."""
    with lying() as api:
        job = half_sent(lab, api)
        api.lie = lists(lambda reply: {**reply, "data": []})
        api.refuse = ("GET /v1/files/", 404)
        stopped = lab.go(job)
        assert stopped.exit_code == 4
        assert "whether a batch was made" in (stopped.stopped or "")
        api.lie, api.refuse = None, None
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


def test_lines_that_validation_refuses_are_rows(lab: Lab) -> None:
    """P12 P18 A batch that failed because of some lines fails these rows with the server's message;
    the next run sends only the others."""
    wrong = {"code": "invalid_request", "message": "line 2 is too odd", "param": "body", "line": 2}
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.lie = about_a_batch(
            status="failed", errors={"data": [wrong]}, output_file_id=None, request_counts=None
        )
        assert lab.go(job).exit_code == 6
        api.lie = None
        assert lab.go(job).exit_code == 3
        (error,) = lab.table(which="errors")
        assert (error["id"], error["reason"], error["message"]) == (
            "r2",
            "bad_request",
            "line 2 is too odd",
        )
        assert [row["status"] for row in lab.table()] == [
            "succeeded",
            "failed",
            "succeeded",
            "succeeded",
            "succeeded",
        ]
        # The liar says that the batch failed, but has executed it.
        assert api.requests.lines == ROWS + ROWS - 1
