"""The simulated answers: the official shapes of every endpoint, and what their words depend on."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from typing import Any

import openai
import pytest
from conversation import (
    CHAT,
    GENERATE,
    KEY,
    Answer,
    Client,
    chat_body,
    decoded,
    image_body,
    once,
    png,
    talk,
)
from hypothesis import given
from hypothesis import strategies as st

from batchgen.simulator import Settings, Simulator
from batchgen.simulator.texts import cut, reply, tokens


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


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_json_answers_are_json(kind: str) -> None:
    """json_object gives an object that is marked as simulated, in chat and responses."""
    if kind == "chat":
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
