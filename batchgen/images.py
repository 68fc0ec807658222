"""Image bytes -> images/<id>.<ext>: decoded strictly, verified whole, written once, named safely.

Everything here blocks; the runner calls it off the event loop.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import stat
import threading
import unicodedata
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from batchgen.disk import atomic_write, make_folder, sweep
from batchgen.errors import OutputError
from batchgen.replies import UnreadableReplyError, sniff

# The largest picture that is unpacked to be checked, with room for what comes, and all frames of one together: the API's
# largest are 3840 x 2160, in a GIF sixteen of them.
MAX_PIXELS = 100_000_000
MAX_ALL_PIXELS = 16 * 3840 * 2160
MAX_FRAMES = 64

# Characters of a name before the number and the extension; file systems end at 255 bytes.
NAME_LENGTH = 100

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?\Z")
_HASHED = re.compile(r".*-[0-9a-f]{16}\Z")
_EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp", "gif": "gif"}

# The last bytes of the formats that Pillow reads without them.
_ENDS = {"png": b"IEND\xaeB`\x82", "gif": b";"}

# What a file of text may begin with: a byte order mark, and white space.
_BLANK = b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"

# What an SVG may hold: it is a program and a web page as well as a picture, and only what draws is let through. What moves
# it is not: an animation may set any attribute, a link too.
_SVG = "http://www.w3.org/2000/svg"
_DRAWS = frozenset(
    [
        *(
            "svg",
            "g",
            "defs",
            "symbol",
            "use",
            "switch",
            "view",
            "a",
            "title",
            "desc",
            "metadata",
            "style",
        ),
        *("path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "image"),
        *(
            "text",
            "tspan",
            "textPath",
            "tref",
            "altGlyph",
            "altGlyphDef",
            "altGlyphItem",
            "glyphRef",
        ),
        *(
            "font",
            "font-face",
            "font-face-name",
            "glyph",
            "missing-glyph",
            "hkern",
            "vkern",
            "color-profile",
        ),
        *(
            "linearGradient",
            "radialGradient",
            "meshgradient",
            "meshrow",
            "meshpatch",
            "stop",
            "pattern",
            "hatch",
        ),
        *(
            "hatchpath",
            "solidcolor",
            "clipPath",
            "mask",
            "marker",
            "filter",
            "feBlend",
            "feColorMatrix",
        ),
        *(
            "feComponentTransfer",
            "feComposite",
            "feConvolveMatrix",
            "feDiffuseLighting",
            "feDisplacementMap",
        ),
        *("feDistantLight", "feDropShadow", "feFlood", "feFuncA", "feFuncB", "feFuncG", "feFuncR"),
        *(
            "feGaussianBlur",
            "feImage",
            "feMerge",
            "feMergeNode",
            "feMorphology",
            "feOffset",
            "fePointLight",
        ),
        *("feSpecularLighting", "feSpotLight", "feTile", "feTurbulence"),
    ]
)
_INSIDE = r"#|data:image/(?:png|jpeg|webp|gif);"
_LINK = re.compile(_INSIDE)
_LINKS = frozenset({"href", "src", "base"})
# CSS that loads: from anywhere but the picture itself; a letter of it may be written as an escape.
_LOADS = re.compile(
    rf"""url\((?!\s*["']?\s*(?:{_INSIDE}))|@import|image-set\(|\bsrc\(|javascript:""", re.IGNORECASE
)
_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?|\\(.)", re.DOTALL)

# One picture is unpacked at a time: its memory, and Python's filter of warnings, are the whole process's.
_unpacking = threading.Lock()

# Names given out and perhaps not recorded yet are remembered; more pictures than this are never in flight.
REMEMBERED = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A stored picture: `path` relative to the job's output folder, `size` in bytes, `mtime` in ns."""

    path: str
    sha256: str
    size: int
    mtime: int


def slug(identity: str) -> str:
    """A file name made of a row's identity: only A-Z a-z 0-9 . _ -, never empty, never a device's name.

    Where the slug lost something (or differs from another identity only by case, or looks as if it had a hash), a short
    hash of the identity keeps two identities from one name on any file system.
    """
    plain = _UNSAFE.sub("_", unicodedata.normalize("NFKD", identity)).strip("._")[:NAME_LENGTH]
    if _RESERVED.match(plain):
        plain = plain.replace(".", "_")
    lossless = (
        plain == identity == plain.lower()
        and not _RESERVED.match(plain)
        and not _HASHED.match(plain)
    )
    return plain if lossless and plain else f"{plain or 'row'}-{_short(identity)}"


def _short(identity: str) -> str:
    """64 bits of a hash: a million rows whose slugs are all alike still have names of their own."""
    return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:16]


def file_stem(identity: str, axes: Mapping[str, Any]) -> str:
    """The name of a row's pictures, less number and extension: the id's slug, then the axes' values."""
    parts = [identity, *(str(value) for value in axes.values())]
    stem = "-".join(slug(part) for part in parts)
    if len(stem) <= NAME_LENGTH * 2:
        return stem
    return f"{stem[:NAME_LENGTH]}-{_short(stem)}"


def decode(encoded: str) -> bytes:
    """The bytes of strict base64 (RFC 4648 4; a data URL's head is taken off). Raises UnreadableReplyError."""
    text = (
        encoded.split(",", 1)[1]
        if encoded.startswith("data:image/") and "," in encoded
        else encoded
    )
    try:
        if len(text) % 4:
            raise binascii.Error
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableReplyError("the picture is not valid base64") from None


def verify(data: bytes) -> str:
    """The extension that the bytes deserve, after every pixel was decoded. Raises UnreadableReplyError for anything else; it is final
    where the same would come again: for what is too large, and an SVG that does more than draw."""
    if data[:1024].lstrip(_BLANK).startswith(b"<"):
        _Svg().verify(data)
        return "svg"
    form = sniff(data)
    if form is None:
        raise UnreadableReplyError("the picture's bytes are no PNG, JPEG, WebP or GIF")
    # Pillow costs a tenth of a second to import, and most jobs draw nothing.
    from PIL import Image

    with _unpacking, warnings.catch_warnings():
        warnings.simplefilter("error")
        # The bounds are ours; Pillow's own error comes at twice its warning, beyond them.
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


class _Svg:
    """One look through an SVG."""

    def __init__(self) -> None:
        self._root = ""
        self._namespace = ""
        self._in_style = 0
        self._css: list[str] = []

    def verify(self, data: bytes) -> None:
        """Raises UnreadableReplyError unless the bytes are an SVG that neither runs, nor loads, nor unpacks anything."""
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._declared
        parser.ProcessingInstructionHandler = self._declared
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        try:
            # Blank lines before an XML declaration are no XML, and harm nothing.
            parser.Parse(data.lstrip(), True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise UnreadableReplyError(f"the SVG is no XML: {error}") from None
        self._loads_nothing("".join(self._css))

    def _declared(self, *_: object) -> None:
        message = (
            "the SVG has a document type or an instruction, where other files and entities hide"
        )
        raise UnreadableReplyError(message, final=True)

    def _begin(self, name: str, attributes: Mapping[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if not self._root:
            self._root, self._namespace = local, namespace
            if local != "svg" or namespace not in (_SVG, ""):
                raise UnreadableReplyError(f"the picture is XML, but <{local[:40]}> instead of SVG")
        if namespace != self._namespace or local not in _DRAWS:
            raise UnreadableReplyError(
                f"the SVG holds <{local[:40]}>, which does more than draw", final=True
            )
        if local == "style":
            self._in_style += 1
            self._css.append("\n")
        for key, value in attributes.items():
            self._attribute(key.rpartition(" ")[2].lower(), value.strip())

    def _end(self, name: str) -> None:
        self._in_style -= name.rpartition(" ")[2] == "style"

    def _text(self, text: str) -> None:
        if self._in_style:
            self._css.append(text)

    def _attribute(self, name: str, value: str) -> None:
        if name.startswith("on"):
            raise UnreadableReplyError("the SVG holds a script", final=True)
        if name not in _LINKS:
            self._loads_nothing(value)
        elif value and not _LINK.match(value):
            raise UnreadableReplyError("the SVG loads something from elsewhere", final=True)

    def _loads_nothing(self, css: str) -> None:
        if _LOADS.search(_ESCAPE.sub(_unescaped, css)):
            raise UnreadableReplyError("the SVG loads something from elsewhere", final=True)


def _unescaped(escape: re.Match[str]) -> str:
    """The character that an escape of CSS stands for."""
    return escape[2] or chr(min(int(escape[1], 16), 0x10FFFF))


class PictureFolder:
    """The images/ folder of a job. `owned` says whether a path already belongs to a recorded answer."""

    def __init__(self, output: Path, owned: Callable[[str], bool]) -> None:
        self._output = output
        self._folder = output / "images"
        self._owned = owned
        self._given: dict[str, None] = {}
        self._naming = threading.Lock()

    def prepare(self) -> None:
        """Make the folder, without what a crash left in it. Raises OutputError when it is a link or cannot be written."""
        make_folder(self._folder)
        sweep(self._folder)

    def save(self, encoded: list[str], stem: str) -> list[Picture]:
        """Verify every picture of an answer, then write them. Raises UnreadableReplyError before anything is written."""
        pictures = [(data := decode(each), verify(data)) for each in encoded]
        numbers = [""] if len(pictures) == 1 else [f"-{n}" for n in range(1, len(pictures) + 1)]
        return [
            self._write(data, f"{stem}{number}", extension)
            for (data, extension), number in zip(pictures, numbers, strict=True)
        ]

    def _write(self, data: bytes, stem: str, extension: str) -> Picture:
        digest = hashlib.sha256(data).hexdigest()
        path = self._free(stem, extension, digest)
        with atomic_write(path, binary=True) as file:
            file.write(data)
        try:
            mtime = path.stat().st_mtime_ns
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}; mend that and run again") from None
        return Picture(path=f"images/{path.name}", sha256=digest, size=len(data), mtime=mtime)

    def _free(self, stem: str, extension: str, digest: str) -> Path:
        """A name that no answer owns or is about to: a paid picture is never overwritten, only what a crash left behind."""
        names = (f"{stem}.{extension}", f"{stem}.{digest[:16]}.{extension}")
        with self._naming:
            free = (
                name
                for name in names
                if name.lower() not in self._given and not self._owned(f"images/{name}")
            )
            name = next(free, names[1])
            self._given[name.lower()] = None
            if len(self._given) > REMEMBERED:
                del self._given[next(iter(self._given))]
        return self._folder / name


def is_intact(output: Path, file: Mapping[str, Any], *, rehash: bool = False) -> bool:
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


def restored(output: Path, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """A data item as it came, the reverse of `stored`; None where the picture is not what was written."""
    path = output / item["path"]
    try:
        data = path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b""
    except OSError:
        return None
    if hashlib.sha256(data).hexdigest() != item["sha256"]:
        return None
    kept = {name: value for name, value in item.items() if name not in ("path", "sha256", "size")}
    return {"b64_json": base64.b64encode(data).decode(), **kept}


def stored(item: Mapping[str, Any], picture: Picture) -> dict[str, Any]:
    """A reply's data item with the picture's bytes replaced by where they are."""
    kept = {name: value for name, value in item.items() if name != "b64_json"}
    return {**kept, "path": picture.path, "sha256": picture.sha256, "size": picture.size}
