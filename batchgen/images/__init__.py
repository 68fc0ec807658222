"""Image bytes -> images/<id>.<ext>: decoded strictly, verified whole, written once, named safely.

- `names`         a row's id -> a file name that is safe on every file system
- `verification`  base64 -> bytes -> the extension for their format
- `svg`           checks that an SVG draws, and does nothing else
- `folder`        the images/ folder of a job

Everything here blocks, so it is called off the event loop.
"""

from batchgen.images.folder import (
    Picture,
    PictureFolder,
    intact_mtime,
    is_intact,
    restored,
    stored,
)
from batchgen.images.names import file_stem, slug
from batchgen.images.verification import MAX_ALL_PIXELS, MAX_PIXELS, decode, verify

__all__ = [
    "MAX_ALL_PIXELS",
    "MAX_PIXELS",
    "Picture",
    "PictureFolder",
    "decode",
    "file_stem",
    "intact_mtime",
    "is_intact",
    "restored",
    "slug",
    "stored",
    "verify",
]
