"""One job's folder, lock and journal, and what makes its requests, prices and tables.

- `workspace`  Workspace
- `costs`      what the requests to send cost
- `upstream`   the answers of another job as prompts
- `lock`       one process at a time
- `running`    what a run publishes of itself while it goes on
- `inputs`     the files that a job is made of, which it must never write over
"""

from batchgen.workspace.costs import estimated, highest_cost
from batchgen.workspace.running import RunningNote, publishing, read_running
from batchgen.workspace.workspace import SIMULATED_PROVIDER, Workspace

__all__ = [
    "SIMULATED_PROVIDER",
    "RunningNote",
    "Workspace",
    "estimated",
    "highest_cost",
    "publishing",
    "read_running",
]
