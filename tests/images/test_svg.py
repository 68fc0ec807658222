"""SVGs that draw, and do nothing else."""

from __future__ import annotations

import pytest
from drawings import refused_for_good

from batchgen.images import verify
from batchgen.replies import UnreadableReplyError

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
def test_svg_isrefused_for_good(body: str) -> None:
    """P35 An SVG that runs, moves or loads something is refused however it is written, and not
    retried: the same model would write it again.
    """
    refused_for_good(SVG.format(body).encode(), "SVG")
