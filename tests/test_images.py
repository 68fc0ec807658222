"""Pictures: safe and unique names, bytes that decode, files that nothing overwrites."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import struct
import threading
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.errors import OutputError
from batchgen.images import (
    MAX_ALL_PIXELS,
    MAX_PIXELS,
    PictureFolder,
    decode,
    file_stem,
    is_intact,
    slug,
    stored,
    verification,
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


def folder(tmp_path: Path, owned: Callable[[str], bool] = lambda path: False) -> PictureFolder:
    pictures = PictureFolder(tmp_path, owned)
    pictures.prepare()
    return pictures


# --- names

HOSTILE = [
    *(
        "../../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "CON",
        "con",
        "aux.png",
        "nul",
        "COM1",
        "lpt9.txt",
        "a\0b",
        "x" * 300,
        "x" * 301,
    ),
    *(
        "A",
        "a",
        "Ä",
        unicodedata.normalize("NFD", "Ä"),
        "ä",
        "",
        ".",
        "..",
        ".hidden",
        "~",
        "-",
        "a b",
        "a_b",
        "日本",
        "本日",
    ),
    *("\ud800", "a.", "a", "a:b", "*", "\u202e", "row", "-rf", "a\n", "ß", "ss", "İ", "i"),
]


@pytest.mark.parametrize("identity", HOSTILE)
def test_names_are_safe(identity: str) -> None:
    """P33 For any id: letters, digits, . _ - only; never hidden, a device, too long or outside of
    the folder.
    """
    _assert_safe(identity)


def _assert_safe(identity: str) -> None:
    name = slug(identity)
    assert name
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not name.startswith(".")
    assert name.partition(".")[0].lower() not in ("con", "prn", "aux", "nul", "com1", "lpt9")
    assert len(name) <= 117
    assert os.path.basename(name) == name


def test_plain_ids_name_their_files() -> None:
    """P33 An id that is a safe name already is the name."""
    for identity in ("a", "sku-001", "photo_1.v2", "42"):
        assert slug(identity) == identity
    assert file_stem("sku-1", {"size": "small", "n": 2}) == "sku-1-small-2"
    assert len(file_stem("x" * 300, {str(n): "y" * 300 for n in range(9)})) < 220


def test_names_never_meet() -> None:
    """P33 Ids that differ only by case, Unicode form, truncation or removed characters, or that
    imitate a hash, get different names.
    """
    ids = list(dict.fromkeys(HOSTILE))
    ids += [slug(identity) for identity in ids if slug(identity) not in ids]
    ids += [slug(identity).lower() for identity in ids if slug(identity).lower() not in ids]
    assert len({slug(identity).lower() for identity in ids}) == len(ids)


@given(st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
def test_any_two_ids_have_two_names(ids: list[str]) -> None:
    """P33 Safe and different, for any two ids, on any file system."""
    for identity in ids:
        _assert_safe(identity)
    one, other = (unicodedata.normalize("NFC", slug(identity)).casefold() for identity in ids)
    assert one != other


# --- bytes


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
    _refused_for_good(bomb, "pixels")
    _refused_for_good(moving(100, (2, 2)), "pixels")


def moving(frames: int, size: tuple[int, int]) -> bytes:
    file, each = io.BytesIO(), [Image.new("L", size, n) for n in range(frames)]
    each[0].save(file, "GIF", save_all=True, append_images=each[1:])
    return file.getvalue()


def _refused_for_good(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableReplyError, match=words) as caught:
        verify(data)
    assert caught.value.final


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
    _refused_for_good(drawn(size=(41, 25)), "pixels")
    _refused_for_good(moving(17, (10, 10)), "pixels")


def test_the_bounds_on_pixels_are_batchgen_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """P35 Pillow warns about pictures that are within the bounds; they are accepted all the
    same.
    """
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert verify(drawn(size=(16, 16))) == "png"
    _refused_for_good(drawn(size=(40, 40)), "pixels")


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


SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{}</svg>'


DRAWING = """
<title>url(https://example.com) and javascript: are words here</title>
<defs><linearGradient id="g" gradientTransform="rotate(9)">
<stop offset="0" stop-color="#fff"/></linearGradient>
<filter id="f"><feGaussianBlur stdDeviation="1"/></filter>
<clipPath id="c"><rect width="1"/></clipPath>
<marker id="m"><path d="M0 0L1 1z"/></marker></defs>
<style type="text/css"><![CDATA[ .a { fill: url(#g); filter: url( '#f' ) } ]]>
.b { content: "\\201C" }</style>
<g class="a" style="fill:url(#g); clip-path: url(&quot;#c&quot;)" marker-end="url(#m)"
 font-family="Ümlaut Sans">
<text x="1" aria-label="see https://example.com">a<tspan dy="1">b</tspan>
<textPath href="#p">c</textPath></text>
<use xlink:href="#g" xmlns:xlink="http://www.w3.org/1999/xlink"/></g>
"""


@pytest.mark.parametrize(
    "body",
    [
        "",
        '<rect width="9"/>',
        '<a href="#b"/>',
        '<image href="data:image/png;base64,AA=="/>',
        DRAWING,
    ],
)
def test_svg(body: str) -> None:
    """P35 An SVG that only draws is a picture, whatever stands before its root."""
    svg = SVG.format(body)
    for before in (
        "",
        '<?xml version="1.0"?>\n',
        "<!-- made by a model -->\n",
        "\ufeff",
        " \n\t",
        "\n" * 200,
    ):
        assert verify((before + svg).encode()) == "svg"
    assert verify(svg.encode("utf-16")) == "svg"
    assert verify(svg.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1).encode()) == "svg"


@pytest.mark.parametrize(
    "text",
    [
        SVG.format("<script>alert(1)</script>"),
        SVG.format('<x:script xmlns:x="http://www.w3.org/2000/svg"/>'),
        SVG.format('<rect onload="alert(1)"/>'),
        SVG.format('<a href="javascript:alert(1)"/>'),
        SVG.format('<a xmlns:x="http://www.w3.org/1999/xlink" x:href=" https://example.com/a"/>'),
        SVG.format('<image href="data:image/svg+xml;base64,AA=="/>'),
        SVG.format("<foreignObject/>"),
        SVG.format("<rect>"),
        '<!DOCTYPE svg [<!ENTITY a "b">]>' + SVG.format("&a;"),
        '<?xml version="1.0"?><!DOCTYPE svg SYSTEM "file:///etc/passwd">' + SVG.format(""),
        '<?xml version="1.0"?><?xml-stylesheet href="http://example.com/a.css"?>' + SVG.format(""),
        '<?xml version="1.0"?><html><svg/></html>',
        '<?xml version="1.0" encoding="utf-7"?>' + SVG.format(""),
        '<?xml version="1.0"?>',
        "<svgx/>",
    ],
)
def test_svg_that_does_more_than_draw(text: str) -> None:
    """P35 An SVG with scripts, links, entities, or that is no XML or no SVG, is refused."""
    with pytest.raises(UnreadableReplyError):
        verify(text.encode())


H = 'xmlns:h="http://www.w3.org/1999/xhtml"'


@pytest.mark.parametrize(
    "body",
    [
        "<script>alert(1)</script>",
        '<style>@import url("https://example.com/a.css");</style>',
        '<style>@import "https://example.com/a.css";</style>',
        "<style>@im<![CDATA[port]]> 'x'</style>",
        "<style>@\\69mport 'x'</style>",
        "<style>a { fill: u\\72 l(https://example.com/) }</style>",
        "<style>a { fill: url(#g), URL( 'https://example.com/' ) }</style>",
        "<style>a { fill: url(/**/https://example.com/) }</style>",
        '<style>a { background: image-set("https://example.com/" 1x) }</style>',
        '<rect fill="url(https://example.com/a.svg#x)"/>',
        '<rect style="background:url(//example.com/b)"/>',
        '<rect style="background:url(data:image/svg+xml;base64,AA==)"/>',
        '<rect fill="&#117;rl(https://example.com/)"/>',
        '<a href="#x"><set attributeName="href" to="javascript:alert(1)"/></a>',
        '<animate attributeName="href" values="https://example.com/"/>',
        "<animateTransform/>",
        "<animateMotion/>",
        "<Script/>",
        f'<h:img {H} srcset="https://example.com/p.png"/>',
        f"<metadata><h:script {H}>alert(1)</h:script></metadata>",
        '<g xmlns=""><rect/></g>',
        '<rect style="a:javascript:alert(1)"/>',
        '<use xml:base="https://example.com/" href="#x"/>',
        "<video/>",
        "<iframe/>",
    ],
)
def test_svg_is_refused_for_good(body: str) -> None:
    """P35 An SVG that runs, moves or loads something is refused however it is written, and not
    retried: the same model would write it again.
    """
    _refused_for_good(SVG.format(body).encode(), "SVG")


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


# --- files


def test_pictures_are_written_and_known_again(tmp_path: Path) -> None:
    """P04 A picture's file has the bytes, size and hash that its record says, and a changed file is
    noticed.
    """
    data = drawn()
    (picture,) = folder(tmp_path).save([encoded(data)], "a")
    assert (tmp_path / "images" / "a.png").read_bytes() == data
    assert (picture.path, picture.size, picture.sha256) == (
        "images/a.png",
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    about = asdict(picture)
    assert is_intact(tmp_path, about)
    assert is_intact(tmp_path, about, rehash=True)
    os.utime(tmp_path / picture.path)
    assert is_intact(tmp_path, about)
    (tmp_path / picture.path).write_bytes(data[:-1] + b"x")
    assert not is_intact(tmp_path, about)
    (tmp_path / picture.path).unlink()
    assert not is_intact(tmp_path, about)
    assert stored({"b64_json": "x", "revised_prompt": "p"}, picture) == {
        "revised_prompt": "p",
        **{name: about[name] for name in ("path", "sha256", "size")},
    }


def test_several_pictures_are_numbered_and_all_or_none(tmp_path: Path) -> None:
    """P35 With n above 1 each picture has its number and its own format; if one is bad, none is
    written.
    """
    pictures = folder(tmp_path)
    saved = pictures.save([encoded(drawn()), encoded(drawn("JPEG"))], "a")
    assert [picture.path for picture in saved] == ["images/a-1.png", "images/a-2.jpg"]
    with pytest.raises(UnreadableReplyError):
        pictures.save([encoded(drawn()), encoded(drawn()[:-20])], "b")
    assert sorted(os.listdir(tmp_path / "images")) == ["a-1.png", "a-2.jpg"]


def test_owned_pictures_are_never_overwritten(tmp_path: Path) -> None:
    """P33 A name that an answer owns, or that was taken a moment ago, is not given again; a file
    that a crash left is replaced.
    """
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "old.png").write_bytes(b"paid for")
    (tmp_path / "images" / "left.png").write_bytes(b"left by a crash")
    pictures = folder(tmp_path, lambda path: path == "images/old.png")
    (again,) = pictures.save([encoded(drawn())], "old")
    assert again.path == f"images/old.{again.sha256[:16]}.png"
    assert (tmp_path / "images" / "old.png").read_bytes() == b"paid for"
    (left,) = pictures.save([encoded(drawn())], "left")
    assert left.path == "images/left.png"
    assert is_intact(tmp_path, asdict(left), rehash=True)
    (other,) = pictures.save([encoded(drawn(shade=9))], "left")
    assert other.path != left.path
    assert is_intact(tmp_path, asdict(left), rehash=True)


def test_long_names_written_at_once(tmp_path: Path) -> None:
    """P04 Threads whose pictures have similar names do not write into each other's temporary
    files.
    """
    pictures = folder(tmp_path)
    data = [drawn(size=(300, 300), shade=n) for n in range(12)]
    saved: list[dict[str, object]] = []

    def save(n: int) -> None:
        saved.extend(
            asdict(picture) for picture in pictures.save([encoded(data[n])], "x" * 150 + str(n))
        )

    threads = [threading.Thread(target=save, args=(n,)) for n in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saved) == len(data)
    assert all(is_intact(tmp_path, picture, rehash=True) for picture in saved)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """P34 An images folder that is a link is refused; a link in place of a picture is replaced, not
    followed.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "images").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="link"):
        folder(tmp_path / "job")
    assert os.listdir(elsewhere) == []
    pictures = folder(tmp_path)
    target = elsewhere / "target"
    target.write_bytes(b"kept")
    (tmp_path / "images" / "a.png").symlink_to(target)
    (picture,) = pictures.save([encoded(drawn())], "a")
    assert target.read_bytes() == b"kept"
    assert not (tmp_path / picture.path).is_symlink()
