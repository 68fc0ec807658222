"""The simulator answers as the API does: shapes, refusals, limits, and every way to misbehave."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchgen.errors import InputError
from batchgen.simulator import DEFAULT_FAULTS, FAULTS, RequestInfo, Settings, Simulator, serve
from batchgen.simulator.draws import roll
from batchgen.simulator.limits import Bucket, Cost, Limits, go_duration
from batchgen.simulator.pictures import LABEL, draw
from batchgen.simulator.refusals import RefusalError
from batchgen.simulator.texts import cut, reply, tokens

CHAT = "/chat/completions"
GENERATE = "/images/generations"
EDIT = "/images/edits"
KEY = "sk-canary-0123456789"


class Answer:
    """One HTTP answer, read whole."""

    def __init__(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        self.status, self.headers, self.raw = response.status, response.headers, raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> Any:
        return self.json["error"]


class Client:
    """Posts to one simulator."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator, self.session = simulator, session

    async def send(self, path: str, method: str = "POST", **options: Any) -> Answer:
        async with self.session.request(method, self.simulator.url + path, **options) as response:
            return Answer(response, await response.read())

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.send(path, json=body, headers=headers)


def talk(
    conversation: Callable[[Client], Awaitable[Any]],
    settings: Settings | None = None,
    **options: Any,
) -> Any:
    """Run `conversation` with a simulator of its own and return what it returns."""

    async def main() -> Any:
        async with Simulator(settings, **options) as simulator, aiohttp.ClientSession() as session:
            return await asyncio.wait_for(conversation(Client(simulator, session)), 60)

    return asyncio.run(main())


def once(path: str, body: Any, settings: Settings | None = None, **options: Any) -> Answer:
    """The answer to one request."""
    answer: Answer = talk(lambda client: client.post(path, body), settings, **options)
    return answer


def chat_body(text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-5.6-luna", "messages": [{"role": "user", "content": text}], **more}


def image_body(**more: Any) -> dict[str, Any]:
    return {"model": "gpt-image-2", "prompt": "A red fox", "size": "64x48", **more}


def decoded(item: dict[str, str]) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(item["b64_json"], validate=True)))
    picture.load()
    return picture


def png(size: tuple[int, int] = (40, 30), mode: str = "RGB", colour: Any = "navy") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, "PNG")
    return buffer.getvalue()


# --- shapes ---------------------------------------------------------------------------------------


def test_chat_has_the_official_shape_and_is_labelled() -> None:
    """A chat answer has the API's choices, usage, tier and headers, and is marked as simulated."""
    answer = once(CHAT, chat_body("Write a poem", n=2, service_tier="flex"))
    body = answer.json
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"].startswith("req_sim_")
    assert answer.headers["openai-processing-ms"].isdigit()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-sim-")
    assert (body["model"], body["service_tier"]) == ("gpt-5.6-luna", "flex")
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    first, second = (choice["message"]["content"] for choice in body["choices"])
    assert first.startswith("[simulated] gpt-5.6-luna answers to: Write a poem")
    assert first != second
    assert {choice["finish_reason"] for choice in body["choices"]} == {"stop"}
    usage = body["usage"]
    assert usage["prompt_tokens"] == 3
    assert usage["completion_tokens"] == tokens(first) + tokens(second)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 0


def test_responses_have_the_official_shape() -> None:
    """A response holds one assistant message with output_text, and its own names of usage."""
    items = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": [{"type": "input_text", "text": "Last"}]},
    ]
    body = once(
        "/responses", {"model": "gpt-6-sol", "input": items, "instructions": "Be calm"}
    ).json
    assert (body["object"], body["status"], body["incomplete_details"]) == (
        "response",
        "completed",
        None,
    )
    message = body["output"][0]
    assert (message["type"], message["role"], message["status"]) == (
        "message",
        "assistant",
        "completed",
    )
    assert message["content"][0]["type"] == "output_text"
    assert message["content"][0]["text"].startswith("[simulated] gpt-6-sol answers to: Last")
    assert message["content"][0]["annotations"] == []
    usage = body["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens_details"] == {"reasoning_tokens": 0}


def test_completions_answer_each_prompt() -> None:
    """A list of prompts gets n choices each, in order, with running indexes."""
    body = once(
        "/completions", {"model": "m", "prompt": ["ECHO:a", "ECHO:b"], "n": 2, "max_tokens": 100}
    ).json
    assert body["object"] == "text_completion"
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [
        (0, "a"),
        (1, "a"),
        (2, "b"),
        (3, "b"),
    ]


def test_embeddings_as_base64_and_floats_are_the_same_unit_vectors() -> None:
    """Both encodings carry the same float32 unit vectors, and a text's vector does not depend on
    its neighbours."""

    async def conversation(client: Client) -> tuple[Any, Any, Any]:
        body = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 16}
        floats = await client.post("/embeddings", body)
        packed = await client.post("/embeddings", body | {"encoding_format": "base64"})
        alone = await client.post("/embeddings", body | {"input": "two"})
        return floats.json, packed.json, alone.json

    floats, packed, alone = talk(conversation)
    vectors = [item["embedding"] for item in floats["data"]]
    assert [
        list(struct.unpack("<16f", base64.b64decode(item["embedding"]))) for item in packed["data"]
    ] == vectors
    assert alone["data"][0]["embedding"] == vectors[1] != vectors[0]
    assert math.isclose(math.hypot(*vectors[0]), 1, rel_tol=1e-6)
    assert [item["index"] for item in floats["data"]] == [0, 1]
    assert floats["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_moderations_flag_the_marker_and_never_refuse_it() -> None:
    """A moderation gives one result for each text and flags those with [policy]."""
    body = once("/moderations", {"input": ["fine", "not [policy] fine"]}).json
    assert [result["flagged"] for result in body["results"]] == [False, True]
    assert body["results"][1]["categories"]["illicit"] is True
    assert body["results"][0]["category_scores"].keys() == body["results"][0]["categories"].keys()


def test_models_are_listed() -> None:
    """GET /v1/models gives a list object."""
    body = talk(lambda client: client.send("/models", "GET")).json
    assert body["object"] == "list"
    assert {"id", "object", "created", "owned_by"} == body["data"][0].keys()


def test_the_openai_client_reads_every_endpoint() -> None:
    """The installed openai client parses every kind of answer, and maps the errors."""

    async def conversation(simulator: Simulator) -> None:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=simulator.url, max_retries=0) as client:
            chat = await client.chat.completions.create(**chat_body("ECHO:hi"))
            assert (
                chat.choices[0].message.content,
                chat.usage and chat.usage.completion_tokens,
            ) == ("hi", 1)
            response = await client.responses.create(
                model="m", input="ECHO:hi there", max_output_tokens=1
            )
            assert (response.output_text, response.status) == ("hi t", "incomplete")
            completion = await client.completions.create(model="m", prompt="ECHO:x")
            assert completion.choices[0].text == "x"
            drawn = await client.images.generate(
                model="gpt-image-2", prompt="fox", size="64x64", n=2
            )
            assert drawn.data is not None
            assert [decoded(item.model_dump()).size for item in drawn.data] == [(64, 64)] * 2
            files = [("a.png", png(), "image/png"), ("b.png", png(), "image/png")]
            mask = ("m.png", png(mode="RGBA", colour=(0, 0, 0, 0)), "image/png")
            edited = await client.images.edit(
                model="gpt-image-2", prompt="hat", image=files, mask=mask, n=1
            )
            assert edited.usage is not None
            assert edited.usage.input_tokens_details.image_tokens > 0
            single = await client.images.edit(
                model="gpt-image-2", prompt="hat", image=files[0], size="64x64"
            )
            assert single.data is not None
            assert decoded(single.data[0].model_dump()).size == (64, 64)
            vectors = await client.embeddings.create(model="text-embedding-3-large", input="x")
            assert len(vectors.data[0].embedding) == 3072
            moderation = await client.moderations.create(input="x")
            assert moderation.results[0].flagged is False
            assert [model.id async for model in client.models.list()]
            with pytest.raises(openai.NotFoundError) as caught:
                await client.chat.completions.create(
                    model="missing-x", messages=[{"role": "user", "content": "x"}]
                )
            assert (caught.value.code, (caught.value.request_id or "")[:8]) == (
                "model_not_found",
                "req_sim_",
            )
            with pytest.raises(openai.AuthenticationError):
                await client.with_options(api_key="wrong").models.list()

    async def main() -> None:
        async with Simulator(Settings(key=KEY)) as simulator:
            await asyncio.wait_for(conversation(simulator), 60)

    asyncio.run(main())


# --- answers --------------------------------------------------------------------------------------


def test_answers_depend_on_the_body_alone() -> None:
    """Two servers give the same text, id and picture for one body in any key order, and others for
    another body."""
    body = chat_body("Same")
    turned = dict(reversed(body.items()))

    def stable(answer: Answer) -> dict[str, Any]:
        return {name: value for name, value in answer.json.items() if name != "created"}

    assert stable(once(CHAT, body)) == stable(once(CHAT, turned))
    assert stable(once(CHAT, body)) != stable(once(CHAT, chat_body("Other")))
    assert stable(once(GENERATE, image_body())) == stable(once(GENERATE, image_body()))


@given(st.text(), st.sampled_from([CHAT, "/responses", "/completions"]))
def test_echo_returns_any_text_unchanged(text: str, path: str) -> None:
    """P28 the text after ECHO: comes back exactly, in the body of every text endpoint."""
    from_chat: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": f"ECHO:{text}"},
        ]
    }
    bodies: dict[str, dict[str, Any]] = {
        CHAT: from_chat,
        "/responses": {"input": f"ECHO:{text}"},
        "/completions": {"prompt": f"ECHO:{text}"},
    }
    assert reply({"model": "m", **bodies[path]}, "0" * 64) == text


def test_echo_survives_the_socket() -> None:
    """P28 line ends, NUL, U+2028, a BOM, emoji and a lone surrogate cross the socket unchanged."""
    text = (
        "a\r\nb\rc\n\x00 \u2028\ufeff \U0001f468\u200d\U0001f469 \u202eabc \ud800 \"'"
        + "x" * 1_000_000
    )
    answer = once(CHAT, chat_body(f"ECHO:{text}"))
    assert answer.json["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat_body("ECHO:" + "ab" * 50, max_completion_tokens=5)),
        (CHAT, chat_body("ECHO:" + "ab" * 50, max_tokens=5)),
        ("/completions", {"model": "m", "prompt": "ECHO:" + "ab" * 50, "max_tokens": 5}),
    ],
)
def test_an_answer_above_its_bound_is_cut(path: str, body: dict[str, Any]) -> None:
    """An answer above its bound ends with finish_reason length, and bills only the bound."""
    answer = once(path, body).json
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert (choice.get("text") or choice["message"]["content"]) == "ab" * 10
    assert answer["usage"]["completion_tokens"] == 5


def test_a_response_above_its_bound_is_incomplete() -> None:
    """max_output_tokens cuts a response, which shows in its status and that of its message."""
    body = once("/responses", {"model": "m", "input": "Hi", "max_output_tokens": 2}).json
    assert (body["status"], body["output"][0]["status"]) == ("incomplete", "incomplete")
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}


@given(st.text(), st.integers(0, 20))
def test_a_cut_ends_at_a_whole_character(text: str, most: int) -> None:
    """A cut text is the beginning of the whole one, and within the bound."""
    short, was_cut = cut(text, most)
    assert text.startswith(short)
    assert tokens(short) <= most
    assert was_cut == (tokens(text) > most)


@pytest.mark.parametrize("place", ["chat", "responses"])
def test_json_answers_are_json(place: str) -> None:
    """json_object gives an object that is marked as simulated, in chat and responses."""
    if place == "chat":
        body = once(CHAT, chat_body(response_format={"type": "json_object"})).json
        text = body["choices"][0]["message"]["content"]
    else:
        wanted = {"model": "m", "input": "x", "text": {"format": {"type": "json_object"}}}
        text = once("/responses", wanted).json["output"][0]["content"][0]["text"]
    assert json.loads(text)["simulated"] is True


def test_a_schema_is_filled_by_type() -> None:
    """json_schema gives every required property a value of its type; a closed schema gets no other
    property."""
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "count": {"type": "integer", "minimum": 3},
            "price": {"type": ["number", "null"]},
            "sold": {"type": "boolean"},
            "colour": {"enum": ["red", "blue"]},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
            "size": {"$ref": "#/$defs/size"},
            "optional": {"type": "string"},
        },
        "required": ["name", "count", "price", "sold", "colour", "tags", "size"],
        "additionalProperties": False,
        "$defs": {"size": {"type": "object", "properties": {"w": {"const": 7}}, "required": ["w"]}},
    }
    chat = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    value = json.loads(reply(chat_body("Hi", response_format=chat), "0" * 64))
    label = "[simulated] Hi"
    assert value == {
        "name": label,
        "count": 3,
        "price": 0,
        "sold": True,
        "colour": "red",
        "tags": [label, label],
        "size": {"w": 7},
    }
    opened = {"type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {}}}
    assert json.loads(
        reply({"model": "m", "input": "x", "text": {"format": opened}}, "0" * 64)
    ) == {"simulated": True}
    endless = {**schema, "required": ["next"]}
    looped = {"type": "json_schema", "json_schema": {"schema": endless}}
    assert "next" in json.loads(reply(chat_body("Hi", response_format=looped), "0" * 64))


# --- pictures -------------------------------------------------------------------------------------


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


def form_of(*files: tuple[str, bytes, str, str], **fields: str) -> aiohttp.FormData:
    texts = {"model": "gpt-image-2", "prompt": "Add a hat", "size": "80x64", **fields}
    form = aiohttp.FormData(texts, default_to_multipart=True)
    for name, content, filename, mime in files:
        form.add_field(name, content, filename=filename, content_type=mime)
    return form


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


GOOD = ("image", png(), "a.png", "image/png")


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


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        (CHAT, {"messages": []}, 400, "model", "missing_required_parameter"),
        (CHAT, {"model": "m"}, 400, "messages", "missing_required_parameter"),
        (CHAT, {"model": "m", "messages": []}, 400, "messages", "empty_array"),
        (CHAT, {"model": "m", "messages": ["x"]}, 400, "messages[0]", "invalid_type"),
        (
            CHAT,
            {"model": "m", "messages": [{"content": "x"}]},
            400,
            "messages[0].role",
            "missing_required_parameter",
        ),
        (CHAT, {"model": 5, "messages": [{}]}, 400, "model", "invalid_type"),
        (CHAT, chat_body(model="missing-x"), 404, None, "model_not_found"),
        (CHAT, chat_body("so [policy] so"), 400, None, "content_policy_violation"),
        (CHAT, chat_body(temperature=2.1), 400, "temperature", "decimal_above_max_value"),
        (CHAT, chat_body(temperature=-1), 400, "temperature", "decimal_below_min_value"),
        (CHAT, chat_body(temperature="hot"), 400, "temperature", "invalid_type"),
        (CHAT, chat_body(n=0), 400, "n", "integer_below_min_value"),
        (CHAT, chat_body(max_completion_tokens=1.5), 400, "max_completion_tokens", "invalid_type"),
        (CHAT, chat_body(stream=True), 400, "stream", "unsupported_value"),
        ("/responses", {"model": "m"}, 400, "input", "missing_required_parameter"),
        ("/responses", {"model": "m", "input": "[policy]"}, 400, None, "content_policy_violation"),
        (
            "/responses",
            {"model": "m", "input": "x", "background": True},
            400,
            "background",
            "unsupported_value",
        ),
        ("/completions", {"model": "m"}, 400, "prompt", "missing_required_parameter"),
        ("/embeddings", {"model": "m"}, 400, "input", "missing_required_parameter"),
        ("/embeddings", {"model": "m", "input": ""}, 400, "input", "invalid_input"),
        ("/embeddings", {"model": "m", "input": ["a", ""]}, 400, "input", "invalid_input"),
        (
            "/embeddings",
            {"model": "m", "input": ["a"] * 2049},
            400,
            "input",
            "array_above_max_length",
        ),
        ("/moderations", {}, 400, "input", "missing_required_parameter"),
        (GENERATE, {"model": "m"}, 400, "prompt", "missing_required_parameter"),
        (GENERATE, image_body(prompt="[policy]"), 400, None, "moderation_blocked"),
        (GENERATE, image_body(prompt="x" * 32_001), 400, "prompt", "string_above_max_length"),
        (GENERATE, image_body(size="65x64"), 400, "size", "invalid_value"),
        (GENERATE, image_body(size="64x256"), 400, "size", "invalid_value"),
        (GENERATE, image_body(n=11), 400, "n", "integer_above_max_value"),
        (GENERATE, image_body(output_format="gif"), 400, "output_format", "invalid_value"),
        (
            GENERATE,
            image_body(background="transparent", output_format="jpeg"),
            400,
            "background",
            "invalid_value",
        ),
        ("/nowhere", {}, 404, None, None),
    ],
)
def test_refusals_have_the_official_shape(
    path: str, body: Any, status: int, param: str | None, code: str
) -> None:
    """Each refusal has the API's status, param and code, in its own error shape."""
    answer = once(path, body)
    assert answer.error.keys() == {"message", "type", "param", "code"}
    assert (answer.status, answer.error["param"], answer.error["code"]) == (status, param, code)
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b"null", b'{"a": NaN}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    """Broken, deep or wrongly typed JSON gets 400, not a crash."""
    answer = talk(
        lambda client: client.send(CHAT, data=raw, headers={"Content-Type": "application/json"})
    )
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


def test_the_wrong_method_and_a_path_without_v1_are_refused() -> None:
    """GET on a POST endpoint is 405, and there is nothing outside /v1."""

    async def conversation(client: Client) -> None:
        assert (await client.send(CHAT, "GET")).status == 405
        assert (await client.send("/../chat/completions", json=chat_body())).status == 404

    talk(conversation)


def test_the_key_is_checked_and_never_shown() -> None:
    """P40 a missing key is 401 without a code; a wrong one is masked; the right one passes."""

    async def conversation(client: Client) -> None:
        missing = await client.post(CHAT, chat_body())
        assert (missing.status, missing.error["code"]) == (401, None)
        wrong = await client.post(CHAT, chat_body(), Authorization="Bearer sk-wrong-0123456789")
        assert (wrong.status, wrong.error["code"]) == (401, "invalid_api_key")
        assert wrong.error["message"].startswith("Incorrect API key provided: sk-w")
        assert "sk-wrong-0123456789" not in wrong.error["message"]
        short = await client.post(CHAT, chat_body(), Authorization="Bearer secret")
        assert "secret" not in short.error["message"]
        assert (await client.post(CHAT, chat_body(), Authorization=f"Bearer {KEY}")).status == 200

    talk(conversation, Settings(key=KEY))


# --- limits ---------------------------------------------------------------------------------------


class Clock:
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def waited(limits: Limits, clock: Clock, cost: Cost, key: str = "") -> float:
    """Seconds that a client which follows retry-after-ms waits until `cost` is admitted."""
    begun = clock.now
    while True:
        try:
            limits.admit(key, cost)
            return clock.now - begun
        except RefusalError as refusal:
            clock.now += int(refusal.headers["retry-after-ms"]) / 1000


def test_requests_pass_at_the_limit_and_no_faster() -> None:
    """P26 120 a minute: two at once, then one each half second."""
    clock = Clock()
    limits = Limits(rpm=120, clock=clock)
    waits = [waited(limits, clock, Cost(model="m", tokens=1)) for _ in range(122)]
    assert waits[:2] == [0, 0]
    assert all(wait == pytest.approx(0.5, abs=0.002) for wait in waits[2:])
    assert clock.now - 1000 == pytest.approx(60, abs=0.2)


def test_tokens_are_charged_up_front() -> None:
    """P26 6,000 tokens a minute are 100 a second, within the burst of one second."""
    clock = Clock()
    limits = Limits(tpm=6000, clock=clock)
    sizes = [50, 50, 30, 70, 100, 5, 95]
    for size in sizes:
        waited(limits, clock, Cost(model="m", tokens=size))
    assert clock.now - 1000 == pytest.approx((sum(sizes) - 100) / 100, abs=0.02)


def test_a_large_request_passes_once_enough_has_flowed_in() -> None:
    """P27 a request above the burst waits for its own size; one above the minute's limit never
    passes."""
    clock = Clock()
    limits = Limits(tpm=6000, clock=clock)
    limits.admit("", Cost(model="m", tokens=100))
    assert waited(limits, clock, Cost(model="m", tokens=3000)) == pytest.approx(30, abs=0.01)
    assert waited(limits, clock, Cost(model="m", tokens=10)) == pytest.approx(0.1, abs=0.01)
    with pytest.raises(RefusalError, match="Request too large") as caught:
        limits.admit("", Cost(model="m", tokens=6001))
    assert "retry-after" not in caught.value.headers


@given(st.lists(st.tuples(st.integers(1, 600), st.floats(0, 3)), max_size=40))
def test_a_paced_caller_is_never_refused(steps: list[tuple[int, float]]) -> None:
    """A client that lets each request's tokens flow in before it sends is never refused."""
    bucket, now = Bucket(600, 0), 0.0
    for amount, pause in steps:
        now += amount / bucket.rate + pause
        assert bucket.wait(amount, now) == 0
        bucket.take(amount, now)


def test_a_refused_request_costs_nothing_in_any_dimension() -> None:
    """A request refused for its images leaves requests and tokens as they were."""
    clock = Clock()
    limits = Limits(rpm=600, tpm=60_000, ipm=60, clock=clock)
    limits.admit("", Cost(model="m", tokens=10, images=1))
    before = limits.admit("", Cost(model="m", tokens=0))
    for _ in range(5):
        with pytest.raises(RefusalError) as caught:
            limits.admit("", Cost(model="m", tokens=10, images=1))
        assert (caught.value.status, caught.value.headers["retry-after"]) == (429, "1")
        assert caught.value.headers["x-ratelimit-remaining-images"] == "0"
    after = limits.admit("", Cost(model="m", tokens=0))
    assert (
        before["x-ratelimit-remaining-tokens"] == after["x-ratelimit-remaining-tokens"] == "59990"
    )
    assert (before["x-ratelimit-remaining-requests"], after["x-ratelimit-remaining-requests"]) == (
        "598",
        "597",
    )


def test_each_key_has_its_own_limits() -> None:
    """One key's use leaves another's limit alone."""
    clock = Clock()
    limits = Limits(rpm=60, clock=clock)
    cost = Cost(model="m", tokens=1)
    assert waited(limits, clock, cost, "a") == 0
    assert waited(limits, clock, cost, "b") == 0
    assert waited(limits, clock, cost, "a") == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-1, "0s"),
        (0.017, "17ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (8.64, "8.64s"),
        (72, "1m12s"),
        (172.8, "2m52.8s"),
        (360, "6m0s"),
        (5400, "1h30m0s"),
    ],
)
def test_durations_read_as_go_prints_them(seconds: float, text: str) -> None:
    """The reset headers look like the API's."""
    assert go_duration(seconds) == text


def test_limits_over_the_socket() -> None:
    """P22 a success carries the x-ratelimit headers; a 429 its type, and retry-after in seconds and
    in milliseconds."""

    async def conversation(client: Client) -> None:
        passed = await client.post(CHAT, chat_body("four", max_completion_tokens=20, n=2))
        assert passed.headers["x-ratelimit-limit-requests"] == "1"
        assert passed.headers["x-ratelimit-remaining-requests"] == "0"
        assert passed.headers["x-ratelimit-reset-requests"] in ("1m0s", "59.999s")
        assert passed.headers["x-ratelimit-remaining-tokens"] == str(6000 - 1 - 40)
        refused = await client.post(CHAT, chat_body())
        assert (refused.status, refused.error["type"], refused.error["code"]) == (
            429,
            "requests",
            "rate_limit_exceeded",
        )
        assert int(refused.headers["retry-after"]) == 60
        assert 50_000 < int(refused.headers["retry-after-ms"]) <= 60_000
        large = await client.post(CHAT, chat_body(max_completion_tokens=9000))
        assert (large.status, large.error["type"]) == (429, "tokens")
        assert client.simulator.requests.limited == 2
        client.simulator.settings = replace(client.simulator.settings, rpm=None, tpm=None)
        free = await client.post(CHAT, chat_body())
        assert free.status == 200
        assert not [name for name in free.headers if name.lower().startswith("x-ratelimit")]

    talk(conversation, Settings(rpm=1, tpm=6000))


def test_failed_requests_count_against_the_limits() -> None:
    """A refused body is charged like any other request."""

    async def conversation(client: Client) -> None:
        assert (await client.post(CHAT, {})).status == 400
        assert (await client.post(CHAT, chat_body())).status == 429

    talk(conversation, Settings(rpm=1))


def test_images_are_limited_by_their_number() -> None:
    """ipm counts every picture of a request, before it is drawn."""

    async def conversation(client: Client) -> None:
        assert (await client.post(GENERATE, image_body(n=2))).status == 200
        refused = await client.post(GENERATE, image_body(n=2))
        assert (refused.status, refused.error["type"]) == (429, "images")
        assert (await client.post(CHAT, chat_body())).status == 200

    talk(conversation, Settings(ipm=2))


# --- faults ---------------------------------------------------------------------------------------

ERRORS = {
    "429": (429, "rate_limit_exceeded"),
    "500": (500, None),
    "503": (503, "server_is_overloaded"),
    "200_error": (200, 502),
    "quota": (429, "insufficient_quota"),
    "401": (401, "invalid_api_key"),
    "403": (403, "unsupported_country"),
    "404_model": (404, "model_not_found"),
    "400_policy": (400, "content_policy_violation"),
}
JUNK = ("truncated", "wrong_json", "empty", "html", "html_502")
SOCKET = {
    "reset": aiohttp.ClientConnectionError,
    "hang": aiohttp.ClientConnectionError,
    "reset_body": aiohttp.ClientPayloadError,
}


def test_every_fault_is_tested() -> None:
    """P18 the tables below name every fault there is, and the mix holds none that ends a job."""
    assert {*ERRORS, *JUNK, *SOCKET} == set(FAULTS)
    assert not {"hang", "quota", "401", "403", "404_model", "400_policy"} & set(DEFAULT_FAULTS)


@pytest.mark.parametrize(
    ("fault", "status", "code"), [(name, *value) for name, value in ERRORS.items()]
)
def test_faults_that_are_errors(fault: str, status: int, code: Any) -> None:
    """P18 these faults are official errors with their status and code."""
    answer = once(CHAT, chat_body(), script=lambda _: fault)
    assert (answer.status, answer.error["code"]) == (status, code)
    if fault == "429":
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("1", "100")


@pytest.mark.parametrize("fault", JUNK)
def test_faults_that_are_junk(fault: str) -> None:
    """P18 these faults are whole HTTP answers with an unexpected body."""
    answer = once(CHAT, chat_body(), script=lambda _: fault)
    assert answer.status == (502 if fault == "html_502" else 200)
    assert answer.headers["content-type"].startswith(
        "text/html" if fault.startswith("html") else "application/json"
    )
    if fault == "wrong_json":
        assert not answer.json.get("choices")
    else:
        assert (answer.raw == b"") == (fault == "empty")
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(answer.raw)


@pytest.mark.parametrize(("fault", "error"), SOCKET.items())
def test_faults_at_the_socket(fault: str, error: type[Exception]) -> None:
    """P18 a reset comes before an answer or in the middle; a hang ends without an answer."""

    async def conversation(client: Client) -> None:
        with pytest.raises(error):
            await client.post(CHAT, chat_body())
        assert client.simulator.requests.faults == {fault: 1}
        assert client.simulator.requests.answered == 0
        assert (await client.send("/models", "GET")).status == 200

    talk(conversation, Settings(hang=0), script=lambda request: fault)


def test_a_hang_does_not_hold_up_the_stop() -> None:
    """A hanging request ends when its client disconnects or the simulator stops, and is in flight
    until then."""

    arrived = asyncio.Event()

    def script(_: RequestInfo) -> str:
        arrived.set()
        return "hang"

    async def conversation(client: Client) -> None:
        hanging = asyncio.ensure_future(client.post(CHAT, chat_body()))
        await arrived.wait()
        assert client.simulator.requests.in_flight == 1
        await client.simulator.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await hanging
        assert client.simulator.requests.in_flight == 0

    talk(conversation, Settings(hang=3600), script=script)


def outcomes(behaviour: Settings, bodies: list[dict[str, Any]], **options: Any) -> list[int]:
    """The HTTP status of each body in turn."""

    async def conversation(client: Client) -> list[int]:
        return [(await client.post(CHAT, body)).status for body in bodies]

    statuses: list[int] = talk(conversation, behaviour, **options)
    return statuses


def test_faults_are_drawn_the_same_on_every_run_and_a_retry_passes() -> None:
    """The seed, the body and its repetitions decide the fault; about the requested share is
    spoiled."""
    mixed = Settings(faults=0.3, fault_kinds=("500", "503"), seed=7)
    bodies = [chat_body(str(number)) for number in range(200)]
    first = outcomes(mixed, bodies)
    assert first == outcomes(mixed, bodies)
    assert first != outcomes(replace(mixed, seed=8), bodies)
    assert 35 <= sum(status != 200 for status in first) <= 85
    assert {500, 503} <= set(first)
    again = outcomes(mixed, [chat_body("0")] * 20)
    assert 200 in again
    assert set(again) != {200}


def test_a_script_names_faults_and_the_share_may_change_meanwhile() -> None:
    """A script sees number, path, body and repetitions of each request; settings can be replaced
    while it runs."""
    seen_by_script: list[RequestInfo] = []

    def script(request: RequestInfo) -> str | None:
        seen_by_script.append(request)
        return "500" if request.seen == 1 else None

    async def conversation(client: Client) -> None:
        assert [(await client.post(CHAT, chat_body())).status for _ in range(3)] == [500, 200, 200]
        assert [(request.n, request.seen) for request in seen_by_script] == [(1, 1), (2, 2), (3, 3)]
        assert (seen_by_script[0].path, seen_by_script[0].body) == (
            "/v1/chat/completions",
            chat_body(),
        )
        client.simulator.settings = replace(
            client.simulator.settings, faults=1, fault_kinds=("503",)
        )
        assert (await client.post(CHAT, chat_body())).status == 503
        stats = client.simulator.requests
        assert (stats.received, stats.answered, stats.faults) == (4, 2, {"500": 1, "503": 1})

    talk(conversation, script=script)


# --- the server -----------------------------------------------------------------------------------


def test_requests_are_counted_and_recorded() -> None:
    """Stats count each kind of end; the log holds path, headers and body, if it is switched on."""

    async def conversation(client: Client) -> None:
        await client.post(CHAT, chat_body(), **{"X-Client-Request-Id": "abc"})
        await client.send(EDIT, data=form_of(GOOD, n="2"))
        await client.post(CHAT, {})
        stats, log = client.simulator.requests, client.simulator.log
        assert (stats.received, stats.answered, stats.refused, stats.in_flight) == (3, 2, 1, 0)
        assert stats.by_path == {"/v1/chat/completions": 2, "/v1/images/edits": 1}
        assert (log[0].path, log[0].body) == ("/v1/chat/completions", chat_body())
        assert log[0].headers["x-client-request-id"] == "abc"
        assert log[1].body is not None
        assert log[1].body["n"] == 2
        assert log[1].body["image"][0].startswith("sha256:")

    talk(conversation, record=True)
    assert talk(lambda client: _log_length(client)) == 0


async def _log_length(client: Client) -> int:
    await client.post(CHAT, chat_body())
    return len(client.simulator.log)


def test_the_peak_in_flight_is_seen() -> None:
    """The peak counts the requests that overlap."""

    async def conversation(client: Client) -> None:
        await asyncio.gather(*(client.post(CHAT, chat_body(str(number))) for number in range(8)))
        assert 1 < client.simulator.requests.peak <= 8

    talk(conversation, Settings(latency=0.02))


def test_it_listens_on_loopback_only() -> None:
    """Any other address is refused, and so is a port in use."""

    async def main() -> None:
        for host in ("0.0.0.0", "example.com", "192.0.2.1"):
            with pytest.raises(InputError, match="loopback only"):
                await Simulator().start(host)
        async with Simulator() as simulator:
            assert simulator.url.startswith("http://127.0.0.1:")
            port = int(simulator.url.split(":")[2].removesuffix("/v1"))
            with pytest.raises(InputError, match="another port"):
                await Simulator().start(port=port)

    asyncio.run(main())


def test_serve_runs_until_cancelled() -> None:
    """serve answers on its port, and frees it when cancelled."""

    async def main() -> None:
        async with Simulator() as simulator:
            port = int(simulator.url.split(":")[2].removesuffix("/v1"))
        server = asyncio.ensure_future(serve(Settings(), port))
        async with aiohttp.ClientSession() as session:
            status = 0
            while not status:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/v1/models") as response:
                        status = response.status
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0)
        server.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server
        again = Simulator()
        await again.start(port=port)
        await again.stop()
        assert status == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"faults": 1.1},
        {"faults": float("nan")},
        {"latency": -1},
        {"hang": math.inf},
        {"rpm": 0},
        {"tpm": -5},
        {"fault_kinds": ("50",)},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """A setting out of bounds is an InputError that names it."""
    with pytest.raises(
        InputError, match=next(iter(wrong)).removesuffix("_kinds").removesuffix("s")
    ):
        Settings(**wrong)


def test_latency_is_jittered_within_its_bounds() -> None:
    """The draws of latency and faults spread evenly from 0 to below 1, and differ between
    repetitions."""
    draws = [roll(0, "a" * 64, seen) for seen in range(1, 401)]
    for values in (
        [dice.fault for dice in draws],
        [dice.kind for dice in draws],
        [dice.jitter for dice in draws],
    ):
        assert all(0 <= value < 1 for value in values)
        assert sum(values) / len(values) == pytest.approx(0.5, abs=0.08)
        assert len(set(values)) == len(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 40) | st.floats(-3, 3) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "role", "type"]), inner)
    ),
    max_leaves=8,
)
FIELDS = (
    "n",
    "size",
    "input",
    "prompt",
    "messages",
    "temperature",
    "dimensions",
    "max_tokens",
    "text",
)
BODIES = st.fixed_dictionaries(
    {"model": st.just("m") | JSON},
    optional=dict.fromkeys((*FIELDS, "response_format", "quality"), JSON),
)
PATHS = [CHAT, "/responses", "/completions", "/embeddings", "/moderations", GENERATE]


@given(st.lists(st.tuples(st.sampled_from(PATHS), BODIES), min_size=20, max_size=40))
@settings(max_examples=25, deadline=None)
def test_no_body_crashes_the_server(calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Any JSON object is answered or refused officially, never with a 500."""

    async def conversation(client: Client) -> None:
        for path, body in calls:
            answer = await client.post(path, body)
            is_missing = str(body["model"]).startswith("missing-")
            assert answer.status in ((200, 400, 404) if is_missing else (200, 400)), (path, body)

    talk(conversation, Settings(rpm=1e9, tpm=1e9))
