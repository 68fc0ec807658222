"""Estimates how many tokens a request will be charged, from the usage that answers report."""

from __future__ import annotations

from batchgen.replies import Usage
from batchgen.requests import TYPICAL_PICTURE_TOKENS, Request

# Tokens for each byte of a request before the first answer.
INITIAL_TOKENS_PER_BYTE = 0.3

# The weight of each new answer in the means: about the last 50 answers count.
FORGETTING = 0.02

# The weight of each new answer in the mean length of answers, and that mean before the first answer
# (tokens).
ANSWER_FORGETTING = 0.1
INITIAL_ANSWER = 256.0

# The most that is added to an estimate for what it may miss, as a share.
MAX_MARGIN = 0.03

# Regularisation: sizes must be more unequal than this to tell the intercept from the slope.
RIDGE = 0.02


class TokenEstimate:
    """Tokens as the server charges them: the input, plus the answer's cap up front.

    The input of a text without pictures is a straight line over its bytes. Its slope is the tokens
    for each byte. Its intercept is below 0 where the body's own marks (names, roles) cost bytes and
    no tokens. The line is fitted by weighted least squares with the weights 1/size (a linear model
    whose error variance grows with size; see Draper and Smith, "Applied Regression Analysis", on
    weighted least squares), over exponentially weighted means. With these weights the misses of
    large and of small prompts even out among themselves.

    For a request without a cap, the answer counts as long as the mean answer.
    """

    def __init__(self) -> None:
        self._slope = INITIAL_TOKENS_PER_BYTE
        self._intercept = 0.0
        # Means over the last answers: bytes, 1 / bytes, tokens, tokens / bytes, and the share that
        # the line missed by.
        self._bytes = self._inverse = self._tokens = self._ratio = self._missed = 0.0
        self._answers = 0
        self._mean_answer = INITIAL_ANSWER

    def of(self, request: Request) -> float:
        """The tokens that a request will be charged.

        The estimate is rather too high than too low: the server enforces the limit too.
        """
        answer = self._mean_answer if request.answer_bound is None else request.answer_bound
        text = self._fitted(request.text_bytes)
        if not request.unbounded_by:
            # No token is shorter than a byte, however few answers the line was fitted to.
            text = min(text, request.text_bytes)
        pictures = request.input_pictures * TYPICAL_PICTURE_TOKENS
        return text * (1 + min(self._missed, MAX_MARGIN)) + pictures + answer

    def learn(self, request: Request, usage: Usage) -> None:
        """Learn from the usage of an answer."""
        if usage.input_tokens is not None and request.text_bytes and not request.input_pictures:
            # More tokens than bytes are the server's mistake, unless it reads more than the body.
            most = usage.input_tokens if request.unbounded_by else request.text_bytes
            self._fit(request.text_bytes, min(usage.input_tokens, most))
        if usage.output_tokens is not None:
            self._mean_answer += ANSWER_FORGETTING * (usage.output_tokens - self._mean_answer)

    def _fitted(self, size: float) -> float:
        return max(0.0, self._intercept + self._slope * size)

    def _fit(self, size: int, tokens: int) -> None:
        self._answers += 1
        weight = max(FORGETTING, 1 / self._answers)
        # The first answer does not show how well the line fits: the line was not fitted yet.
        if self._answers > 1:
            fitted = self._fitted(size)
            self._missed += weight * (abs(tokens - fitted) / max(1.0, fitted) - self._missed)
        self._bytes += weight * (size - self._bytes)
        self._inverse += weight * (1 / size - self._inverse)
        self._tokens += weight * (tokens - self._tokens)
        self._ratio += weight * (tokens / size - self._ratio)
        # 0 when all sizes are equal: then answers do not show an intercept.
        spread = self._bytes * self._inverse - 1 + RIDGE
        self._intercept = min((self._ratio * self._bytes - self._tokens) / spread, self._tokens)
        self._slope = (self._tokens - self._intercept) / self._bytes
