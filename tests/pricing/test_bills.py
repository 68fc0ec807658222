"""What replies cost, as a run records it: what broke off, what the server bills, what it ran."""

from __future__ import annotations

from typing import Any

import pytest
from answering import answered, answering, asked, chat, rows
from lab import Lab

from batchgen import queries
from batchgen.pricing import NANO, Prices
from batchgen.replies import read_usage

PRICE = {"gpt-5.6-luna": {"input": 2, "output": 6}}
COUNTED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
# What these counts cost by PRICE, in USD.
COST = (10 * 2 + 5 * 6) / 1_000_000
FAILED: dict[str, dict[str, Any]] = {
    "broke off": chat("The first half of the ans", "abort"),
    "an error inside": {"error": {"message": "overloaded", "code": 503}, "usage": COUNTED},
    "an error in the choice": {
        "choices": [{"error": {"message": "x"}, "message": {"content": ""}}],
        "usage": COUNTED,
    },
    "no choices": {"choices": [], "usage": COUNTED},
}


@pytest.mark.parametrize("name", FAILED)
@pytest.mark.parametrize("cap", [None, 1])
def test_a_reply_without_an_answer_costs_what_it_counts(
    lab: Lab, name: str, cap: int | None
) -> None:
    """P25 P46 Each attempt that broke off has its tokens and its cost on record, with a cap on
    money or without, and the totals hold them.
    """
    rows(lab, "a")
    limits = {} if cap is None else {"max_cost": cap}
    with answering(lambda _: FAILED[name]) as api:
        job = lab.job(api.url, rows=None, pricing=PRICE, retry={"attempts": 3}, limits=limits)
        report = lab.go(job)
    (row,) = queries.show(lab.load(job), "a")
    assert row["status"] == "failed"
    taken = [(10, 5, pytest.approx(COST))] * len(row["attempts"])
    assert [
        (each["input_tokens"], each["output_tokens"], each["cost"]) for each in row["attempts"]
    ] == taken
    assert len(taken) >= 2
    assert report.run.cost == pytest.approx(COST * len(taken))
    assert (report.run.output_tokens, report.run.unpriced) == (5 * len(taken), 0)


def test_a_bill_above_the_bound_counts_although_the_answer_broke_off(lab: Lab) -> None:
    """P25 The server's own bill for an answer that broke off counts against the cap, not the
    bound.
    """
    rows(lab, *"abcdefgh")
    bill = {**COUNTED, "cost": 0.3}
    with answering(lambda _: chat("x", "abort", bill)) as api:
        job = lab.job(
            api.url, rows=None, pricing=PRICE, retry={"attempts": 1}, limits={"max_cost": 1}
        )
        report = lab.go(job)
    assert report.exit_code == 5
    assert len(api.requests) == 3
    assert report.run.cost == pytest.approx(0.9)


BILLS: dict[str, tuple[dict[str, Any], float]] = {
    "xAI": ({**COUNTED, "cost_in_usd_ticks": 37_756_000}, 0.0037756),
    "OpenRouter": ({**COUNTED, "cost": 0.00014}, 0.00014),
    "OpenRouter, own key": (
        {
            **COUNTED,
            "cost": 0.001,
            "is_byok": True,
            "cost_details": {"upstream_inference_cost": 0.02},
        },
        0.021,
    ),
    "Perplexity": ({**COUNTED, "cost": {"total_cost": 0.0061, "request_cost": 0.006}}, 0.0061),
    "DeepInfra": ({**COUNTED, "estimated_cost": 1.2e-05}, 1.2e-05),
    "hidden reasoning": ({**COUNTED, "total_tokens": 1015}, (10 * 2 + 1005 * 6) / 1e6),
    "no bill": (COUNTED, COST),
    "a bill that is none": ({**COUNTED, "cost": -3}, COST),
}


def test_the_bill_of_each_server_is_taken(lab: Lab) -> None:
    """P25 What a reply says that it cost is its cost in the table and in the totals; else the price
    times its tokens is.
    """
    rows(lab, *BILLS)
    with answering(lambda body: chat(usage=BILLS[asked(body)][0])) as api:
        table = answered(lab, api, pricing=PRICE)
    costs = {name: float(line["cost"]) for name, line in table.items()}
    assert costs == {name: pytest.approx(cost) for name, (_, cost) in BILLS.items()}


def test_a_servers_own_word_is_accepted(lab: Lab) -> None:
    """`output.accept` takes finish reasons by the server's words, whatever their case, also those
    of answers that broke off, in a job that ran before as well.
    """
    words = ("MAX_TOKENS", "length", "SAFETY", "Brand-New", "abort")
    rows(lab, *words)
    accept = ["max_tokens", "brand_new"]
    with answering(lambda body: chat("The first half", asked(body))) as api:
        before = answered(lab, api, retry={"attempts": 1})
        calls = len(api.requests)
        after = answered(lab, api, retry={"attempts": 1}, output={"accept": accept})
        # Only the answer that broke off is asked for again: it was a passing failure.
        assert len(api.requests) == calls + 1
        named = answered(lab, api, retry={"attempts": 1}, output={"accept": [*accept, "ABORT"]})
    assert {line["status"] for line in before.values()} == {"incomplete", "failed"}
    assert {word: line["status"] for word, line in after.items()} == {
        "MAX_TOKENS": "succeeded",
        "length": "succeeded",
        "SAFETY": "incomplete",
        "Brand-New": "succeeded",
        "abort": "failed",
    }
    assert (named["abort"]["status"], named["abort"]["output"]) == ("succeeded", "The first half")


def test_searches_cost_what_they_cost() -> None:
    """P25 Searches that a response's items show have genai-prices' price for each; a page that was
    only opened has none.
    """
    prices = Prices({}, "https://api.openai.com/v1")
    counts = {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}
    items = [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "web_search_call"},
        {"type": "file_search_call"},
        "no item",
    ]
    plain, found = (
        prices.cost("gpt-5", read_usage({"usage": counts, "output": output}))
        for output in ([], items)
    )
    assert plain is not None
    assert found == plain + (2 * 10 + 2.5) * NANO / 1000
