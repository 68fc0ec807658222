"""The simulated pictures: real, labelled, of the requested size, and drawn over an edited one."""

from __future__ import annotations

import io
from typing import Any

import pytest
from conversation import EDIT, GENERATE, GOOD, Answer, decoded, form_of, image_body, once, png, talk
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchgen.simulator.pictures import LABEL, draw


@pytest.mark.parametrize(("form", "name"), [("png", "PNG"), ("webp", "WEBP"), ("jpeg", "JPEG")])
def test_pictures_are_real_and_of_the_size_asked_for(form: str, name: str) -> None:
    """P35 Every picture decodes whole, in the requested format and size; n of them differ."""
    answer = once(GENERATE, image_body(size="160x96", output_format=form, n=2, quality="low")).json
    drawn = [decoded(item) for item in answer["data"]]
    assert [(picture.size, picture.format) for picture in drawn] == [((160, 96), name)] * 2
    assert answer["data"][0] != answer["data"][1]
    assert (answer["size"], answer["quality"], answer["output_format"]) == ("160x96", "low", form)
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens_details"] == {"text_tokens": 3, "image_tokens": 0}


def test_a_picture_is_square_by_default() -> None:
    """Without a size, and with auto, a picture is 1024x1024."""
    for size in ({}, {"size": "auto"}):
        body = {"model": "gpt-image-2", "prompt": "fox", **size}
        assert decoded(once(GENERATE, body).json["data"][0]).size == (1024, 1024)


def test_the_label_and_the_words_are_visible() -> None:
    """A picture has a dark SIMULATED band with white letters, and the prompt's ink below it."""
    assert LABEL == "SIMULATED"
    options: dict[str, Any] = {"size": (512, 512), "seed": 5, "transparent": False, "form": "png"}
    blank, written = (
        Image.open(io.BytesIO(draw(text, **options))).convert("L") for text in ("", "A red fox")
    )
    band = blank.crop((0, 0, 512, 40))
    assert band.getextrema()[0] < 60  # type: ignore[operator]
    assert band.getextrema()[1] == 255
    below = (0, 60, 512, 512)
    assert blank.crop(below).getextrema()[0] > 150  # type: ignore[operator]
    assert written.crop(below).getextrema()[0] < 60  # type: ignore[operator]


@given(st.text(max_size=80), st.sampled_from([(16, 16), (48, 16), (64, 160)]))
def test_any_prompt_can_be_drawn(prompt: str, size: tuple[int, int]) -> None:
    """Any script, control characters and lone surrogates are drawn, the same every time."""
    options: dict[str, Any] = {"size": size, "seed": 1, "transparent": False, "form": "png"}
    assert draw(prompt, **options) == draw(prompt, **options)


@pytest.mark.parametrize("form", ["png", "webp"])
def test_a_transparent_background_is_transparent(form: str) -> None:
    """background: transparent leaves the ground clear in PNG and WebP."""
    picture = decoded(
        once(GENERATE, image_body(background="transparent", output_format=form)).json["data"][0]
    )
    assert picture.convert("RGBA").getpixel((63, 47)) == (0, 0, 0, 0)


def edit(*files: tuple[str, bytes, str, str], **fields: str) -> Answer:
    answer: Answer = talk(lambda client: client.send(EDIT, data=form_of(*files, **fields)))
    return answer


def test_an_edit_is_drawn_over_the_first_image() -> None:
    """The edited picture shows the first image and not the second; the mask's hole is tinted."""
    first, second = png((80, 64), colour=(200, 0, 0)), png((80, 64), colour=(0, 0, 200))
    files = [("image[]", first, "a.png", "image/png"), ("image[]", second, "b.png", "image/png")]
    plain = decoded(edit(*files, n="1").json["data"][0])
    assert plain.size == (80, 64)
    assert plain.convert("RGB").getpixel((79, 20)) == (200, 0, 0)
    hole = png((80, 64), mode="RGBA", colour=(0, 0, 0, 0))
    masked = decoded(edit(*files, ("mask", hole, "m.png", "image/png")).json["data"][0])
    assert masked.convert("RGB").getpixel((79, 20)) != (200, 0, 0)


@pytest.mark.parametrize(
    ("files", "param", "code"),
    [
        ([], "image", "missing_required_parameter"),
        ([("image", png(), "", "image/png")], "image", "invalid_file"),
        (
            [("image", png(), "a.png", "application/octet-stream")],
            "image",
            "unsupported_file_mimetype",
        ),
        ([("image", png()[:60], "a.png", "image/png")], "image", "invalid_image_file"),
        ([("image", b"<svg/>", "a.png", "image/png")], "image", "invalid_image_file"),
        ([GOOD] * 17, "image", "array_above_max_length"),
        ([GOOD, ("mask", png((8, 8), "RGBA"), "m.png", "image/png")], "mask", "invalid_image_mask"),
        ([GOOD, ("mask", png(), "m.png", "image/png")], "mask", "invalid_image_mask"),
        (
            [GOOD, ("mask", png(mode="RGBA"), "m.png", "image/webp")],
            "mask",
            "unsupported_file_mimetype",
        ),
        ([GOOD, ("photo", png(), "a.png", "image/png")], "photo", "unknown_parameter"),
    ],
)
def test_an_edit_checks_its_files(
    files: list[tuple[str, bytes, str, str]], param: str, code: str
) -> None:
    """Files that the API would refuse are refused, naming the field and the reason."""
    answer = edit(*files)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code)


def test_an_edit_takes_sixteen_images_and_needs_a_prompt() -> None:
    """Sixteen files are taken; without a prompt, or as JSON, an edit is refused."""
    assert edit(*[("image[]", png(), "a.png", "image/png")] * 16).status == 200
    assert edit(GOOD, prompt="").error["param"] == "prompt"
    assert once(EDIT, image_body()).status == 400
