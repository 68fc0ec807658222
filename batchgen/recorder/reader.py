"""A reply becomes an answer, and its pictures become files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from batchgen.dispatch import LARGE_REPLY, Received
from batchgen.images import Picture, PictureFolder, file_stem, stored
from batchgen.job import TEXT_KINDS
from batchgen.kinds import KIND_BY_ENDPOINT, Kind
from batchgen.replies import (
    Answer,
    PictureSlot,
    UnreadableReplyError,
    accepted,
    drawn_items,
    is_accepted,
    picture_slots,
    with_pictures,
)
from batchgen.requests import Request
from batchgen.schemas import Expectations


class FolderReplyReader:
    """A dispatch.ReplyReader that stores pictures in a job's picture folder."""

    def __init__(
        self, pictures: PictureFolder, expectations: Expectations, accept: Sequence[str] = ()
    ) -> None:
        """Args:
        pictures: the folder.
        expectations: what answers must be.
        accept: finish reasons that count as success (the job's `output.accept`).
        """
        self._pictures, self._expectations = pictures, expectations
        self._accept = accepted(accept)

    async def receive(self, request: Request, body: Mapping[str, Any], reply: bytes) -> Received:
        """Read a reply and store its pictures.

        Args:
            request: what was asked.
            body: the reply's JSON.
            reply: the reply's bytes, from which `body` was parsed.

        Raises UnreadableReplyError when it is not an answer, OutputError for a full disk.
        """
        kind = KIND_BY_ENDPOINT[request.endpoint]
        read = partial(judged_answer, kind, body, request.body, self._expectations)
        # Reading megabytes takes seconds; on the event loop all other requests would wait.
        answer = await asyncio.to_thread(read) if len(reply) > LARGE_REPLY else read()
        if answer.broke_off and not is_accepted(answer.broke_off, self._accept):
            raise UnreadableReplyError(
                f"the answer broke off with the finish reason {answer.broke_off!r}"
            )
        if kind.makes_images and len(answer.pictures) != len(answer.choices):
            # Otherwise a reply could claim any file of the folder as its picture.
            raise UnreadableReplyError(
                "the reply names a stored picture, and only batchgen stores pictures"
            )
        if not kind.makes_images:
            slots = picture_slots(body) if kind.name in TEXT_KINDS else []
            if not slots:
                return Received(answer=answer, reply=reply)
            body, files = await self._store_slots(request, body, slots)
            answer = judged_answer(kind, body, request.body, self._expectations)
            kept = json.dumps(body).encode() if files else reply
            return Received(answer=answer, reply=kept, files=files)
        pictures = await self._save(request, list(answer.pictures))
        drawn = drawn_items(body)
        items = [stored(item, picture) for item, picture in zip(drawn, pictures, strict=True)]
        items += [item for item in body["data"] if item not in drawn]
        kept = json.dumps({**body, "data": items}).encode()
        return Received(
            answer=answer, reply=kept, files=tuple(asdict(picture) for picture in pictures)
        )

    async def _save(self, request: Request, encoded: list[str]) -> list[Picture]:
        stem = file_stem(request.id, request.axes)
        owner = (request.outcome_id, request.fingerprint)
        return await asyncio.to_thread(self._pictures.save, encoded, stem, owner)

    async def _store_slots(
        self, request: Request, body: Mapping[str, Any], slots: Sequence[PictureSlot]
    ) -> tuple[Mapping[str, Any], tuple[Mapping[str, Any], ...]]:
        """A text reply with its pictures stored as files, and these files.

        What is a link, or no picture, stays in the reply as it came: the text beside it is paid
        for. Raises UnreadableReplyError, OutputError.
        """
        if any(slot.path for slot in slots):
            raise UnreadableReplyError(
                "the reply names a stored picture, and only batchgen stores pictures"
            )
        found = [slot for slot in slots if slot.encoded[1]]
        try:
            pictures = await self._save(request, [slot.encoded[1] for slot in found])
        except UnreadableReplyError:
            return body, ()
        values = {
            slot.keys: {**stored({}, picture), "head": slot.encoded[0]}
            for slot, picture in zip(found, pictures, strict=True)
        }
        return with_pictures(body, values), tuple(asdict(picture) for picture in pictures)

    async def publish(self, files: Sequence[Mapping[str, Any]]) -> None:
        """Give the pictures of a recorded answer their names. Raises OutputError."""
        if files:
            await asyncio.to_thread(self._pictures.publish, files)


def judged_answer(
    kind: Kind, reply: Mapping[str, Any], body: Mapping[str, Any], expectations: Expectations
) -> Answer:
    """The answer in a reply's JSON, judged by what was asked for.

    `body` is the request's, or its part that `replies.outline` keeps. Raises UnreadableReplyError.
    """
    # Nobody needs the text before the tables, which read it anew.
    answer = (kind.check or kind.read)(reply, body)
    expected = expectations.of(body) if kind.name in TEXT_KINDS else None
    return expected.judged(answer) if expected else answer
