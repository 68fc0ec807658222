"""The files of batches at the server: whether it takes them, how long they stay, and when they are
deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from lab import KEY, Lab
from liar import ROWS, Liar, assert_done, in_files, lying, written

from batchgen.dispatch.batches import client, collect, input_file, poll
from batchgen.simulator import Simulator
from batchgen.simulator.batches.files import File, Files
from batchgen.simulator.calls import Call
from batchgen.simulator.refusals import RefusalError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and fetches do not wait."""
    monkeypatch.setattr(client, "BETWEEN_SEARCHES", 0.0)
    monkeypatch.setattr(collect, "BETWEEN_FETCHES", 0.0)


def files(api: Simulator) -> list[dict[str, Any]]:
    """The files that the server has."""
    reply = httpx2.get(f"{api.url}/files", headers={"Authorization": f"Bearer {KEY}"})
    listed: list[dict[str, Any]] = reply.json()["data"]
    return listed


def sent(lab: Lab, api: Liar, **parts: Any) -> Path:
    """A job whose batch is at the server; one of its rows is refused, so that it has all files."""
    job = written(lab, api, **parts)
    prompts = lab.folder / "prompts.csv"
    prompts.write_text(prompts.read_text(encoding="utf-8") + "odd,[policy]\n", encoding="utf-8")
    assert lab.go(job).exit_code == 6
    assert len(files(api)) == 1
    return job


def test_what_is_collected_is_deleted(lab: Lab) -> None:
    """P12 When the answers of a batch are on record, its input file and its result files are
    deleted at the server."""
    with lying() as api:
        job = sent(lab, api)
        assert lab.go(job).exit_code == 3
        assert files(api) == []
        assert sum(asked.startswith("DELETE /v1/files/") for asked in api.asked) == 3


def test_files_are_kept_for_who_wants_them(lab: Lab) -> None:
    """P12 `batch.keep_files: true` leaves all files at the server."""
    with lying() as api:
        job = sent(lab, api, batch={"keep_files": True})
        assert lab.go(job).exit_code == 3
        assert len(files(api)) == 3


def test_files_of_an_open_batch_stay(lab: Lab) -> None:
    """P12 Nothing is deleted while a batch is open, or while its files lack answers."""
    with lying() as api:
        job = sent(lab, api)
        api.lie = in_files(lambda data: data.splitlines(True)[0])
        assert lab.go(job).exit_code == 6
        assert not [asked for asked in api.asked if asked.startswith("DELETE")]


def test_files_that_lack_answers_are_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12 Files without all answers stay at the server: a user may ask about them."""
    monkeypatch.setattr(poll, "SOME_LACKING", 0.0)
    with lying() as api:
        job = sent(lab, api)
        api.lie = in_files(lambda data: data.splitlines(True)[0])
        assert lab.go(job).exit_code == 6
        assert not [asked for asked in api.asked if asked.startswith("DELETE")]


@pytest.mark.parametrize("status", [401, 403, 404, 405, 429, 500])
def test_a_server_that_deletes_nothing(lab: Lab, status: int) -> None:
    """P12 A file that cannot be deleted changes nothing: it is asked once, and the run goes on."""
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        api.refuse = ("DELETE /v1/files/", status)
        assert lab.go(job).exit_code == 0
        assert sum(asked.startswith("DELETE") for asked in api.asked) == 2
        assert_done(lab, api)


def test_uploads_expire(lab: Lab) -> None:
    """P12 An input file expires after 30 days, if it is never deleted."""
    with lying() as api:
        assert lab.go(written(lab, api)).exit_code == 6
        (file,) = files(api)
        assert file["expires_at"] - file["created_at"] == 30 * 24 * 3600


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_takes_no_expiry(
    lab: Lab, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P12 A server that refuses `expires_after` gets the file without it, and no other with it."""
    with_expiry: list[bool] = []
    create = Files.create

    def strict(self: Files, call: Call) -> File:
        with_expiry.append("expires_after[seconds]" in call.body)
        if with_expiry[-1]:
            raise RefusalError(status, "Unknown field: expires_after")
        return create(self, call)

    monkeypatch.setattr(Files, "create", strict)
    monkeypatch.setattr(input_file, "MOST_REQUESTS", 2)
    with lying() as api:
        job = written(lab, api)
        assert lab.go(job).exit_code == 6
        assert with_expiry == [True, False, False, False]
        assert lab.go(job).exit_code == 0
        assert_done(lab, api)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("POST /v1/files", "'batch' is not one of ['fine-tune'] - 'purpose'"),
        ("POST /v1/batches", "Invalid value: '/v1/chat/completions'. Unsupported endpoint."),
    ],
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_such_batches(lab: Lab, asked: str, message: str, status: int) -> None:
    """P12 A server that refuses the endpoint or the purpose of a batch: the message says which mode
    works, and the rows stay pending."""
    with lying() as api:
        job = written(lab, api)
        api.refuse, api.refusal = (asked, status), message
        stopped = lab.go(job)
        assert (stopped.exit_code, stopped.rows) == (4, {"pending": ROWS})
        assert "use mode: online" in (stopped.stopped or "")
        assert message[:20] in (stopped.stopped or "")
