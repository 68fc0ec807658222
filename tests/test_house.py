"""The rules of the house: the order of imports, the doors of packages, start-up, sizes, names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from fast import FAST
from house_rules import (
    DISPATCH,
    LONGEST_FILE,
    LONGEST_INIT,
    TYPE_LISTS,
    WIDEST_LINE,
    forbidden_names,
    long_functions,
    unnamed_parameters,
)
from rooms import HOUSE, MODULES, ROOMS

import batchgen

# The only rooms that may import each package. Every room may import the standard library.
DOORS: dict[str, set[str]] = {
    "yaml": {"job"},
    "dotenv": {"job"},
    "pydantic": {"job"},
    "jinja2": {"requests", "page"},
    "jsonschema_rs": {"schemas"},
    "openai": {"dispatch"},
    "httpx2": {"dispatch"},
    "aiohttp": {"dispatch", "simulator", "view"},
    "yarl": {"dispatch.api.http"},
    "tenacity": {"dispatch.retry"},
    "genai_prices": {"pricing"},
    "charset_normalizer": {"prompts.charset"},
    "filelock": {"workspace"},
    "PIL": {"images", "simulator", "page"},
    "pygal": {"page"},
    "pandas": {"tables"},
    "pyarrow": {"tables", "prompts.parquet"},
    "python_calamine": {"prompts.sheets"},
    "xlsxwriter": {"tables"},
    "click": {"cli"},
    "tqdm": {"cli"},
}
# Packages that take tenths of a second to import. Only sending and making tables may import them.
HEAVY = (
    "jsonschema_rs",
    "openai",
    "aiohttp",
    "httpx2",
    "yarl",
    "pandas",
    "pyarrow",
    "xlsxwriter",
    "genai_prices",
)


def imported(name: str, path: Path) -> Iterator[tuple[str, bool]]:
    """The absolute names that a module imports, late imports included.

    True with those that only the type checker imports.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    here = ["batchgen", *name.split(".")]
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in checking) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source, id(node) in checking
            if source == "batchgen" or node.module is None:
                yield from (
                    (f"{source}.{alias.name}", id(node) in checking) for alias in node.names
                )


def room(name: str) -> str:
    return name.split(".")[0]


def test_the_map_lists_every_room() -> None:
    """The map in batchgen's docstring lists every module or its package, and nothing else."""
    assert {room(name) for name, _ in MODULES} == set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS))


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_point_up_the_list(name: str, path: Path) -> None:
    """A room imports only from rooms above it; within a package imports are free."""
    above = ROOMS[: ROOMS.index(room(name))]
    for source, _ in imported(name, path):
        if source.startswith("batchgen."):
            target = source.split(".")[1]
            assert target == room(name) or target in above, f"{name} imports {source}"


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_packages_have_doors(name: str, path: Path) -> None:
    """A package is imported by its own rooms only, so that one room changes when it is replaced.

    Imports for the type checker are free.
    """
    for source, only_types in imported(name, path):
        doors = DOORS.get(source.split(".")[0])
        if doors is not None and not only_types:
            assert {name, name.rpartition(".")[0], room(name)} & doors, (
                f"{name} imports {source}; its doors are {sorted(doors)}"
            )


TESTS = Path(__file__).parent
# Where a package is imported under another name than the one it is installed by.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "dotenv": "python-dotenv"}


def test_every_import_is_declared() -> None:
    """What the package imports is a dependency of its own, and not one that another happens to
    bring.
    """
    text = (HOUSE.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["parquet"], *extras["excel"]]
    declared = {re.split(r"[\[>=<]", requirement)[0].replace("-", "_") for requirement in wanted}
    packages = {
        source.split(".")[0] for name, path in MODULES for source, _ in imported(name, path)
    } - {*sys.stdlib_module_names, "batchgen"}
    assert {DISTRIBUTIONS.get(each, each).replace("-", "_") for each in packages} <= declared


def sources(*folders: Path) -> list[tuple[Path, str]]:
    """The Python files below these folders, each with the name that the tables of rules use."""
    paths = (path for folder in folders for path in folder.rglob("*.py"))
    return [(path, path.relative_to(TESTS.parent).as_posix()) for path in sorted(paths)]


def without_pragma(line: str) -> str:
    """The line without a comment that is meant for ruff or mypy, which cannot be wrapped."""
    return re.sub(r"\s+# (type: ignore|noqa).*", "", line)


def test_files_are_short() -> None:
    """No file has more lines than a reader keeps in mind, and an `__init__` holds no machinery."""
    too_long = []
    for path, shown in sources(HOUSE):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        is_init = path.name == "__init__.py" and shown not in TYPE_LISTS
        most = LONGEST_INIT if is_init else LONGEST_FILE
        if lines > most:
            too_long.append(f"{shown} has {lines} lines; at most {most}")
    assert not too_long


def test_functions_are_short() -> None:
    """No function is longer than a screen."""
    assert not [
        f"{shown}: {name} has {length} lines"
        for path, shown in sources(HOUSE)
        for name, length in long_functions(path)
    ]


def test_many_parameters_are_named() -> None:
    """The docstring of a callable with five or more parameters names each of them.

    Those of a command are options, which its --help explains.
    """
    assert not [
        f"{shown}: {missing}"
        for path, shown in sources(HOUSE)
        if not shown.startswith("batchgen/cli/")
        for missing in unnamed_parameters(path)
    ]


def test_lines_are_narrow() -> None:
    """No line is too wide, docstrings, comments and tests included."""
    assert not [
        f"{shown}:{number}"
        for path, shown in sources(HOUSE, TESTS)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(without_pragma(line)) > WIDEST_LINE and "://" not in line
    ]


def test_names_are_the_fields_own_words() -> None:
    """No name is made of a word that used to mean several things here, or that only we use."""
    assert not [
        message for path, shown in sources(HOUSE, TESTS) for message in forbidden_names(path, shown)
    ]


def test_exceptions_are_named_error() -> None:
    """Every exception class ends in Error (PEP 8)."""
    for name, _ in MODULES:
        module = import_module(f"batchgen.{name}")
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, BaseException):
                own = each.__module__.startswith("batchgen")
                assert not own or each.__name__.endswith("Error"), f"{name}: {each.__name__}"


def test_dispatch_is_in_order() -> None:
    """Within dispatch, types are below the API, the API below limits, and limits below backends."""
    for name, path in MODULES:
        parts = name.split(".")
        if parts[0] != "dispatch":
            continue
        part = parts[1] if len(parts) > 1 else ""
        for source, _ in imported(name, path):
            target = source.removeprefix("batchgen.dispatch").removeprefix(".").split(".")[0]
            if source.startswith("batchgen.dispatch"):
                # `from batchgen.dispatch import Failure` names a type, not a part.
                target = target if target in DISPATCH else ""
                assert target in {part, *DISPATCH[part]}, f"{name} imports {source}"


def test_the_fast_tests_exist() -> None:
    """Every file and folder that `pytest -m fast` names exists."""
    assert not [name for name in FAST if not (TESTS / name).exists()]


def test_no_room_for_odds_and_ends() -> None:
    """No module is a drawer for odds and ends."""
    drawers = {"utils", "util", "common", "helpers", "helper", "types", "misc", "base", "core"}
    assert not [name for name, _ in MODULES if set(name.split(".")) & drawers]


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_files_are_opened_in_an_encoding(name: str, path: Path) -> None:
    """P15 No file is opened in the machine's default encoding, and only `cli` prints."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        named = {keyword.arg for keyword in node.keywords}
        if called in ("read_text", "write_text") and isinstance(node.func, ast.Attribute):
            assert "encoding" in named, f"{name}:{node.lineno}"
        if called == "open" and isinstance(node.func, ast.Name):
            modes = [each.value for each in node.args[1:] if isinstance(each, ast.Constant)]
            assert "encoding" in named or any("b" in str(mode) for mode in modes), (
                f"{name}:{node.lineno}"
            )
        assert called != "print", f"{name}:{node.lineno}"


def loaded(code: str, *args: str, cwd: Path | None = None) -> set[str]:
    """The top-level modules that a Python program has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, atexit\n{_DUMP}{code}", *args],
        cwd=cwd,
        env={"HOME": str(cwd or "/")},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return set(done.stderr.rpartition("MODULES ")[2].split())


_DUMP = """atexit.register(lambda: print(
    "MODULES", *{m.split(".")[0] for m in sys.modules}, file=sys.stderr
))
"""
_CLI = "from batchgen.cli import main\nmain()"


@pytest.mark.parametrize(
    "args", [["--help"], ["plan", "j.yaml"], ["status", "j.yaml", "--simulate"], ["schema"]]
)
def test_starting_is_light(tmp_path: Path, args: list[str]) -> None:
    """`--help`, `plan` and `status` do not import openai and pandas, which take seconds."""
    (tmp_path / "p.csv").write_text("id,text\n1,a\n", encoding="utf-8")
    request = '{model: m, messages: [{role: user, content: "{{ text }}"}]}'
    (tmp_path / "j.yaml").write_text(
        f"kind: chat\nprompts: {{path: p.csv}}\nrequest: {request}\n", encoding="utf-8"
    )
    if args[0] == "status":
        loaded(_CLI, "run", "j.yaml", "--simulate", cwd=tmp_path)
    found = loaded(_CLI, *args, cwd=tmp_path)
    assert "batchgen" in found
    assert not found & (
        {"openai", "pandas", "pyarrow", "aiohttp"} if args[0] == "plan" else set(HEAVY)
    )


def test_importing_touches_nothing() -> None:
    """`import batchgen` opens no socket and no file of its own, and reads no variable of ours.

    Files below the package may be opened and listed by Python's import system alone: an audit hook
    sees every call, and the frame that made it.
    """
    code = """
import os
from pathlib import PurePath
read, touched = [], []
def spied(self, key, real=os._Environ.__getitem__):
    read.append(key)
    return real(self, key)
os._Environ.__getitem__ = spied
def audit(event, args):
    if event.startswith("socket."):
        touched.append(event)
    elif event in ("open", "os.listdir", "os.scandir") and isinstance(args[0], (str, PurePath)):
        by = sys._getframe(1).f_code.co_filename
        ours = house + os.sep in os.path.abspath(args[0]) + os.sep
        if ours and by != "<frozen importlib._bootstrap_external>":
            touched.append((event, args[0], by))
sys.addaudithook(audit)
import batchgen
for name in batchgen.__all__: getattr(batchgen, name)
own = [name for name in read if name.startswith(("OPENAI", "BATCHGEN"))]
print("READ", own, touched, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nhouse = {str(HOUSE)!r}\n{code}"],
        env={"OPENAI_API_KEY": "x"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert "READ [] []" in done.stderr, done.stderr


def test_the_public_names_are_there() -> None:
    """Everything in __all__ can be had, and an unknown name is an AttributeError."""
    for name in batchgen.__all__:
        assert getattr(batchgen, name) is not None
    with pytest.raises(AttributeError):
        batchgen.nothing  # noqa: B018


def test_the_error_tree_is_drawn() -> None:
    """Every branch of the error tree is in the drawing, with its exit code."""
    from batchgen import errors

    assert errors.__doc__
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            line = next(
                line for line in errors.__doc__.splitlines() if re.search(rf"\b{name}\b", line)
            )
            assert name == "RunInterruptedError" or re.search(rf"\b{kind.exit_code}\b", line), name  # type: ignore[attr-defined]
