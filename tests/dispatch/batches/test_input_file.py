"""The input file of a batch keeps the bounds that the API's reference gives, as numbers here: a
file beyond them is refused as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.dispatch.batches.input_file import BatchInputFile
from batchgen.dispatch.batches.records import Batch
from batchgen.requests import Request


@pytest.fixture
def file(tmp_path: Path) -> Iterator[BatchInputFile]:
    """An empty input file."""
    batch = Batch(number=1, tag="t", endpoint="/embeddings", model="m", made_at=0.0)
    opened = BatchInputFile(batch, tmp_path / "input.jsonl")
    yield opened
    opened.discard()


def request(inputs: Any = "text", endpoint: str = "/embeddings") -> Request:
    return Request(
        fingerprint=b"f",
        endpoint=endpoint,
        body={"model": "m", "input": inputs},
        input_bound=1,
        answer_bound=0,
        pictures=0,
    )


def test_a_batch_has_at_most_50_000_requests(file: BatchInputFile) -> None:
    """P12 Request 50,000 still goes into a batch, and request 50,001 does not."""
    chat = request(endpoint="/chat/completions")
    for number in range(50_000):
        assert file.has_room(chat, b"{}\n"), number
        file.add(chat, b"{}\n", b"", None)
        file.unrecorded.clear()
    assert not file.has_room(chat, b"{}\n")


def test_a_batch_has_at_most_200_megabytes(file: BatchInputFile) -> None:
    """P12 A file is filled up to 200,000,000 bytes, and not beyond. A longer line never fits."""
    file.add(request(), b"{}\n", b"", None)
    assert file.has_room(request(), bytes(200_000_000 - 3))
    assert not file.has_room(request(), bytes(200_000_000 - 2))
    assert file.never_fits(request(), bytes(200_000_000)) is None
    assert "200,000,000" in (file.never_fits(request(), bytes(200_000_001)) or "")


def test_a_batch_has_at_most_50_000_embedding_inputs(file: BatchInputFile) -> None:
    """P12 The inputs of all requests together are at most 50,000. A longer list never fits."""
    file.add(request(["a"] * 49_999), b"{}\n", b"", None)
    assert file.has_room(request(["a"]), b"{}\n")
    assert not file.has_room(request(["a", "b"]), b"{}\n")
    assert file.never_fits(request(["a"] * 50_000), b"{}\n") is None
    assert "50,000" in (file.never_fits(request(["a"] * 50_001), b"{}\n") or "")
