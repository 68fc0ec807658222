"""README and docs are true: commands run, help is current, examples load, lists are complete."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from lab import Lab, serving
from rooms import ROOMS

import batchgen
from batchgen import errors, load_job, plan
from batchgen.cli import PRECEDENCE, main
from batchgen.simulator import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(
        [
            *ROOT.glob("*.md"),
            *ROOT.glob("docs/**/*.md"),
            *ROOT.glob("outputs/*.md"),
            *ROOT.glob(".github/**/*.md"),
        ]
    )
}
HOME = "/home/you/shop"
MAX_README_LINES = 250

# Stands in for an installed batchgen with a key: what sends is simulated, into its own folder.
SHIM = """#!/bin/sh
command="$1"; shift
case "$command $*" in
    run-batch*) exec {python} -m batchgen "$command" "$@" --simulate ;;
    *--simulate*) exec {python} -m batchgen "$command" "$@" ;;
    run*|redo*|status*|show*) exec {python} -m batchgen "$command" "$@" {extra} ;;
    *) exec {python} -m batchgen "$command" "$@" ;;
esac
"""


def blocks(language: str, page: str = "README.md") -> list[str]:
    """A page's fenced blocks in a language, in order, without their indent."""
    fenced = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```$", PAGES[page], flags=re.MULTILINE | re.DOTALL
    )
    return [textwrap.dedent(text) for _, text in fenced]


def steps(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown for it."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


HELP = [step for block in blocks("console", "docs/commands.md") for step in steps(block)]


def shim(folder: Path, *, extra: str = "--simulate --output real") -> Path:
    """A `batchgen` command in a folder."""
    path = folder / "bin" / "batchgen"
    path.parent.mkdir()
    path.write_text(SHIM.format(python=sys.executable, extra=extra), encoding="utf-8")
    path.chmod(0o755)
    return path


def shell(command: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A command as pasted into a shell; PATH begins with the shim."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def shop(folder: Path) -> Path:
    """The folder in which the pages' commands run: a CSV, a file of requests and nothing else."""
    (folder / "products.csv").write_text(blocks("csv")[0], encoding="utf-8")
    requests = blocks("jsonl", "docs/request-files.md")[0]
    (folder / "requests.jsonl").write_text(requests, encoding="utf-8")
    return folder


def alike(text: str, folder: Path) -> str:
    """Output without what differs by machine and day, or because it was simulated."""
    text = text.replace(str(folder), HOME).replace("/real/", "/outputs/")
    text = text.replace("; SIMULATED", "").replace(".simulated", "")
    # The shim adds --simulate, so a message that names the next command has it, too.
    text = re.sub(r" --simulate(?= \w)", "", text)
    return re.sub(r"\d[\d,.]*", "N", text).strip()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page != "docs/commands.md" and blocks("console", page)],
)
def test_the_five_minutes(lab: Lab, page: str) -> None:
    """Every console command of a page, in order in one folder, prints what is shown."""
    folder = shop(lab.folder)
    shim(folder)
    for command, shown in [step for block in blocks("console", page) for step in steps(block)]:
        if command.startswith("export"):
            continue
        done = shell(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        expected, printed = alike(shown, folder), alike(done.stdout, folder)
        if expected.endswith("..."):
            expected, printed = expected[:-3], printed[: len(expected) - 3]
        assert printed == expected, command


def test_the_table_that_comes_out(lab: Lab) -> None:
    """The README's table has the cells of its CSV, and columns of the real table in their order."""
    folder = shop(lab.folder)
    shim(folder)
    for command in ("batchgen init products.csv", "batchgen run products.yaml"):
        assert shell(command, folder).returncode == 0
    table = README.split("```csv")[1].split("## ")[0]
    shown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|") and "---" not in line
    ]
    with open(folder / "real/products.simulated/results.csv", encoding="utf-8", newline="") as file:
        made = list(csv.DictReader(file, delimiter=";"))
    assert shown[0] == [name for name in made[0] if name in shown[0]]
    for cells, row in zip(shown[1:], made, strict=True):
        for name, cell in zip(shown[0], cells, strict=True):
            assert name in ("output", "cost") or row[name] == cell


def test_the_batch_of_the_docs(lab: Lab) -> None:
    """The commands about batches print what is shown: the first run ends with 6, the next 0."""
    folder = shop(lab.folder)
    shim(folder, extra="")
    (block,) = blocks("shell-session", "docs/batches.md")
    with serving(Settings(batch_speed=0)) as api:
        env = {"OPENAI_BASE_URL": api.url, "OPENAI_API_KEY": "sk-test"}
        assert shell("batchgen init products.csv", folder, **env).returncode == 0
        with open(folder / "products.yaml", "a", encoding="utf-8") as file:
            # What a server of one's own costs is not known.
            file.write("\npricing: {gpt-5.6-luna: {input: 0.05, output: 0.4}}\n")
        codes = []
        for command, shown in steps(block):
            done = shell(command, folder, **env)
            codes.append(done.returncode)
            printed, expected = (
                re.sub(r"batch_(sim)?[0-9a-f]{6,}", "batch_ID", text)
                for text in (done.stdout, shown)
            )
            assert alike(printed, folder) == alike(expected, folder), command
        assert codes == [6, 0, 0]
        for command in (
            "batchgen cancel products.yaml --wait",
            "batchgen run products.yaml --mode online",
        ):
            assert f"`{command}`" in PAGES["docs/batches.md"]
            assert shell(command, folder, **env).returncode == 0


@pytest.mark.parametrize(("command", "shown"), HELP, ids=[command for command, _ in HELP])
def test_help_is_current(command: str, shown: str) -> None:
    """Every help text in docs/commands.md is what the command prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.strip() == shown.strip()


def test_help_of_every_command_is_there() -> None:
    """No command is left out."""
    assert [command for command, _ in HELP] == [
        "batchgen --help",
        *(f"batchgen {name} --help" for name in main.commands),
    ]


def test_the_first_command(lab: Lab) -> None:
    """The README's first command, without installation and key, makes tables and pictures."""
    install, _, command = blocks("sh")[0].strip().rpartition(" && ")
    assert install.startswith("python3 -m venv .venv && .venv/bin/pip install")
    shutil.copytree(ROOT / "jobs", lab.folder / "jobs")
    shim(lab.folder, extra="")
    done = shell(command.replace(".venv/bin/batchgen", "batchgen"), lab.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(lab.table("product-copy", simulated=True)) == 16
    assert len(list((lab.output("posters", simulated=True) / "images").iterdir())) == 12
    with_key = command.replace(".venv/bin/batchgen", "echo")
    assert "--simulate" not in shell(with_key, lab.folder, OPENAI_API_KEY="x").stdout


def test_the_commands_install_what_there_is() -> None:
    """Both commands name files and extras that exist, and stand on their own."""
    for command in blocks("sh"):
        assert command.startswith(
            "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt "
        )
    assert "[project.optional-dependencies]" in (ROOT / "pyproject.toml").read_text(
        encoding="utf-8"
    )
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)


def test_every_requirement_is_pinned() -> None:
    """constraints.txt pins all that pyproject.toml asks for."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for group in project["optional-dependencies"].values() for each in group),
    ]
    names = {re.split(r"[\[><=]", each)[0].lower().replace("_", "-") for each in wanted}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert names <= {pin.split("==")[0].lower().replace("_", "-") for pin in pins}


def test_the_cron_line(lab: Lab) -> None:
    """P15 The cron line runs from /, without an environment, and says nothing when all is well."""
    folder = shop(lab.folder)
    path = shim(folder, extra="--simulate")
    assert shell("batchgen init products.csv", folder).returncode == 0
    line = blocks("crontab")[0].strip().split(maxsplit=5)
    command = (
        line[5]
        .replace(HOME, str(folder))
        .replace("/home/you/batchgen/.venv/bin/batchgen", str(path))
    )
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd="/", env={}, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (lab.output("products", simulated=True) / "results.csv").exists()


def test_the_job_file_is_a_job(lab: Lab) -> None:
    """The job that shows every section loads and can be planned, and shows every section."""
    folder = shop(lab.folder)
    path = folder / "job.yaml"
    (shown,) = blocks("yaml", "docs/job-file.md")
    path.write_text(shown, encoding="utf-8")
    job = load_job(path, environ={})
    assert plan(job).total == 2 * 4
    for name in type(job).model_fields:
        assert name == "mode" or f"{name}:" in shown
    for section in (job.limits, job.retry, job.output):
        fields = type(section).model_fields.items()
        keys = {field.alias or name for name, field in fields}
        assert keys <= set(re.findall(r"(\w+):", shown))


def test_the_python_example(lab: Lab) -> None:
    """The Python example runs, and prints what its comments say."""
    shutil.copytree(ROOT / "jobs", lab.folder / "jobs")
    done = subprocess.run(
        [sys.executable, "-c", blocks("python", "docs/python.md")[0]],
        cwd=lab.folder,
        env={"HOME": str(lab.folder)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0 {'succeeded': 5}" in done.stdout
    assert "KT-1001" in done.stdout


def test_the_exit_codes_are_listed() -> None:
    """P17 The table of exit codes has every code exactly once; both pages have the same table."""
    table = README.split("| exit | meaning")[1].split("\n\n")[0]
    assert table in PAGES["docs/commands.md"]
    listed = [
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", table, flags=re.MULTILINE)
        for code in row.split(",")
    ]
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BatchgenError)
    ]
    codes = {kind.exit_code for kind in kinds} | {0, 3, 6, 130, 143}
    assert sorted(listed) == sorted(codes)
    assert set(PRECEDENCE) == codes


def test_the_map_is_current() -> None:
    """The tree in docs/architecture.md has every room, in the order of the map in batchgen."""
    tree = PAGES["docs/architecture.md"].split("batchgen/\n")[1].split("```")[0]
    listed = re.findall(r"^[├└]── (\w+) ", tree, flags=re.MULTILINE)
    missing = [name for name in ROOMS if name not in listed]
    extra = [name for name in listed if name not in ROOMS]
    assert listed == ROOMS, (
        "the tree in docs/architecture.md differs from the map in batchgen/__init__.py: give each "
        f"room its line in the same order there. Missing: {missing}; not in the map: {extra}"
    )


def test_the_glossaries_agree() -> None:
    """The first table of docs/glossary.md has the words of the glossary in batchgen's docstring."""
    assert batchgen.__doc__
    glossary = batchgen.__doc__.split("The words,")[1].split("\n\n")[1]
    words = re.findall(r"^    (\w[\w ]*?) {2,}\S", glossary, flags=re.MULTILINE)
    table = PAGES["docs/glossary.md"].split("| word | meaning |")[1].split("\n\n")[0]
    listed = re.findall(r"^\| (\w[\w ]*?) \| ", table, flags=re.MULTILINE)
    assert listed == words, (
        "the first table of docs/glossary.md and the glossary in batchgen/__init__.py differ: "
        "give both the same words in the same order"
    )


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page has a file at its end, and the heading that it names."""
    here = (ROOT / page).parent
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)", PAGES[page]):
        path = (here / target).resolve() if target else ROOT / page
        assert path.exists(), target
        if anchor:
            text = PAGES[path.relative_to(ROOT).as_posix()]
            assert anchor in anchors(text), f"{target}#{anchor}"


def test_every_page_is_linked() -> None:
    """docs/index.md and the README link every page of docs."""
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/index.md":
            assert f"({page.removeprefix('docs/')})" in PAGES["docs/index.md"], page
            assert f"({page})" in README, page


def test_the_readme_is_short() -> None:
    """The README has what a person with five minutes needs; the rest is in docs."""
    assert len(README.splitlines()) <= MAX_README_LINES


def test_nobody_is_sent_to_the_index() -> None:
    """The name batchgen on the package index belongs to others: no page installs it from there."""
    for page, text in PAGES.items():
        assert not re.search(
            r"(pip|uv|pipx)[\w -]* (install|add|run) +['\"]?batchgen\b(?!-)", text
        ), page


def test_every_picture_is_small() -> None:
    """A picture of the docs has less than 100 kB."""
    for path in (ROOT / "docs/images").iterdir():
        assert path.stat().st_size < 100_000, path.name


def test_files_that_pages_name_exist() -> None:
    """A path of the code or the tests that a page names leads somewhere."""
    for page, text in PAGES.items():
        for path in re.findall(r"`((?:batchgen|tests|jobs|docs)/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_names_that_pages_give_a_file_are_in_it() -> None:
    """Where a page says that a name is in a file of the code, the file has that name."""
    page = " ".join(PAGES["docs/architecture.md"].split())
    named = re.findall(r"`([\w.]+)`,? (?:in|to|of) `(batchgen/[\w./]+\.py)`", page)
    assert len(named) >= 5
    for name, path in named:
        words = (ROOT / path).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"\b{part}\b", words), f"docs/architecture.md: {name} in {path}"
