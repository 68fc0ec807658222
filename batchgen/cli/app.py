"""The `batchgen` command: the group of commands, and the exit code of every error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

import batchgen
from batchgen.cli.cancel import cancel
from batchgen.cli.diff import diff
from batchgen.cli.doctor import doctor
from batchgen.cli.export import export
from batchgen.cli.init import init
from batchgen.cli.jobs_json import jobs_json
from batchgen.cli.plan import plan
from batchgen.cli.redo import redo
from batchgen.cli.run import run
from batchgen.cli.run_batch import run_batch
from batchgen.cli.show import show
from batchgen.cli.spend import spend
from batchgen.cli.status import status
from batchgen.cli.terminal import (
    as_json,
    flush_stdout,
    prepare_streams,
    print_message,
    print_result,
)
from batchgen.cli.tools import schema, simulate
from batchgen.cli.verify import verify
from batchgen.cli.view import view
from batchgen.errors import BatchgenError, OutputError


class CommandGroup(click.Group):
    """A group whose commands end with the exit codes of the errors that they raise."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **kwargs: Any) -> NoReturn:
        """Run a command, then exit with one of the documented codes.

        An error goes to stderr; under --json it is also printed to stdout, as one object.
        """
        prepare_streams()
        argv = list(sys.argv[1:] if args is None else args)
        message = None
        try:
            code = super().main(
                argv, **{**kwargs, "prog_name": "batchgen", "standalone_mode": False}
            )
        except BatchgenError as error:
            code, message = error.exit_code, str(error)
            print_message(message)
        except click.ClickException as error:
            code, message = 2, error.format_message()
            error.show()
        except (click.Abort, KeyboardInterrupt):
            code = 130
        except SystemExit:
            code = 0  # click ends in this way when the reader of --help has closed the pipe
        except Exception as error:
            code, message = 1, _bug_report(error)
            print_message(message)
        if message is not None and "--json" in argv:
            with suppress(OutputError):
                print_result(as_json(jobs_json(code, [], message)))
        flush_stdout()
        sys.exit(code or 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which people use them; click sorts them by name."""
        return list(self.commands)


def _bug_report(error: Exception) -> str:
    """The error's type and the last frames of its traceback.

    The message and the chained errors are left out: they may hold a key or a customer's text.
    """
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"  {Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    head = f"batchgen: a bug: {type(error).__name__}; please report it with these lines:"
    return "\n".join([head, *frames[-8:]])


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(batchgen.__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Send bulk prompts from a CSV or JSONL file through the OpenAI API, and record every answer
    once, in a table.

    Exit codes: 0 every row succeeded (or enough of them: max_failures); 2 the command, the job or
    the prompts are wrong; 3 some rows failed or are incomplete; 4 the account or the server stopped
    the run; 5 a limit of the job stopped it; 6 batches are at the server, run again later; 74 the
    output is full, not writable or damaged; 75 the job is running already; 130, 143 interrupted.
    """


for _command in (init, doctor, plan, run, run_batch, cancel, redo):
    main.add_command(_command)
for _command in (show, diff, view, status, spend, export, verify, schema, simulate):
    main.add_command(_command)
