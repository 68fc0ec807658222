"""Bytes that decode as a picture, within bounds."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from contextlib import suppress
from typing import Any

import pytest
from drawings import drawn, refused_for_good
from PIL import Image

from batchgen.images import (
    MAX_ALL_PIXELS,
    MAX_PIXELS,
    decode,
    verification,
    verify,
)
from batchgen.replies import UnreadableReplyError


@pytest.mark.parametrize(
    ("form", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif")]
)
def test_extension_is_what_the_bytes_say(form: str, extension: str) -> None:
    """P35 Each format by its bytes; cut anywhere, it is no picture."""
    data = drawn(form)
    assert verify(data) == extension
    for end in {*range(0, len(data), 37), *range(len(data) - 24, len(data))}:
        with pytest.raises(UnreadableReplyError):
            verify(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<html><body>log in</body></html>",
        b"%PDF-1.7",
        b"BM" + bytes(60),
        b"\x89PNG\r\n\x1a\n" + bytes(50),
    ],
)
def test_what_is_no_picture(data: bytes) -> None:
    """P35 Pages, other formats and a right beginning with a wrong rest are refused."""
    with pytest.raises(UnreadableReplyError):
        verify(data)


def test_damaged_pixels() -> None:
    """P35 A picture with a flipped byte in its data does not decode."""
    data = bytearray(drawn("PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UnreadableReplyError):
        verify(bytes(data))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_bombs_are_not_unpacked() -> None:
    """P35 A small file that claims gigapixels or a thousand frames is refused before it is
    unpacked.
    """
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(bytes(1000)))
        + _chunk(b"IEND", b"")
    )
    assert MAX_PIXELS < 60_000 * 60_000
    refused_for_good(bomb, "pixels")
    refused_for_good(moving(100, (2, 2)), "pixels")


def moving(frames: int, size: tuple[int, int]) -> bytes:
    file, each = io.BytesIO(), [Image.new("L", size, n) for n in range(frames)]
    each[0].save(file, "GIF", save_all=True, append_images=each[1:])
    return file.getvalue()


def test_the_largest_pictures_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """P35 Everything that the API may send is unpacked: sixteen frames of its largest size, and one
    frame up to the bound. Anything larger is refused for good: a retry would cost the same and
    bring the same.
    """
    assert MAX_ALL_PIXELS >= 16 * 3840 * 2160
    monkeypatch.setattr(verification, "MAX_PIXELS", 1000)
    monkeypatch.setattr(verification, "MAX_ALL_PIXELS", 1600)
    assert verify(moving(16, (10, 10))) == "gif"
    assert verify(drawn(size=(40, 25))) == "png"
    refused_for_good(drawn(size=(41, 25)), "pixels")
    refused_for_good(moving(17, (10, 10)), "pixels")


def test_the_bounds_on_pixels_are_batchgen_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """P35 Pillow warns about pictures that are within the bounds; they are accepted all the
    same.
    """
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert verify(drawn(size=(16, 16))) == "png"
    refused_for_good(drawn(size=(40, 40)), "pixels")


def test_one_picture_is_unpacked_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """P35 Threads unpack in turn: together they could exhaust the memory, and would leave warnings
    as errors for the whole process.
    """
    before, data, met = list(warnings.filters), drawn(), []
    both, opened = threading.Barrier(2, timeout=0.2), Image.open

    def meeting(*args: Any, **kwargs: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            both.wait()
            met.append(True)
        return opened(*args, **kwargs)

    monkeypatch.setattr(Image, "open", meeting)
    threads = [threading.Thread(target=verify, args=(data,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == []
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    "text", ["%%%%", "QUJ", "QUJD\n", "QU JD", "QUJD=", "é", "data:image/png;base64,?", "-_-_"]
)
def test_base64_is_strict(text: str) -> None:
    """P35 What is not base64 to the letter is refused, not guessed at."""
    with pytest.raises(UnreadableReplyError):
        decode(text)


def test_base64() -> None:
    """P35 Base64, and a data URL of it, as some servers send."""
    assert decode("QUJD") == decode("data:image/png;base64,QUJD") == b"ABC"
