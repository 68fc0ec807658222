"""An HTTP request read into a Call: its JSON body, or its multipart fields and pictures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import BodyPartReader, web
from PIL import Image

from batchgen.simulator.refusals import RefusalError, invalid, missing, not_json

Body = dict[str, Any]

MIME_TYPES = {"image/png": "PNG", "image/webp": "WEBP", "image/jpeg": "JPEG"}
MOST_PICTURES = 16
LARGEST_PICTURE = 50 * 1024 * 1024  # bytes of one uploaded file
MOST_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, read but not yet checked.

    `digest` is the SHA-256 (64 hex digits) of path and body; spacing, order of keys and multipart
    boundary leave it as it is. In a multipart call `body` has files as `sha256:...`, and `uploads`
    has them as they came; one that goes to /files may be too large for that, and is `spooled`.
    """

    path: str
    body: Body
    digest: str
    uploads: tuple[Upload, ...] = ()
    spooled: Spooled | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One file of a multipart call; `name` is its form field without brackets."""

    name: str
    filename: str | None
    mime: str
    content: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """`sha256:` and 64 hex digits."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A file that came with a call.

    path: where its first MOST_BYTES (see files.py) are now
    filename: as the client names it
    size: bytes of the whole file
    """

    path: Path
    filename: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The decoded pictures of an edit.

    images: 1 to 16
    mask: has an alpha channel and the size of the first image; None without one
    """

    images: tuple[Image.Image, ...]
    mask: Image.Image | None


def read_json(path: str, raw: bytes) -> Call:
    """Read a JSON body; raises RefusalError when it is not a JSON object."""
    try:
        body = parse(raw)
    except ValueError as error:
        raise not_json(f"it is not valid JSON ({error}).") from None
    if not isinstance(body, dict):
        raise not_json("a JSON object was expected.")
    return call_of(path, body)


def parse(raw: bytes) -> Any:
    """The value of JSON text; raises ValueError for other text, or if it is nested too deep."""
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def call_of(path: str, body: Body, spooled: Spooled | None = None) -> Call:
    """The call with this body, whatever way the body came."""
    return Call(path=path, body=body, digest=_digest(path, body), spooled=spooled)


async def read_form(path: str, request: web.Request) -> Call:
    """Read a multipart body; raises RefusalError when it is not one."""
    if request.content_type != "multipart/form-data":
        raise not_json("this endpoint takes multipart/form-data.")
    try:
        fields, uploads = await _parts(request)
    except (ValueError, AssertionError) as error:
        raise not_json(f"its multipart form is broken ({error}).") from None
    return _with_files(path, fields, uploads)


def read_references(path: str, body: Body) -> Call:
    """Read an edit whose pictures are data URLs in JSON, online or in a line of a batch.

    It is the same call as with the same pictures in a form; raises RefusalError for a reference
    that is something else.
    """
    images = body.get("images")
    named = [("image", one) for one in (images if isinstance(images, list) else [])]
    if body.get("mask") is not None:
        named.append(("mask", body["mask"]))
    fields = {name: value for name, value in body.items() if name not in ("images", "mask")}
    return _with_files(path, fields, [_reference(name, one) for name, one in named])


def _reference(name: str, reference: Any) -> Upload:
    url = reference.get("image_url") if isinstance(reference, dict) else None
    head, comma, coded = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise invalid(name, "the simulator takes an image_url that is a base64 data URL.")
    try:
        content = base64.b64decode(coded, validate=True)
    except ValueError as error:
        raise invalid(name, f"the data URL cannot be read ({error}).") from None
    mime = head.removeprefix("data:").partition(";")[0]
    return Upload(name=name, filename="reference", mime=mime, content=content)


def _with_files(path: str, fields: Body, uploads: Sequence[Upload]) -> Call:
    files: Body = {}
    for upload in uploads:
        files.setdefault(upload.name, []).append(upload.sha256)
    body = fields | files
    return Call(path=path, body=body, digest=_digest(path, body), uploads=tuple(uploads))


async def open_pictures(call: Call) -> Pictures:
    """Decode the pictures of an edit in a thread; raises RefusalError for a wrong one."""
    return await asyncio.to_thread(_open_pictures, call.uploads)


async def _parts(request: web.Request) -> tuple[dict[str, Any], list[Upload]]:
    fields: dict[str, Any] = {}
    uploads: list[Upload] = []
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise ValueError("a part holds parts")
        name = (part.name or "").removesuffix("[]")
        content = bytes(await part.read(decode=True))
        if name in ("image", "mask") or part.filename is not None:
            mime = (
                part.headers.get("Content-Type", "application/octet-stream")
                .partition(";")[0]
                .strip()
                .lower()
            )
            uploads.append(Upload(name=name, filename=part.filename, mime=mime, content=content))
        else:
            fields[name] = _typed(name, content.decode("utf-8"))
    return fields, uploads


def _typed(name: str, text: str) -> str | int:
    """A form field as a value: the two fields that the API reads as whole numbers are numbers."""
    is_number = (
        name in ("n", "output_compression") and text.isascii() and text.isdigit() and len(text) < 10
    )
    return int(text) if is_number else text


def _open_pictures(uploads: Iterable[Upload]) -> Pictures:
    by_name: dict[str, list[Upload]] = {"image": [], "mask": []}
    for upload in uploads:
        if upload.name not in by_name:
            raise invalid(
                upload.name,
                "no file belongs here; files go to image and mask.",
                "unknown_parameter",
            )
        by_name[upload.name].append(upload)
    if not by_name["image"]:
        raise missing("image")
    if len(by_name["image"]) > MOST_PICTURES:
        raise invalid(
            "image", f"at most {MOST_PICTURES} images are taken.", "array_above_max_length"
        )
    if len(by_name["mask"]) > 1:
        raise invalid("mask", "there is one mask at most.", "array_above_max_length")
    images = tuple(_open(upload, MIME_TYPES) for upload in by_name["image"])
    masks = [_open(upload, ("image/png",)) for upload in by_name["mask"]]
    return Pictures(images=images, mask=_checked_mask(masks[0], images[0]) if masks else None)


def _open(upload: Upload, mime_types: Iterable[str]) -> Image.Image:
    if not upload.filename:
        raise invalid(upload.name, "the file has no filename.", "invalid_file")
    if upload.mime not in mime_types:
        supported = ", ".join(mime_types)
        message = f"unsupported mimetype ('{upload.mime}'); supported are {supported}."
        raise invalid(upload.name, message, "unsupported_file_mimetype")
    if len(upload.content) > LARGEST_PICTURE:
        raise RefusalError(
            413,
            f"The file '{upload.name}' is above 50 MB.",
            param=upload.name,
            code="file_too_large",
        )
    try:
        return _decoded(upload)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise invalid(
            upload.name, f"the image cannot be read ({error}).", "invalid_image_file"
        ) from None


def _decoded(upload: Upload) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = Image.open(io.BytesIO(upload.content), formats=tuple(MIME_TYPES.values()))
    if picture.width * picture.height > MOST_PIXELS:
        raise ValueError(f"it has more than {MOST_PIXELS} pixels")
    picture.load()
    return picture


def _checked_mask(mask: Image.Image, first: Image.Image) -> Image.Image:
    if not mask.has_transparency_data:
        raise invalid("mask", "the mask has no alpha channel.", "invalid_image_mask")
    if mask.size != first.size:
        message = (
            f"the mask is {mask.width}x{mask.height}, the first image {first.width}x{first.height}."
        )
        raise invalid("mask", message, "invalid_image_mask")
    return mask


def _digest(path: str, body: Body) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{path}\n{canonical}".encode()).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
