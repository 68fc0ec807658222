"""`batchgen show`: one row for people."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from lab import Lab, serving

from batchgen.cli import cells, main
from batchgen.simulator import Simulator


def shown(lab: Lab, *args: object, columns: int = 80) -> Result:
    """What `batchgen show ARGS` prints in this process, without colours."""
    env = {**lab.environ(), "COLUMNS": str(columns), "NO_COLOR": "1"}
    return CliRunner().invoke(main, ["show", *map(str, args)], env=env)


def test_a_row_has_its_request_answer_attempts_and_price(lab: Lab) -> None:
    """What was asked, what came, what failed on the way and what it cost, in words."""
    with serving(script=lambda request: "500" if request.seen == 1 else None) as api:
        price = {"gpt-5.6-luna": {"input": 1, "output": 4}}
        job = lab.job(api.url, rows=1, pricing=price)
        lab.go(job)
    text = shown(lab, job, "r1").stdout
    assert text.startswith("r1  succeeded\n  line      2 of the prompts\n")
    assert "  request   /chat/completions, model gpt-5.6-luna, max_completion_tokens 100" in text
    assert "  user      ECHO:answer 1\n  answer    answer 1\n" in text
    assert "UTC: an error of the server" in text
    assert "HTTP 500" in text
    assert text.endswith("\n  took      2 attempts, 6 tokens, $0.000012\n")


def test_a_failure_says_why(lab: Lab, api: Simulator) -> None:
    """A row that failed has the reason in words and the server's message."""
    (lab.folder / "prompts.csv").write_text("id,text\na,[policy] x\nb,\n", encoding="utf-8")
    job = lab.job(api.url, rows=None, prompts={"path": "prompts.csv", "id": "id", "empty": "send"})
    lab.go(job)
    text = shown(lab, job, "a", columns=200).stdout
    assert "  why       refused by the server's content policy (policy): " in text


def test_a_turn_comes_with_the_turns_before_it(lab: Lab) -> None:
    """P46 A turn is shown with the messages that it was sent with, each once, in their order; when
    the reply that it followed is replaced, they are not known.
    """
    (lab.folder / "prompts.csv").write_text(
        "id,t,text\na,t,ECHO:one\nb,t,ECHO:two\nc,t,ECHO:three\n", encoding="utf-8"
    )
    with serving(record=True) as api:
        job = lab.job(api.url, rows=None, conversation={"id": "t"})
        lab.go(job)
        assert shown(lab, job, "c").stdout.splitlines()[3:9] == [
            "  (user)    ECHO:one",
            "  (answer)  one",
            "  (user)    ECHO:two",
            "  (answer)  two",
            "  user      ECHO:three",
            "  answer    three",
        ]
        (found,) = json.loads(shown(lab, job, "c", "--json").stdout)
        sent = [request.body["messages"] for request in api.log if request.body]
        assert [*found["history"], *found["request"]["body"]["messages"]] == sent[-1]
        (lab.folder / "prompts.csv").write_text(
            "id,t,text\na,t,ECHO:other\nb,t,ECHO:two\nc,t,ECHO:three\n", encoding="utf-8"
        )
        lab.go(job, limit=1)
        (found,) = json.loads(shown(lab, job, "c", "--json").stdout)
        assert found["history"] is None
        assert "  before    not known: " in shown(lab, job, "c").stdout


def test_several_combinations_are_listed(lab: Lab, api: Simulator) -> None:
    """Of a row with several combinations, each is named with its answer, and the command that is
    printed shows the first; a combination that it has not is refused with those that it has.
    """
    job = lab.job(api.url, rows=1, matrix={"tone": ["dry", "warm"], "sample": 2})
    lab.go(job)
    text = shown(lab, job, "r1").stdout
    assert text.startswith(
        "r1 has 4 combinations:\n  sample=1, tone=dry  succeeded\n    answer 1\n"
    )
    assert text.endswith(f"\n  batchgen show {job} r1 --axis sample=1 --axis tone=dry\n")
    one = shown(lab, job, "r1", "--axis", "tone=dry", "--axis", "sample=1").stdout
    assert one.startswith("r1  sample=1, tone=dry  succeeded\n")
    assert len(json.loads(shown(lab, job, "r1", "--axis", "tone=warm", "--json").stdout)) == 2
    refused = shown(lab, job, "r1", "--axis", "tone=cold")
    assert refused.exit_code == 2
    assert "no combination with tone=cold; it has: sample=1, tone=dry; " in refused.stderr
    assert "is not NAME=VALUE" in shown(lab, job, "r1", "--axis", "dry").stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal(lab: Lab, api: Simulator, columns: int) -> None:
    """Texts are wrapped to the terminal, also those of wide letters, and no answer is cut."""
    (lab.folder / "prompts.csv").write_text(
        f"id,text\na,ECHO:{'花瓶と' * 200}{'word ' * 90}\n", encoding="utf-8"
    )
    request = {"model": "m", "messages": [{"role": "user", "content": "{{ text }}"}]}
    job = lab.job(api.url, rows=None, request=request)
    lab.go(job)
    lines = shown(lab, job, "a", columns=columns).stdout.splitlines()
    assert max(map(cells.width_of, lines)) <= columns
    text = "".join(line[12:] for line in lines)
    assert text.count("花瓶と") == 400


def test_a_picture_is_named_and_never_printed(lab: Lab, api: Simulator) -> None:
    """The bytes of a picture in a request are told by their number; a long prompt is shortened."""
    data = "data:image/png;base64," + "iVBORw0KGgo" * 400
    parts = [{"type": "image_url", "image_url": {"url": data}}, {"type": "text", "text": "ECHO:ok"}]
    request = {
        "model": "gpt-5.6-luna",
        "max_completion_tokens": 100,
        "metadata": {"picture": data},
        "messages": [
            {"role": "system", "content": "be calm " * 500},
            {"role": "developer", "content": data},
            {"role": "user", "content": parts},
        ],
    }
    job = lab.job(api.url, rows=1, request=request)
    lab.go(job)
    text = shown(lab, job, "r1", columns=200).stdout
    assert "iVBORw0KGgo" not in text
    assert "[image_url]" in text
    assert f"[image/png, {len(data):,} characters of base64]" in text
    assert "more characters; --json has all" in text
    assert data in shown(lab, job, "r1", "--json").stdout


@given(st.text(), st.integers(3, 50))
def test_wrapping_keeps_every_letter(text: str, width: int) -> None:
    """Wrapped text has all its letters in their order, and no line that is too wide."""
    lines = cells.wrap(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(cells.width_of(line) <= width for line in lines)
    assert cells.width_of(cells.cut(text, width)) <= width
