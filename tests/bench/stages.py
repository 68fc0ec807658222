"""batchgen's command with a clock around its stages: `python stages.py run job.yaml --quiet`.

Ends as the command does, and writes the CPU seconds of the whole process by stage as the last line of stderr: `intake` is
pass 1, `dispatch` everything from the first request to the last commit, `tables` the tables and the report.
"""

from __future__ import annotations

import atexit
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from batchgen import runner
from batchgen.cli import main
from batchgen.workspace import Workspace

spent: dict[str, float] = defaultdict(float)


def clocked(owner: Any, name: str, stage: str) -> None:
    """Count what a function of the runner takes, all threads together, as a stage's."""
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(*args: Any, **options: Any) -> Any:
        before = time.process_time()
        try:
            return inner(*args, **options)
        finally:
            spent[stage] += time.process_time() - before

    setattr(owner, name, outer)


clocked(Workspace, "take_in", "intake")
clocked(runner, "_completed", "dispatch")
clocked(runner, "_finish", "tables")
atexit.register(lambda: print(json.dumps(spent), file=sys.stderr))
main()
