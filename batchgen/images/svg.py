"""Checks that an SVG draws, and does nothing else.

An SVG is a program and a web page as well as a picture. Elements that draw are let through.
Scripts, links to elsewhere, entities and animations are refused: an animation may set any
attribute, so it may set a link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.parsers import expat

from batchgen.replies import UnreadableReplyError

# What a file of text may begin with: a byte order mark, and white space.
_BLANK = b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"

_NAMESPACE = "http://www.w3.org/2000/svg"

# The elements that draw: w3.org/TR/SVG11/eltindex.html, and those of SVG 2 and its drafts.
_ELEMENTS = """
    svg g defs symbol use switch view a title desc metadata style
    path rect circle ellipse line polyline polygon image
    text tspan textPath tref altGlyph altGlyphDef altGlyphItem glyphRef
    font font-face font-face-name glyph missing-glyph hkern vkern color-profile
    linearGradient radialGradient meshgradient meshrow meshpatch stop pattern
    hatch hatchpath solidcolor clipPath mask marker filter
    feBlend feColorMatrix feComponentTransfer feComposite feConvolveMatrix feDiffuseLighting
    feDisplacementMap feDistantLight feDropShadow feFlood feFuncA feFuncB feFuncG feFuncR
    feGaussianBlur feImage feMerge feMergeNode feMorphology feOffset fePointLight
    feSpecularLighting feSpotLight feTile feTurbulence
"""
_DRAWING = frozenset(_ELEMENTS.split())

# A link may lead to another element of the file, or to a picture within it.
_INSIDE = r"#|data:image/(?:png|jpeg|webp|gif);"
_INSIDE_LINK = re.compile(_INSIDE)
_LINK_ATTRIBUTES = frozenset({"href", "src", "base"})

# CSS that loads something from outside of the file.
_LOADING_CSS = re.compile(
    rf"""url\((?!\s*["']?\s*(?:{_INSIDE}))|@import|image-set\(|\bsrc\(|javascript:""", re.IGNORECASE
)
# CSS may write any letter as an escape: by its code point, or by a backslash before it.
_CSS_ESCAPE = re.compile(r"\\([0-9a-fA-F]{1,6})\s?|\\(.)", re.DOTALL)


def looks_like_svg(data: bytes) -> bool:
    """Whether the bytes begin as XML does; no other picture does."""
    return data[:1024].lstrip(_BLANK).startswith(b"<")


def check_svg(data: bytes) -> None:
    """Raise UnreadableReplyError unless the bytes are an SVG that only draws."""
    _Checker().check(data)


class _Checker:
    """Reads one SVG from its beginning to its end."""

    def __init__(self) -> None:
        self._root = ""
        self._namespace = ""
        self._in_style = 0
        self._css: list[str] = []

    def check(self, data: bytes) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse_declaration
        parser.ProcessingInstructionHandler = self._refuse_declaration
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        try:
            # XML allows no blank lines before its declaration, but they are harmless.
            parser.Parse(data.lstrip(), True)
        except (expat.ExpatError, LookupError, ValueError) as error:
            raise UnreadableReplyError(f"the SVG is not valid XML: {error}") from None
        self._check_css("".join(self._css))

    def _refuse_declaration(self, *_: object) -> None:
        # Entities unpack without bound, and both can name other files.
        raise UnreadableReplyError(
            "the SVG has a document type or a processing instruction, which batchgen refuses",
            final=True,
        )

    def _begin(self, name: str, attributes: Mapping[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        if not self._root:
            self._root, self._namespace = local, namespace
            if local != "svg" or namespace not in (_NAMESPACE, ""):
                raise UnreadableReplyError(
                    f"the picture is XML, but it begins with <{local[:40]}> instead of <svg>"
                )
        if namespace != self._namespace or local not in _DRAWING:
            raise UnreadableReplyError(
                f"the SVG holds <{local[:40]}>, which does more than draw", final=True
            )
        if local == "style":
            self._in_style += 1
            # Keeps two style elements apart, which are checked as one text.
            self._css.append("\n")
        for key, value in attributes.items():
            self._check_attribute(key.rpartition(" ")[2].lower(), value.strip())

    def _end(self, name: str) -> None:
        self._in_style -= name.rpartition(" ")[2] == "style"

    def _text(self, text: str) -> None:
        if self._in_style:
            self._css.append(text)

    def _check_attribute(self, name: str, value: str) -> None:
        if name.startswith("on"):
            raise UnreadableReplyError("the SVG holds a script", final=True)
        if name not in _LINK_ATTRIBUTES:
            # Any attribute may hold CSS: `style`, `fill`, `filter`, `mask`, ...
            self._check_css(value)
        elif value and not _INSIDE_LINK.match(value):
            raise UnreadableReplyError("the SVG loads something from elsewhere", final=True)

    def _check_css(self, css: str) -> None:
        if _LOADING_CSS.search(_CSS_ESCAPE.sub(_unescaped, css)):
            raise UnreadableReplyError("the SVG loads something from elsewhere", final=True)


def _unescaped(escape: re.Match[str]) -> str:
    """The character that a CSS escape stands for."""
    return escape[2] or chr(min(int(escape[1], 16), 0x10FFFF))
