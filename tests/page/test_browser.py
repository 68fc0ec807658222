"""report.html in a browser: search, filters, views, dark and narrow, and no script of others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

import batchgen
from batchgen.comparison import compare, write_comparison
from batchgen.simulator import Simulator

PAYLOAD = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window. Without one on the machine the tests are skipped, but where
    BATCHGEN_TESTS_NEED_A_BROWSER is set they fail.
    """
    if CHROMIUM is None and not os.environ.get("BATCHGEN_TESTS_NEED_A_BROWSER"):
        pytest.skip("there is no Chromium on this machine")
    assert CHROMIUM is not None, "no Chromium on this machine"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


class Tab:
    """A page that is open, and what went wrong on it."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, dark: bool = False) -> None:
        self.page = browser.new_page(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
        )
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.problems.append(message.text) if message.type == "error" else None,
        )
        self.page.goto(url)

    def ids(self) -> list[str]:
        """The ids of the cards that are shown."""
        return [
            each.get_attribute("data-id") for each in self.page.query_selector_all("article.card")
        ]

    def found(self, count: int) -> None:
        """Wait until so many cards are found."""
        self.page.wait_for_function(
            "text => document.getElementById('found').textContent.startsWith(text)",
            arg=f"{count:,} found",
        )


def opened(browser: Any, lab: Lab, **options: Any) -> Tab:
    """The lab's page in a new tab."""
    return Tab(browser, (lab.output() / "report.html").as_uri(), **options)


@pytest.fixture
def job(lab: Lab, api: Simulator) -> Lab:
    """A job of 70 rows, by two tones, one of them refused in each."""
    lines = [f"{n},{'[policy]' if n == 7 else f'ECHO:answer {n}'}" for n in range(35)]
    (lab.folder / "prompts.csv").write_text("id,text\n" + "\n".join(lines), encoding="utf-8")
    request = {
        "model": "m",
        "messages": [{"role": "user", "content": "{{ text }}"}],
        "user": "{{ tone }}",
    }
    lab.go(lab.job(api.url, rows=None, matrix={"tone": ["dry", "warm"]}, request=request))
    return lab


def test_search_and_filters(browser: Any, job: Lab) -> None:
    """Typing finds texts and marks them; the filters narrow by status, reason and axis; more cards
    come when asked for.
    """
    tab = opened(browser, job)
    tab.found(70)
    assert len(tab.ids()) == 50
    tab.page.click("#more")
    assert len(tab.ids()) == 70
    tab.page.fill("#search", "ANSWER 21")
    tab.found(2)
    assert tab.ids() == ["21", "21"]
    assert tab.page.text_content("mark >> nth=0").lower() in ("answer", "21")
    tab.page.select_option("select[aria-label=tone]", "warm")
    tab.found(1)
    tab.page.fill("#search", "")
    tab.found(35)
    tab.page.select_option("select[aria-label=status]", "failed")
    tab.found(1)
    assert tab.ids() == ["7"]
    assert "policy" in tab.page.inner_text("article.card .problem")
    assert tab.problems == []


def test_an_example_of_each_failure(browser: Any, job: Lab) -> None:
    """The table of failures has an example; a click on it shows all of its kind."""
    tab = opened(browser, job)
    tab.page.click("tr[data-reason=policy] .example button")
    tab.found(2)
    assert tab.ids() == ["7", "7"]


def test_the_grid_compares_the_axes(browser: Any, job: Lab) -> None:
    """The matrix is a grid: a line for each row, a column for each value."""
    tab = opened(browser, job)
    tab.page.click("#views button[data-view=grid]")
    tab.page.wait_for_selector(".grid table")
    heads = [each.inner_text() for each in tab.page.query_selector_all(".grid thead th")]
    assert heads == ["row", "dry", "warm"]
    cells = [
        each.inner_text() for each in tab.page.query_selector_all(".grid tbody tr >> nth=2 >> td")
    ]
    assert [cell.splitlines()[0] for cell in cells] == ["answer 2", "answer 2"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_narrow_wide_light_and_dark(browser: Any, job: Lab, width: int, dark: bool) -> None:
    """The page is as wide as the window, and as light or dark as the reader's system."""
    tab = opened(browser, job, width=width, dark=dark)
    tab.found(70)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    back = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(back.split("(")[1].split(",")[0])
    assert (red < 60) is dark


def test_what_a_model_wrote_never_runs(browser: Any, lab: Lab, api: Simulator) -> None:
    """Tags and handlers in ids, prompts, answers and fields of a structured answer are text."""
    answer = json.dumps({PAYLOAD: PAYLOAD})
    rows = [{"id": PAYLOAD, "text": f"ECHO:{PAYLOAD}"}, {"id": "2", "text": f"ECHO:{answer}"}]
    (lab.folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    lab.go(lab.job(api.url, prompts={"path": "prompts.jsonl", "id": "id"}))
    tab = opened(browser, lab)
    tab.found(2)
    tab.page.wait_for_timeout(100)
    assert tab.page.title() == "job – batchgen"
    assert tab.page.inner_text("article >> nth=0 >> .assistant .text") == PAYLOAD
    assert tab.page.inner_text("article >> nth=1 >> .fields td") == PAYLOAD
    assert tab.page.query_selector_all("article img") == []


def test_the_gallery(browser: Any, lab: Lab, api: Simulator) -> None:
    """A picture job opens as a gallery; a click shows the large picture."""
    lab.go(lab.job(api.url, kind="image", request={"model": "gpt-image-2", "prompt": "{{ id }}"}))
    tab = opened(browser, lab)
    tab.page.wait_for_function(
        "() => [...document.querySelectorAll('.gallery img')].every(e => e.naturalWidth)"
    )
    tab.page.click(".gallery button.picture >> nth=0")
    tab.page.wait_for_function("() => document.querySelector('#large img').naturalWidth > 320")
    assert tab.problems == []


def test_a_page_of_many_rows_opens_quickly(browser: Any, lab: Lab, api: Simulator) -> None:
    """A job of more rows than a page holds shows its first cards and all counts at once."""
    lab.go(lab.job(api.url, rows=3000))
    tab = opened(browser, lab)
    tab.found(1000)
    assert len(tab.ids()) == 50
    assert "This page shows 1,000 of 3,000" in tab.page.inner_text("#found")
    assert Path(lab.output() / "report.html").stat().st_size < 20_000_000


def test_the_page_prints(browser: Any, job: Lab) -> None:
    """On paper the filters are gone and the cards stay."""
    tab = opened(browser, job)
    tab.found(70)
    tab.page.emulate_media(media="print")
    assert not tab.page.is_visible("#filters")
    assert tab.page.is_visible("article.card >> nth=0")


@pytest.mark.parametrize("width", [390, 1280])
def test_answers_side_by_side(browser: Any, lab: Lab, api: Simulator, width: int) -> None:
    """The page of `diff` shows both answers of a row, one above the other where it is narrow, with
    the words marked that changed; nothing in them runs, and nothing is wider than the window.
    """
    prompts, payload = lab.folder / "prompts.csv", PAYLOAD.replace('"', '""')
    for word in ("old", "new"):
        prompts.write_text(f'id,text\na,"ECHO:{word} {payload}"\n', encoding="utf-8")
        job = lab.load(lab.job(api.url, rows=None))
        batchgen.run(job)
    path = lab.folder / "page.html"
    with compare(job) as comparison:
        write_comparison(comparison, path)
    tab = Tab(browser, path.as_uri(), width=width, dark=True)
    assert tab.page.inner_text("del") == "old"
    assert tab.page.inner_text("ins") == "new"
    before, after = (each.bounding_box() for each in tab.page.query_selector_all(".side"))
    assert (before["x"] == after["x"]) == (width == 390)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.title().startswith("job: before and after")
    assert tab.page.query_selector_all("script, article img") == []
    assert tab.problems == []
