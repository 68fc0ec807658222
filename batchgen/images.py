"""Image bytes -> images/<id>.<ext>: decoded strictly, verified whole, written once, named safely.

Everything here blocks; the runner calls it off the event loop.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchgen.disk import make_folder, writing
from batchgen.errors import OutputError
from batchgen.kinds import Unreadable, sniff

# The largest picture that is unpacked to be checked: 3840 x 2160 is the API's largest, with room for what comes.
MAX_PIXELS = 100_000_000
MAX_FRAMES = 64

# Characters of a name before the number and the extension; file systems end at 255 bytes.
NAME_LENGTH = 100

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?\Z")
_EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp", "gif": "gif"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A stored picture: `path` relative to the job's output folder, `size` in bytes, `mtime` in ns."""

    path: str
    sha256: str
    size: int
    mtime: int


def slug(identity: str) -> str:
    """A file name made of a row's identity: only A-Z a-z 0-9 . _ -, never empty, never a device's name.

    Where the slug lost something (or differs from another identity only by case), a short hash of the identity keeps
    two identities from one name on any file system.
    """
    plain = _UNSAFE.sub("_", unicodedata.normalize("NFKD", identity)).strip("._")[:NAME_LENGTH]
    lossless = plain == identity and plain == plain.lower() and not _RESERVED.match(plain)
    return plain if lossless else f"{plain or 'row'}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def file_stem(identity: str, axes: Mapping[str, Any]) -> str:
    """The name of a row's pictures, less number and extension: the id's slug, then the axes' values."""
    parts = [identity, *(str(value) for value in axes.values())]
    stem = "-".join(slug(part) for part in parts)
    if len(stem) <= NAME_LENGTH * 2:
        return stem
    return f"{stem[:NAME_LENGTH]}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"


def decode(encoded: str) -> bytes:
    """The bytes of strict base64 (RFC 4648 4; a data URL's head is taken off). Raises Unreadable."""
    text = encoded.split(",", 1)[1] if encoded.startswith("data:image/") and "," in encoded else encoded
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Unreadable("the picture is not valid base64") from None


def verify(data: bytes) -> str:
    """The extension that the bytes deserve, after every pixel was decoded. Raises Unreadable for anything else."""
    if data.lstrip()[:5] in (b"<svg ", b"<?xml") and data.rstrip().endswith(b"</svg>"):
        return "svg"
    form = sniff(data)
    if form is None:
        raise Unreadable("the picture's bytes are no PNG, JPEG, WebP or GIF")
    # Pillow costs a tenth of a second to import, and most jobs draw nothing.
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with Image.open(io.BytesIO(data), formats=[form]) as image:
                frames = getattr(image, "n_frames", 1)
                if image.width * image.height * frames > MAX_PIXELS or frames > MAX_FRAMES:
                    raise Unreadable("the picture has more pixels than batchgen unpacks")
                for frame in range(frames):
                    image.seek(frame)
                    image.load()
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(f"the picture does not decode: {type(error).__name__}: {error}") from None
    return _EXTENSIONS[form]


class PictureFolder:
    """The images/ folder of a job. `owned` says whether a path already belongs to a recorded answer."""

    def __init__(self, output: Path, owned: Callable[[str], bool]) -> None:
        self._output = output
        self._folder = output / "images"
        self._owned = owned

    def prepare(self) -> None:
        """Make the folder. Raises OutputError when it is a link or cannot be written."""
        make_folder(self._folder)

    def save(self, encoded: list[str], stem: str) -> list[Picture]:
        """Verify every picture of an answer, then write them. Raises Unreadable before anything is written."""
        pictures = [(data := decode(each), verify(data)) for each in encoded]
        numbers = [""] if len(pictures) == 1 else [f"-{n}" for n in range(1, len(pictures) + 1)]
        return [
            self._write(data, f"{stem}{number}", extension)
            for (data, extension), number in zip(pictures, numbers, strict=True)
        ]

    def _write(self, data: bytes, stem: str, extension: str) -> Picture:
        digest = hashlib.sha256(data).hexdigest()
        path = self._free(stem, extension, digest)
        with writing(path, binary=True) as file:
            file.write(data)
        try:
            mtime = path.stat().st_mtime_ns
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}; mend that and run again") from None
        return Picture(path=f"images/{path.name}", sha256=digest, size=len(data), mtime=mtime)

    def _free(self, stem: str, extension: str, digest: str) -> Path:
        """A name that no recorded answer owns: a paid picture is never overwritten, only what a crash left behind."""
        names = (f"{stem}.{extension}", f"{stem}.{digest[:8]}.{extension}")
        return next(
            (self._folder / name for name in names if not self._owned(f"images/{name}")), self._folder / names[1]
        )


def is_whole(output: Path, file: Mapping[str, Any], *, rehash: bool = False) -> bool:
    """Whether a stored picture is still what was written: by size and mtime, else (or with `rehash`) by its sha256."""
    path = output / file["path"]
    try:
        about = path.lstat()
        if about.st_size != file["size"]:
            return False
        if not rehash and about.st_mtime_ns == file["mtime"]:
            return True
        return bool(hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"])
    except OSError:
        return False


def stored(item: Mapping[str, Any], picture: Picture) -> dict[str, Any]:
    """A reply's data item with the picture's bytes replaced by where they are."""
    kept = {name: value for name, value in item.items() if name != "b64_json"}
    return {**kept, "path": picture.path, "sha256": picture.sha256, "size": picture.size}
