"""Pictures -> small ones as data URLs, so that a page holds them itself."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

# The longest side in pixels, and the quality of WebP: about 8 kB a picture.
SIDE = 320
QUALITY = 70


def thumbnail(path: Path) -> str | None:
    """The picture as a small WebP in a data URL; None when it is gone or no bitmap."""
    try:
        with Image.open(path) as picture:
            # A JPEG is decoded at a fraction of its size.
            picture.draft("RGB", (SIDE, SIDE))
            picture.thumbnail((SIDE, SIDE))
            data = io.BytesIO()
            picture.convert("RGBA").save(data, "WEBP", quality=QUALITY)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
