"""A recorded response -> what it means, whatever kind of request it answered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from batchgen.kinds import KINDS, Kind
from batchgen.replies import Answer, UnreadableReplyError
from batchgen.requests import Renderer


def read_answer(
    renderer: Renderer, columns: Mapping[str, Any], response: Mapping[str, Any]
) -> tuple[Kind, Answer] | tuple[None, None]:
    """The kind and the meaning of a recorded response; None twice when no kind can read it.

    The job may have changed since, so the response may be of another kind than the row.

    Args:
        renderer: knows the kind of the row's request.
        columns: the row's cells.
        response: the API's JSON.
    """
    data = response.get("data")
    # A recorded response was checked against its request: it has an item for every input.
    body = {"input": [""] * len(data)} if isinstance(data, list) else {}
    own = renderer.kind_of(columns)
    for kind in (*([own] if own else []), *KINDS.values()):
        with suppress(UnreadableReplyError):
            return kind, kind.read(response, body)
    return None, None
