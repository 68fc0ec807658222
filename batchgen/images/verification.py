"""Base64 -> bytes -> the extension that they deserve, after every pixel was decoded."""

from __future__ import annotations

import base64
import binascii
import io
import threading
import warnings

from batchgen.images.svg import check_svg, looks_like_svg
from batchgen.replies import UnreadableReplyError, sniff

# The largest picture that is unpacked to be checked, with room for larger ones to come; and all
# frames of one together. The API's largest are 3840 x 2160 pixels, and sixteen frames in a GIF.
MAX_PIXELS = 100_000_000
MAX_ALL_PIXELS = 16 * 3840 * 2160
MAX_FRAMES = 64

_EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp", "gif": "gif"}

# The last bytes of each format whose files Pillow decodes even if these bytes are missing.
_ENDS = {"png": b"IEND\xaeB`\x82", "gif": b";"}

# One picture is unpacked at a time, because of its memory, and because Python's filter of
# warnings belongs to the whole process.
_unpacking = threading.Lock()


def decode(encoded: str) -> bytes:
    """The bytes of strict base64 (RFC 4648, section 4) or of a data URL.

    Raises UnreadableReplyError.
    """
    is_data_url = encoded.startswith("data:image/") and "," in encoded
    text = encoded.split(",", 1)[1] if is_data_url else encoded
    try:
        if len(text) % 4:
            raise binascii.Error
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableReplyError("the picture is not valid base64") from None


def verify(data: bytes) -> str:
    """Decode every pixel of a picture and return the extension for its file.

    Raises UnreadableReplyError for anything else. The error is final where a retry would bring the
    same: for a picture that is too large, and for an SVG that does more than draw.
    """
    if looks_like_svg(data):
        check_svg(data)
        return "svg"
    form = sniff(data)
    if form is None:
        raise UnreadableReplyError("the picture is not a PNG, JPEG, WebP or GIF")
    # Pillow takes a tenth of a second to import, and most jobs draw nothing.
    from PIL import Image

    with _unpacking, warnings.catch_warnings():
        warnings.simplefilter("error")
        # The bounds are ours. Pillow's own error comes at twice its warning, beyond them.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=[form]) as image:
                pixels, frames = image.width * image.height, getattr(image, "n_frames", 1)
                if pixels > MAX_PIXELS or pixels * frames > MAX_ALL_PIXELS or frames > MAX_FRAMES:
                    raise Image.DecompressionBombError
                for frame in range(frames):
                    image.seek(frame)
                    image.load()
        except Image.DecompressionBombError:
            raise UnreadableReplyError(
                "the picture has more pixels than batchgen unpacks", final=True
            ) from None
        except Exception as error:
            raise UnreadableReplyError(
                f"the picture does not decode: {type(error).__name__}: {error}"
            ) from None
    if not data.endswith(_ENDS.get(form, b"")):
        raise UnreadableReplyError("the picture's end is missing")
    return _EXTENSIONS[form]
