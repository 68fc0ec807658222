"""Print the lowest version that pyproject.toml allows of each package, as constraints for pip."""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main() -> None:
    """`jinja2>=3.1.6` is printed as `jinja2==3.1.6`; any other form of a bound is an error."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *chain.from_iterable(extras.values())]:
        match = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(; .+)?", requirement)
        if match is None:
            sys.exit(f"{PYPROJECT}: {requirement!r} has no lowest version")
        # Some packages are in two extras; pip accepts a constraint twice.
        sys.stdout.write(f"{match[1]}=={match[2]}{match[3] or ''}\n")


if __name__ == "__main__":
    main()
