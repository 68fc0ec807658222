"""The command line: one call in, text and an exit code out.

- `app`       the group of commands, the exit codes, `main`
- `options`   the options that commands share, and how a JOB is loaded
- `execute`   how one job is run, and how its end is reported
- `progress`  the progress bar, or progress lines
- `messages`  the lines that `plan` and `status` print
- `terminal`  the streams of the process
- one module for each command; `tools` has `schema` and `simulate`

Results go to stdout, progress and messages to stderr. Only this room may import click and tqdm. A
command imports the rooms that it needs when it runs, so that `--help` stays fast.
"""

from batchgen.cli.app import main
from batchgen.cli.execute import PRECEDENCE

__all__ = ["PRECEDENCE", "main"]
