"""The official error shape, and the refusals of the API that the simulator gives."""

from __future__ import annotations

import json
from collections.abc import Mapping

INVALID = "invalid_request_error"


class RefusalError(Exception):
    """An official error answer: HTTP `status`, extra `headers`, and a `body` ready to send."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make the answer.

        status: of HTTP
        message: for people
        kind: the error's `type`
        param: the parameter that is wrong
        code: the error's code
        headers: sent besides the usual ones
        """
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        error = {"message": message, "type": kind, "param": param, "code": code}
        self.body = json.dumps({"error": error}).encode()


def missing(param: str) -> RefusalError:
    """400: a required parameter is not there."""
    return RefusalError(
        400,
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )


def invalid(param: str, message: str, code: str = "invalid_value") -> RefusalError:
    """400: `param` has a value that the API does not take; `message` says what it takes."""
    return RefusalError(400, f"Invalid '{param}': {message}", param=param, code=code)


def not_json(message: str) -> RefusalError:
    """400: the body cannot be read."""
    return RefusalError(400, f"We could not parse the body of your request: {message}")


def no_model(model: str) -> RefusalError:
    """404: the model is unknown."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return RefusalError(404, message, code="model_not_found")


def policy(*, picture: bool = False) -> RefusalError:
    """400: the content is refused; image endpoints name it differently."""
    message = "Your request was rejected by the safety system (simulated)."
    if picture:
        return RefusalError(
            400, message, kind="image_generation_user_error", code="moderation_blocked"
        )
    return RefusalError(400, message, code="content_policy_violation")


def no_key() -> RefusalError:
    """401: no bearer key was sent."""
    message = (
        "You didn't provide an API key. Send it in an Authorization header as Bearer YOUR_KEY."
    )
    return RefusalError(401, message)


def wrong_key(key: str) -> RefusalError:
    """401: the key is not the right one; the message shows it masked, as the API does."""
    return RefusalError(401, f"Incorrect API key provided: {_masked(key)}.", code="invalid_api_key")


def _masked(key: str) -> str:
    """Four characters at either end of a key of 16 or more; of a shorter one only stars."""
    return f"{key[:4]}{'*' * (len(key) - 8)}{key[-4:]}" if len(key) >= 16 else "*" * len(key)
