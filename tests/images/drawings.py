"""Pictures that the tests draw, and the refusal of others."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from batchgen.images import (
    verify,
)
from batchgen.replies import UnreadableReplyError


def drawn(
    form: str = "PNG", size: tuple[int, int] = (16, 16), shade: int = 0, **options: object
) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 50 + shade).convert("RGB").save(file, form, **options)
    return file.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def refused_for_good(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableReplyError, match=words) as caught:
        verify(data)
    assert caught.value.final
