"""Records and their seals, and what can be stored."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import closing
from pathlib import Path

import pytest
from lab import Lab
from staged import staged

from batchgen.dispatch import Attempt, Outcome
from batchgen.errors import DamagedError
from batchgen.journal import (
    Writer,
    attempts_of,
    begin_run,
    database,
    find_damage,
    first_row,
    outcome_of,
    record_attempt,
    record_outcome,
)
from batchgen.journal.records import insert, is_sound, packed, seal_of, unpacked, update
from batchgen.kinds import KINDS
from batchgen.requests import Request


def test_a_sealed_line_can_be_changed_only_if_it_is_sound() -> None:
    """P02 A record is checked before it is changed, so that damage is not sealed in.

    Whole numbers and truth values are stored as SQLite returns them; a text or number that cannot
    be stored is replaced.
    """
    with closing(database.reading(Path("nowhere/journal.db"))) as connection:
        cells = {
            "ident": "x\ud800",
            "key": b"\xff",
            "run": 1,
            "number": True,
            "started_at": 5,
            "wait": 0,
            "cost": 10**30,
        }
        row = insert(connection, "attempts", cells)
        line = connection.execute("SELECT * FROM attempts").fetchone()
        stored = {
            "ident": "x\ufffd",
            "key": b"\xff",
            "number": 1,
            "started_at": 5.0,
            "cost": None,
            "code": None,
        }
        assert {name: line[name] for name in stored} == stored
        assert is_sound("attempts", tuple(line))
        update(connection, "attempts", row, {"number": 0})
        line = connection.execute("SELECT * FROM attempts").fetchone()
        assert line["number"] == 0
        assert is_sound("attempts", tuple(line))
        connection.execute("UPDATE attempts SET ident = 'y'")
        with pytest.raises(DamagedError):
            update(connection, "attempts", row, {"number": 1})


def test_a_seal_is_the_same_on_every_machine() -> None:
    """P02 The seal is specified; a change in how it is made would invalidate every journal."""
    assert seal_of((1, "é", None, b"\x00\xff", 0.25)).hex() == "cc4b7de5f87042c5d61fe1c7bdf61b78"
    array = b'[1,"\\u00e9",null,2,0.25]'
    assert (
        seal_of((1, "é", None, b"\x00\xff", 0.25))
        == hashlib.blake2b(array + b"\x00\xff", digest_size=16).digest()
    )


def test_responses_are_packed_where_that_pays() -> None:
    """P28 A response is read back as it was written, compressed or not."""
    for response in (b"", b"{}", b"x" * 2000, bytes(range(256)) * 8):
        assert unpacked(packed(response)) == response
    assert len(packed(b"x" * 2000)) < 100
    with pytest.raises(DamagedError):
        unpacked(b"znonsense")


def test_hostile_texts_of_a_server_are_kept(lab: Lab) -> None:
    """P18 Lone surrogates in a model's name, a code or an id are replaced and recorded."""
    workspace = staged(lab, 1)
    with workspace.open() as journal:
        row = first_row(journal)
        assert row is not None

        async def use() -> None:
            begin_run(journal, {}, "")
            writer = Writer(journal.path)
            attempt = Attempt(number=1, started_at=1.0, wait=0.0, elapsed=0.1, code="\udc00")
            await writer.commit(record_attempt(row.outcome_id, row.fingerprint, attempt, run=1))
            message = {"role": "assistant", "content": "\ud83d"}
            reply = {"choices": [{"message": message, "finish_reason": "stop"}], "model": "m\ud800"}
            request = Request(
                outcome_id=row.outcome_id,
                fingerprint=row.fingerprint,
                endpoint="",
                body={},
                input_bound=0,
                answer_bound=0,
                pictures=0,
            )
            outcome = Outcome(
                request=request,
                attempts=1,
                elapsed=0.1,
                answered_at=1.0,
                answer=KINDS["chat"].read(reply, {}),
                reply=json.dumps(reply).encode(),
                request_id="\ud800",
            )
            await writer.commit(record_outcome(row.outcome_id, row.columns_digest, outcome, run=1))
            await writer.close()

        asyncio.run(use())
        recorded = outcome_of(journal, row.outcome_id, row.fingerprint)
        assert recorded is not None
        assert recorded.model == "m\ufffd"
        assert attempts_of(journal, [row.outcome_id])[0]["code"] == "\ufffd"
        assert list(find_damage(journal)) == []
