"""report.html: what is in it, what is left out, and that nothing in it runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

from batchgen import maintenance
from batchgen.page import selection, write
from batchgen.page.activity import Activity
from batchgen.page.cards import MOST_TEXT
from batchgen.page.charts import charts
from batchgen.simulator import Simulator

PAYLOAD = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"


def page(lab: Lab, *, simulated: bool = False) -> str:
    """The page of the lab's job."""
    return (lab.output(simulated=simulated) / "report.html").read_text(encoding="utf-8")


def data(text: str) -> dict[str, Any]:
    """What the page's script shows."""
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text)
    return dict(json.loads(found))


def test_every_row_is_on_the_page(lab: Lab, api: Simulator) -> None:
    """The page has each row with its request, its answer and what it took."""
    price = {"input": 1, "output": 2}
    lab.go(lab.job(api.url, pricing={"gpt-5.6-luna": price}))
    cards = data(page(lab))["cards"]
    assert [card["id"] for card in cards] == [f"r{n}" for n in range(1, 6)]
    first = cards[0]
    assert [(turn["role"], turn["text"]) for turn in first["turns"]] == [
        ("user", "ECHO:answer 1"),
        ("assistant", "answer 1"),
    ]
    row = lab.table()[0]
    assert (first["status"], str(first["attempts"])) == ("succeeded", row["attempts"])
    assert float(row["cost"]) == first["cost"]


def test_failures_have_their_reason_and_message(lab: Lab, api: Simulator) -> None:
    """What went wrong is in words, with the server's message on the card."""
    (lab.folder / "prompts.csv").write_text("id,text\na,[policy] x\nb,ECHO:y\n", encoding="utf-8")
    lab.go(lab.job(api.url, rows=None))
    text = page(lab)
    failed, succeeded = data(text)["cards"]
    assert failed["reason"] == "policy"
    assert failed["message"] == lab.table(which="errors")[0]["message"]
    assert "reason" not in succeeded
    assert "refused by the server&#39;s content policy" in text


def test_no_answer_can_end_the_data(lab: Lab, api: Simulator) -> None:
    """Tags in ids, prompts and answers stay text: the page has its own two scripts and no other,
    and its policy names the one that may run.
    """
    (lab.folder / "prompts.csv").write_text(
        f'id,text\n"{PAYLOAD}","ECHO:{PAYLOAD}"\n', encoding="utf-8"
    )
    lab.go(lab.job(api.url, rows=None))
    text = page(lab)
    assert text.count("<script") == 2
    assert data(text)["cards"][0]["turns"][1]["text"] == PAYLOAD
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_a_job_named_like_a_tag(lab: Lab, api: Simulator) -> None:
    """Words of the job and of the server that are no answer are escaped too."""
    path = lab.job(api.url, matrix={"tone": ["<b>warm</b>"]})
    lab.go(path, limit=1)
    assert "<b>warm</b>" not in page(lab)
    assert data(page(lab))["axes"] == {"tone": ["<b>warm</b>"]}


def test_the_page_needs_no_network(lab: Lab, api: Simulator) -> None:
    """Nothing on the page is loaded from elsewhere: style, script and charts are in it."""
    lab.go(lab.job(api.url))
    text = page(lab)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert not re.findall(r"url\((?!data:)", text)
    assert "<svg" in text


def test_turns_are_one_card(lab: Lab, api: Simulator) -> None:
    """A conversation is one card with its turns in order, the system message once."""
    (lab.folder / "prompts.jsonl").write_text(
        json.dumps({"id": "a", "turns": ["one", "two"]}), encoding="utf-8"
    )
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ECHO:{{ turn }}"},
    ]
    path = lab.job(
        api.url,
        prompts={"path": "prompts.jsonl", "id": "id"},
        conversation={"turns": "turns"},
        request={"model": "m", "messages": messages},
    )
    lab.go(path)
    (card,) = data(page(lab))["cards"]
    assert [turn["role"] for turn in card["turns"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


def test_rows_of_a_conversation_are_one_card(lab: Lab, api: Simulator) -> None:
    """Rows of one conversation are one card, wherever they stand in the file."""
    (lab.folder / "prompts.csv").write_text(
        "id,thread,text\n1,a,ECHO:x\n2,b,ECHO:y\n3,a,ECHO:z\n", encoding="utf-8"
    )
    lab.go(lab.job(api.url, rows=None, conversation={"id": "thread"}))
    cards = data(page(lab))["cards"]
    texts = [
        [turn["text"] for turn in card["turns"] if turn["role"] == "assistant"] for card in cards
    ]
    assert texts == [["x", "z"], ["y"]]


def test_pictures_are_small_on_the_page(lab: Lab, api: Simulator) -> None:
    """A picture job's page holds small pictures, and names the large ones beside it."""
    request = {"model": "gpt-image-2", "prompt": "{{ id }}"}
    lab.go(lab.job(api.url, kind="image", request=request))
    found = data(page(lab))
    assert found["draws"] is True
    for card, row in zip(found["cards"], lab.table(), strict=True):
        picture = card["turns"][-1]
        assert picture["picture"] == row["output"]
        assert picture["thumbnail"].startswith("data:image/webp;base64,")
        assert len(picture["thumbnail"]) < (lab.output() / row["output"]).stat().st_size


def test_pictures_come_before_the_charts(lab: Lab, api: Simulator) -> None:
    """Who drew pictures wants to see them; the charts of a job of texts come before its answers."""
    drawing = {"model": "gpt-image-2", "prompt": "{{ text }}", "quality": "low"}
    for name, parts in (("drawn", {"kind": "image", "request": drawing}), ("job", {})):
        lab.go(lab.job(api.url, name=name, rows=1, **parts))
        text = (lab.output(name) / "report.html").read_text(encoding="utf-8")
        assert text.startswith("<!doctype html>")
        answers, charts = text.index('<div id="answers">'), text.index("<svg")
        assert (answers < charts) == (name == "drawn")


def test_edited_pictures_are_shown_and_their_place_is_not(lab: Lab, api: Simulator) -> None:
    """An edit's card has the original; no path of this machine is on the page."""
    from PIL import Image

    Image.new("RGB", (64, 64), "red").save(lab.folder / "red.png")
    (lab.folder / "prompts.csv").write_text("id,file\na,red.png\n", encoding="utf-8")
    request = {"model": "gpt-image-2", "prompt": "x", "image": "{{ file }}"}
    lab.go(lab.job(api.url, rows=None, kind="image_edit", request=request))
    (card,) = data(page(lab))["cards"]
    (original,) = [turn for turn in card["turns"] if turn.get("field") == "image"]
    assert original["file"] == "red.png"
    assert original["thumbnail"].startswith("data:image/webp")
    assert str(lab.folder) not in page(lab)


def test_a_large_job_is_a_sample_with_all_failures(
    lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that cannot have all rows has every failure and a sample of the rest, and says so."""
    monkeypatch.setattr(selection, "MOST_OTHERS", 10)
    lines = [f"{n},{'[policy]' if n in (3, 50, 77) else 'ECHO:x'}" for n in range(100)]
    (lab.folder / "prompts.csv").write_text("id,text\n" + "\n".join(lines), encoding="utf-8")
    lab.go(lab.job(api.url, rows=None))
    found = data(page(lab))
    ids = [card["id"] for card in found["cards"]]
    assert {"3", "50", "77"} <= {*ids}
    assert 10 <= len(ids) <= 13
    assert [int(each) for each in ids] == sorted(map(int, ids))
    assert found["note"] == (
        f"This page shows {len(ids)} of 100: all 3 that failed or are incomplete, and a sample of "
        "the others."
    )


def test_a_page_is_bounded(lab: Lab, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long texts are cut and say how much is missing; beyond the bound of the page cards are left
    out, and it says so.
    """
    monkeypatch.setattr(write, "MOST_CARD_BYTES", 30_000)
    long = "x" * (MOST_TEXT + 5)
    lines = [f"{n},{long}" for n in range(10)]
    (lab.folder / "prompts.csv").write_text("id,text\n" + "\n".join(lines), encoding="utf-8")
    lab.go(lab.job(api.url, rows=None))
    found = data(page(lab))
    assert 1 <= len(found["cards"]) <= 7
    assert found["cards"][0]["turns"][0]["text"] == "x" * MOST_TEXT + "… (5 more characters)"
    assert found["note"].startswith(f"This page shows {len(found['cards'])} of 10")


def test_a_simulated_page_says_so(lab: Lab) -> None:
    """A page of simulated answers says that nothing in it is true."""
    lab.go(lab.job("http://127.0.0.1:9/v1"), simulate=True)
    assert "no model was asked, and nothing here is true" in page(lab, simulated=True)


def test_a_run_with_nothing_to_do_leaves_the_page(lab: Lab, api: Simulator) -> None:
    """A page is written only when the tables are, or when it is gone; export writes it too."""
    path = lab.job(api.url)
    lab.go(path)
    file = lab.output() / "report.html"
    before = file.stat().st_mtime_ns
    lab.go(path)
    assert file.stat().st_mtime_ns == before
    file.unlink()
    lab.go(path)
    assert file.exists()
    file.unlink()
    maintenance.export(lab.load(path))
    assert file.exists()


def test_a_key_is_not_on_the_page(lab: Lab, api: Simulator) -> None:
    """P33 The key of a job is nowhere on its page."""
    from lab import KEY

    lab.go(lab.job(api.url))
    assert KEY not in page(lab)


def test_an_activity_counts_every_attempt(lab: Lab) -> None:
    """The charts count what the journal has: answers and failures, each in its part of the time."""
    from lab import serving

    from batchgen.journal import Journal
    from batchgen.page.activity import last_activity

    def script(request: Any) -> str | None:
        return "error" if request.n % 3 == 0 else None

    with serving(script=script) as api:
        report = lab.go(lab.job(api.url, rows=9, retry={"max_wait": 0.01}))
    with Journal.peek(lab.output()) as journal:
        activity = last_activity(journal)
    assert activity is not None
    assert sum(activity.answers) == 9
    assert sum(map(sum, activity.failures.values())) == report.run.calls - 9 > 0


def test_the_same_activity_draws_the_same_charts() -> None:
    """A page made again is the same page: no random ids or dates in its charts."""
    activity = Activity(
        run=1,
        began=0.0,
        width=60.0,
        answers=[3, 5],
        failures={"server": [0, 1]},
        median=[0.5, None],
        slow=[0.9, None],
    )
    first, again = charts(activity), charts(activity)
    assert first == again
    ids = {re.findall(r'<svg[^>]* id="([^"]+)"', each)[0] for each in first}
    assert len(ids) == len(first) == 3
    assert not any("<!--" in each or "kozea" in each.lower() for each in first)


def test_the_assets_are_in_the_package() -> None:
    """The page's parts are beside the module, so that they come with the wheel."""
    folder = Path(write.__file__).parent
    assert {each.suffix for each in folder.iterdir()} >= {".html", ".css", ".js"}
