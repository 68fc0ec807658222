"""The README's pictures of terminal and page: `python tests/readme_pictures.py` draws them.

Runs the README's first command, simulated, in a terminal of tmux, and opens the page that it
leaves. Needs tmux, Chromium, and playwright.
"""

from __future__ import annotations

import html
import io
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PROJECT = Path(__file__).parent.parent
IMAGES = PROJECT / "docs/images"
JOBS = ("product-copy", "posters")
COLUMNS, LINES = 80, 24
# The colours that the command uses, by their number in an escape sequence.
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#f2cc60", "36": "#79c0ff"}
_STYLE = re.compile(r"\x1b\[([\d;]*)m")


def terminal(folder: Path) -> str:
    """What a terminal shows after the command, with its escape sequences for colours."""
    command = f"batchgen run {' '.join(f'jobs/{job}.yaml' for job in JOBS)} --simulate"
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    shell = (
        f"cd {shlex.quote(str(folder))}; printf '$ %s\\n' {shlex.quote(command)}; "
        f"PATH={shlex.quote(path)} {command}; tmux -L pictures wait-for -S done; cat"
    )
    tmux = ("tmux", "-L", "pictures", "-f", "/dev/null")
    size = ("-x", str(COLUMNS), "-y", str(LINES))
    subprocess.run([*tmux, "new-session", "-d", "-s", "run", *size, shell], check=True)
    try:
        subprocess.run([*tmux, "wait-for", "done"], check=True, timeout=120)
        shown = subprocess.run(
            [*tmux, "capture-pane", "-t", "run", "-p", "-e"],
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    return shown.stdout.rstrip().replace(str(folder), "/home/you/shop")


def as_page(text: str) -> str:
    """A terminal's lines as HTML."""
    parts = _STYLE.split(html.escape(text, quote=False))
    spans = [parts[0]]
    for codes, words in zip(parts[1::2], parts[2::2], strict=True):
        styles = [f"color:{COLOURS[code]}" for code in codes.split(";") if code in COLOURS]
        styles += ["font-weight:bold"] if "1" in codes.split(";") else []
        spans.append(f'<span style="{";".join(styles)}">{words}</span>')
    return (
        "<body style='margin:0'><pre style='margin:0;padding:20px;display:inline-block;"
        "background:#0d1117;color:#e6edf3;font:15px/1.4 monospace'>" + "".join(spans) + "</pre>"
    )


def save(picture: bytes, name: str) -> None:
    """A picture of a hundred colours, a fifth of the bytes."""
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(100).save(IMAGES / name, optimize=True)


def draw(browser: Browser, folder: Path) -> None:
    """The two pictures, from a folder in which the jobs can run."""
    shown = terminal(folder)
    with browser.new_page(device_scale_factor=2) as page:
        page.set_content(as_page(shown))
        save(page.locator("pre").screenshot(), "terminal.png")
    report = folder / "outputs/posters.simulated/report.html"
    size = {"width": 1100, "height": 1180}
    with browser.new_page(viewport=size, color_scheme="light") as page:  # type: ignore[arg-type]
        page.goto(report.as_uri())
        save(page.screenshot(), "page.png")


def main() -> None:
    """Draw the pictures anew."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        shutil.copytree(PROJECT / "jobs", Path(folder) / "jobs")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        draw(browser, Path(folder))
        browser.close()


if __name__ == "__main__":
    main()
