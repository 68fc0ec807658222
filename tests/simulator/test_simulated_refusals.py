"""What the simulator refuses: with the status, code and shape of the API."""

from __future__ import annotations

from typing import Any

import pytest
from conversation import CHAT, GENERATE, KEY, Client, chat_body, image_body, once, talk

from batchgen.simulator import Settings


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
        (
            CHAT,
            chat_body([{"type": "file", "file": {"filename": "a.pdf"}}]),
            400,
            "messages[0].content[0].file.file_data",
            "missing_required_parameter",
        ),
        (
            CHAT,
            chat_body([{"type": "file", "file": {"file_data": "data:text/csv;base64,YQ=="}}]),
            400,
            "messages[0].content[0].file.file_data",
            "invalid_value",
        ),
        (
            "/responses",
            {
                "model": "m",
                "input": [
                    {"role": "user", "content": [{"type": "input_file", "file_data": "YQ=="}]}
                ],
            },
            400,
            "input[0].content[0].file_data",
            "invalid_value",
        ),
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
