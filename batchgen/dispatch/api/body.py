"""The body of a reply: decoded piece by piece, and bounded."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator

from batchgen.dispatch.api.held_bytes import SMALL, HeldBytes
from batchgen.kinds import KINDS

# The largest decoded body that is read, in bytes: text, and a reply with pictures.
MAX_TEXT_REPLY = 32 * 1024 * 1024
MAX_PICTURE_REPLY = 256 * 1024 * 1024

# Beyond MAX_TEXT_REPLY, a compressed body may grow to this many times its size: pictures in base64
# shrink by a third at most, a decompression bomb by a thousand.
MAX_RATIO = 8

# The most bytes that are decompressed at a time.
PIECE = 256 * 1024

_PICTURE_ENDPOINTS = tuple(kind.endpoint for kind in KINDS.values() if kind.makes_images)


class ReplyTooLargeError(Exception):
    """A body is larger than its limit, or has an encoding that was not requested."""


class TruncatedReplyError(Exception):
    """The connection failed within a body that is written to disk piece by piece.

    It replaces the network's OSError, which would look like an error of the disk.
    """


def body_limit(path: str) -> int:
    """The largest body, in bytes, of a reply to a request for this URL path."""
    return MAX_PICTURE_REPLY if path.endswith(_PICTURE_ENDPOINTS) else MAX_TEXT_REPLY


async def read_body(
    chunks: AsyncIterator[bytes], encoding: str, limit: int, held: HeldBytes | None = None
) -> bytes:
    """Read and decode a whole body of at most `limit` bytes; once it is large, with room in `held`.

    Raises ReplyTooLargeError, and zlib.error for a body that is damaged or incomplete.
    """
    decoder, body, is_held = _Decoder(encoding), bytearray(), held is None
    async for chunk in chunks:
        for piece in decoder.feed(chunk):
            body += piece
            if held is not None and not is_held and len(body) > SMALL:
                is_held = True
                await held.take()
            # Checked after each piece: a bomb is never decompressed further than this.
            bound = limit
            if decoder.compressed:
                bound = min(limit, MAX_TEXT_REPLY + MAX_RATIO * decoder.received)
            if len(body) > bound:
                raise ReplyTooLargeError(f"the reply is larger than {bound // (1024 * 1024)} MiB")
    decoder.finish()
    if held is not None:
        held.settle(len(body))
    return bytes(body)


async def body_pieces(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    """Decode a body of any size, piece by piece.

    Raises ReplyTooLargeError for an unknown encoding, zlib.error for a body that is damaged or
    incomplete, and TruncatedReplyError when the connection fails.
    """
    decoder = _Decoder(encoding)
    try:
        async for chunk in chunks:
            for piece in decoder.feed(chunk):
                yield piece
    except OSError as error:
        raise TruncatedReplyError from error
    decoder.finish()


class _Decoder:
    """Decodes gzip and deflate (RFC 9110, 8.4.1); `received` counts the encoded bytes.

    Raises ReplyTooLargeError for an encoding that was not requested.
    """

    def __init__(self, encoding: str) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("identity", "gzip", "deflate"):
            raise ReplyTooLargeError(
                f"the reply's encoding is {encoding[:40]!r}, which was not asked for"
            )
        self.received = 0
        self._zlib = None if encoding == "identity" else _decompressor()

    @property
    def compressed(self) -> bool:
        """Whether the body is compressed."""
        return self._zlib is not None

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decode the next bytes, into pieces of at most PIECE if compressed. Raises zlib.error."""
        self.received += len(chunk)
        if self._zlib is None:
            yield chunk
            return
        while chunk:
            if self._zlib.eof:
                # A gzip file may consist of several members (RFC 1952, 2.2).
                self._zlib = _decompressor()
            yield self._zlib.decompress(chunk, PIECE)
            chunk = self._zlib.unconsumed_tail or self._zlib.unused_data

    def finish(self) -> None:
        """Check that the body is complete. Raises zlib.error when it is not."""
        if self._zlib is not None and not self._zlib.eof:
            raise zlib.error("incomplete or truncated stream")


def _decompressor() -> zlib._Decompress:
    # Adding 32 makes zlib detect whether the header is that of gzip or of zlib.
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
