"""How many tokens a request will be charged, learned from the usage that answers report."""

from __future__ import annotations

from batchgen.replies import Usage
from batchgen.requests import TYPICAL_PICTURE_TOKENS, Request

# Tokens for each byte of a request until answers tell; how much of what was learnt each answer replaces; the most that is
# added to an estimate for what it may miss, as a share; and how unequal sizes must be to tell a constant from a slope.
FIRST_PER_BYTE = 0.3


FORGETTING = 0.02


MOST_MARGIN = 0.03


ALIKE = 0.02


class TokenEstimate:
    """Tokens as the server charges them: the input plus the answer's cap, up front.

    It learns from the usage that comes back. The input of a text without pictures is a line: tokens for each byte, and a
    constant, below 0 where the body's own marks (names, roles) cost bytes and no tokens. It is fitted by least squares, each
    request weighted by 1/size, for what texts miss it by grows with their size: so the misses of large and of small prompts
    even out among themselves. The mean answer stands for requests without a cap.
    """

    def __init__(self) -> None:
        self._per_byte = FIRST_PER_BYTE
        self._constant = 0.0
        # Means over the last answers: bytes, 1 / bytes, tokens, tokens / bytes, and what share the line missed by.
        self._bytes = self._inverse = self._tokens = self._ratio = self._missed = 0.0
        self._learnt = 0
        self._mean_answer = 256.0

    def of(self, request: Request) -> float:
        """The tokens that a request will be charged, rather too many than too few: the limit is the server's, too."""
        answer = self._mean_answer if request.answer_bound is None else request.answer_bound
        line = self._line(request.text_bytes)
        # No token is less than a byte, wherever few answers may make the line point.
        text = line if request.unbounded_by else min(line, request.text_bytes)
        return (
            text * (1 + min(self._missed, MOST_MARGIN))
            + request.input_pictures * TYPICAL_PICTURE_TOKENS
            + answer
        )

    def learn(self, request: Request, usage: Usage) -> None:
        """Learn from an answer's usage."""
        if usage.input_tokens is not None and request.text_bytes and not request.input_pictures:
            # Whatever a server counts; unless it read more than it was sent.
            most = usage.input_tokens if request.unbounded_by else request.text_bytes
            self._fit(request.text_bytes, min(usage.input_tokens, most))
        if usage.output_tokens is not None:
            self._mean_answer += 0.1 * (usage.output_tokens - self._mean_answer)

    def _line(self, size: float) -> float:
        return max(0.0, self._constant + self._per_byte * size)

    def _fit(self, size: int, tokens: int) -> None:
        self._learnt += 1
        new = max(FORGETTING, 1 / self._learnt)
        if self._learnt > 1:
            line = self._line(size)
            self._missed += new * (abs(tokens - line) / max(1.0, line) - self._missed)
        self._bytes += new * (size - self._bytes)
        self._inverse += new * (1 / size - self._inverse)
        self._tokens += new * (tokens - self._tokens)
        self._ratio += new * (tokens / size - self._ratio)
        # How unequal sizes are: 0 when all are alike, and then they say nothing of a constant.
        unequal = self._bytes * self._inverse - 1 + ALIKE
        self._constant = min((self._ratio * self._bytes - self._tokens) / unequal, self._tokens)
        self._per_byte = (self._tokens - self._constant) / self._bytes
