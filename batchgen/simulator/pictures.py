"""Pictures that no model made, plainly: the prompt on pastel, below the label SIMULATED."""

from __future__ import annotations

import colorsys
import io
import unicodedata
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

LABEL = "SIMULATED"

_INK = (40, 40, 48)
_MOST_LETTERS = 600  # of the prompt are drawn


def draw(
    prompt: str,
    *,
    size: tuple[int, int],
    seed: int,
    transparent: bool,
    form: str,
    compression: int | None = None,
) -> bytes:
    """A picture of `prompt` as encoded bytes, the same for the same arguments.

    prompt: its words are drawn
    size: width and height in pixels
    seed: chooses the colours
    transparent: whether the ground is
    form: png, webp or jpeg
    compression: the API's `output_compression`, 0 to 100, for webp and jpeg
    """
    ground = _ground(size, seed, transparent=transparent)
    _write(ground, prompt, top=ground.height // 8, outlined=transparent)
    return _encoded(ground, form, compression)


def draw_edit(
    prompt: str,
    first: Image.Image,
    mask: Image.Image | None,
    *,
    size: tuple[int, int],
    seed: int,
    transparent: bool,
    form: str,
    compression: int | None = None,
) -> bytes:
    """The picture `first`, tinted where `mask` is transparent, with the prompt on its lower half.

    first: the picture to edit
    mask: has an alpha channel and the size of `first`; None without one

    The other parameters are those of `draw`.
    """
    ground = _ground(size, seed, transparent=transparent)
    picture = first.convert("RGBA")
    if mask is not None:
        opened = ImageOps.invert(mask.convert("RGBA").getchannel("A"))
        picture.paste(
            Image.new("RGBA", picture.size, (*_pastel(seed + 180, 0.7), 255)),
            mask=opened.point(lambda a: a // 2),
        )
    fitted = ImageOps.contain(picture, size)
    corner = ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2)
    ground.paste(fitted, corner, fitted)
    _write(ground, prompt, top=ground.height // 2, outlined=True)
    return _encoded(ground, form, compression)


def _ground(size: tuple[int, int], seed: int, *, transparent: bool) -> Image.Image:
    if transparent:
        return Image.new("RGBA", size, (0, 0, 0, 0))
    ground = Image.new("RGB", size, _pastel(seed, 0.9))
    width, height = size
    box = (width * (seed % 7) // 14, height // 4, width * (seed % 7 + 7) // 14, height)
    ImageDraw.Draw(ground).ellipse(box, fill=_pastel(seed + 40, 0.84))
    return ground


def _pastel(seed: int, lightness: float) -> tuple[int, int, int]:
    """A colour whose hue is `seed` in degrees; `lightness` is 0 (black) to 1 (white)."""
    red, green, blue = colorsys.hls_to_rgb(seed % 360 / 360, lightness, 0.6)
    return round(red * 255), round(green * 255), round(blue * 255)


def _write(picture: Image.Image, prompt: str, *, top: int, outlined: bool) -> None:
    """Draw the label's band at the top edge, and the prompt from `top` (pixels) down.

    `outlined` letters can be read on any ground, at twice the cost.
    """
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    large, small = _font(max(8, min(width, height) // 18)), _font(max(8, min(width, height) // 26))
    band = max(10, min(width, height) // 11)
    pen.rectangle((0, 0, width, band), fill=_INK)
    pen.text((width // 2, band // 2), LABEL, font=large, fill="white", anchor="mm")
    margin = width // 16
    line_height = small.size * 1.35
    room = max(1, int((height - top - margin) // line_height))
    lines = _wrapped(_drawable(prompt), small, width - 2 * margin)
    stroke = max(1, int(small.size // 12)) if outlined else 0
    for number, line in enumerate(lines[:room]):
        spot = (margin, top + number * line_height)
        pen.text(spot, line, font=small, fill=_INK, stroke_width=stroke, stroke_fill="white")


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), (
        "Pillow is built with FreeType on every platform we name"
    )
    return font


def _drawable(prompt: str) -> str:
    """The prompt's beginning on one line, in letters the font has where that is easy.

    Accents are dropped, since Pillow's own font is nearly ASCII and a system's font would make the
    bytes depend on the machine; what no font can draw (control characters, lone surrogates) becomes
    a question mark.
    """
    words = " ".join(prompt[:_MOST_LETTERS].split()).replace("ß", "ss")
    bare = (
        letter
        for letter in unicodedata.normalize("NFKD", words)
        if not unicodedata.combining(letter)
    )
    return "".join(letter if letter.isprintable() else "?" for letter in bare)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """`text` in lines of at most `width` pixels, broken between words, or inside a wider one."""
    space = font.getlength(" ")
    lines: list[str] = []
    left = 0.0
    for word in text.split(" "):
        for piece, length in _pieces(word, font, width):
            if lines and length + space <= left:
                lines[-1] += f" {piece}"
                left -= length + space
            else:
                lines.append(piece)
                left = width - length
    return lines


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: float) -> list[tuple[str, float]]:
    """`word`, or the parts it must be broken into, each with its width in pixels."""
    whole = font.getlength(word)
    if whole <= width:
        return [(word, whole)]
    per_piece = max(1, int(len(word) * width / whole))
    parts = [word[start : start + per_piece] for start in range(0, len(word), per_piece)]
    return [(part, font.getlength(part)) for part in parts]


def _encoded(picture: Image.Image, form: str, compression: int | None) -> bytes:
    buffer = io.BytesIO()
    quality = 80 if compression is None else max(1, compression)
    if form == "png":
        # Level 1 costs a third of the time and these flat pictures stay small.
        picture.save(buffer, "PNG", compress_level=1)
    elif form == "webp":
        picture.save(buffer, "WEBP", quality=quality, method=0)
    else:
        picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
