"""batchgen's command with a clock around its stages: `python stages.py run job.yaml --quiet`.

It ends as the command does. The last line of stderr has the CPU seconds of the whole process by
stage: `staging` is pass 1, `dispatch` everything from the first request to the last commit,
`tables` the tables and the report.
"""

from __future__ import annotations

import atexit
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from batchgen.cli import main
from batchgen.session import Session, session
from batchgen.workspace import Workspace

spent: dict[str, float] = defaultdict(float)


def clocked(owner: Any, name: str, stage: str) -> None:
    """Count the CPU seconds of a function, all threads together, for a stage."""
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(*args: Any, **options: Any) -> Any:
        before = time.process_time()
        try:
            return inner(*args, **options)
        finally:
            spent[stage] += time.process_time() - before

    setattr(owner, name, outer)


clocked(Workspace, "stage", "staging")
clocked(session, "run_to_end", "dispatch")
clocked(Session, "write_tables", "tables")
clocked(Session, "finish", "tables")
atexit.register(lambda: print(json.dumps(spent), file=sys.stderr))
main()
