"""The rooms of batchgen, as its docstring lists them, and the modules in them."""

from __future__ import annotations

import re
from pathlib import Path

import batchgen

HOUSE = Path(batchgen.__file__).parent


def rooms() -> list[str]:
    """The rooms in the order of the map in batchgen's docstring."""
    assert batchgen.__doc__
    listed = batchgen.__doc__.split("this list only:\n")[1]
    return re.findall(r"^    (\w+) {2,}\S", listed, flags=re.MULTILINE)


ROOMS = rooms()


def modules() -> list[tuple[str, Path]]:
    """Every module of a room: its name within batchgen, and its file."""
    paths = sorted(path for path in HOUSE.rglob("*.py") if "__pycache__" not in path.parts)
    named = [
        (".".join(path.relative_to(HOUSE).with_suffix("").parts).removesuffix(".__init__"), path)
        for path in paths
    ]
    return [(name, path) for name, path in named if name not in ("__init__", "__main__")]


MODULES = modules()
