"""What is not known of a cost is said, apart from what is known."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from answering import asked, chat, rows
from hostile import Hostile, http, raw
from lab import Lab, Server, stalling

from batchgen import queries

PRICE = {"gpt-5.6-luna": {"input": 2, "output": 6}}
HANGING = raw(b"", then="hang")
CAPPED: dict[str, Any] = {"pricing": PRICE, "limits": {"max_cost": 1}}


def shown(lab: Lab, job: Any) -> tuple[dict[str, Any], str]:
    """What `status` says, as JSON and in words."""
    (state,) = json.loads(lab.run("status", job, "--json").stdout)["jobs"]
    return state, lab.run("status", job).stdout


def test_a_run_that_is_killed(lab: Lab) -> None:
    """P25 P01 A call that kill -9 cut off counts as spent at its highest cost: status says so, and
    so does the next run before it sends anything.
    """
    with stalling() as (api, arrived, _):
        job = lab.job(api.url, rows=1, **CAPPED)
        process = lab.start("run", job)
        assert arrived.wait(30)
        process.kill()
        process.communicate(timeout=30)
    state, words = shown(lab, job)
    assert (state["in_flight"], state["uncertain"], state["calls"]) == (1, 0, 0)
    highest = f"up to ${state['in_flight_cost']:.6f}".rstrip("0")
    assert f"{highest} for 1 call of unknown outcome, counted as spent" in words
    # The server is gone; what matters is what is said and counted.
    ended = lab.run("run", job, env=lab.environ(OPENAI_API_KEY="sk bad"))
    assert f"the last run died: {highest}" in ended.stderr


def test_a_second_signal_while_a_call_is_in_flight(lab: Lab) -> None:
    """P25 P14 A call that a second signal cut off counts as spent at its highest cost, and
    summary, report and status say so, apart from the known cost.
    """
    with stalling() as (api, arrived, _):
        job = lab.job(api.url, rows=1, **CAPPED)
        process = lab.start("run", job)
        assert arrived.wait(30)
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        summary = "".join(process.communicate(timeout=30))
    assert "1 call of unknown outcome, counted as spent" in summary
    state, words = shown(lab, job)
    report = json.loads((lab.output() / "report.json").read_text(encoding="utf-8"))
    for totals in (state, report["run"], report["job"]):
        assert (totals["uncertain"], totals["cost"], totals["unpriced"]) == (1, None, 0)
        assert totals["uncertain_cost"] > 0.0006
    assert "of unknown outcome, counted as spent" in words
    assert state["in_flight"] == 0


def test_timeouts_beside_answers(lab: Lab) -> None:
    """P25 Time-outs are apart from what answers cost; both together stay below the cap. Without a
    cap their cost is unknown.
    """
    rows(lab, "a", "b", "c")

    def script(n: int) -> Any:
        body = json.loads(hostile.requests[n - 1].partition(b"\r\n\r\n")[2])
        return http(200, chat(asked(body))) if asked(body) != "b" else HANGING

    hostile = Hostile(script)
    server = Server(hostile.start, hostile.stop)
    try:
        fast = {"attempts": 1, "timeout": 1}
        job = lab.job(hostile.url, rows=None, retry=fast, **CAPPED)
        report = lab.go(job)
        open_job = lab.job(hostile.url, "open", rows=None, retry=fast, pricing=PRICE)
        uncapped = lab.go(open_job)
    finally:
        server.close()
    known = 2 * (10 * 2 + 5 * 6) / 1e6
    assert report.run.cost == pytest.approx(known)
    assert (report.run.uncertain, report.run.unpriced) == (1, 0)
    assert f"${known:.4f} and up to $" in report.line()
    assert queries.status(lab.load(job))["uncertain_cost"] == report.run.uncertain_cost > 0.0006
    assert (uncapped.run.uncertain, uncapped.run.unpriced) == (0, 1)
    assert "and 1 call of unknown cost" in uncapped.line()


TOOLS: list[tuple[dict[str, Any], list[str]]] = [
    ({"tools": [{"type": "web_search"}]}, []),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, []),
    (
        {"tools": [{"type": "web_search"}, {"type": "code_interpreter"}, {"type": "function"}]},
        ["code_interpreter"],
    ),
    ({"tools": [{"type": "function", "name": "f"}]}, []),
    ({"tools": [7]}, ["tools"]),
    ({"plugins": [{"id": "web"}], "enable_search": True}, ["enable_search", "plugins"]),
]


@pytest.mark.parametrize(("fields", "missing"), TOOLS)
def test_fees_that_no_cost_holds_are_named(
    lab: Lab, fields: dict[str, Any], missing: list[str]
) -> None:
    """P25 plan, summary, report and status name the tools whose fees no cost holds: not those that
    genai-prices knows. Under a cap such a request is refused before anything is sent.
    """
    request = {"model": "gpt-5", "input": "{{ text }}", "max_output_tokens": 50, **fields}
    job = lab.job(kind="text", request=request, rows=2)
    (planned,) = json.loads(lab.run("plan", job, "--simulate", "--json").stdout)["jobs"]
    assert planned["fees_not_included"] == missing
    words = "without the fees of " + ", ".join(missing)
    assert bool(missing) == (words in lab.run("plan", job, "--simulate").stdout)
    ran = lab.run("run", job, "--simulate")
    assert ran.returncode == 0, ran.stderr
    assert bool(missing) == (words in ran.stderr + ran.stdout)
    (state,) = json.loads(lab.run("status", job, "--simulate", "--json").stdout)["jobs"]
    assert state["fees_not_included"] == missing
    capped = lab.run("run", job, "--simulate", "--max-cost", "1")
    only_ours = fields["tools"][0] == {"type": "function", "name": "f"} if "tools" in fields else 0
    assert capped.returncode == (0 if only_ours else 2), capped.stderr


@pytest.mark.parametrize(
    ("server", "missing"),
    [
        ("https://openrouter.ai/api/v1", []),
        ("https://api.groq.com/openai/v1", ["web_search_options"]),
    ],
)
def test_a_server_that_bills_itself_lacks_no_fee(lab: Lab, server: str, missing: list[str]) -> None:
    """P25 Where every reply says what it cost, fees are in it."""
    message = [{"role": "user", "content": "{{ text }}"}]
    request = {"model": "m", "messages": message, "web_search_options": {"a": 1}}
    job = lab.job(server, request=request)
    (planned,) = json.loads(lab.run("plan", job, "--json").stdout)["jobs"]
    assert planned["fees_not_included"] == missing
