"""Whether all that a job needs is there: its key, its server, a disk, this machine.

- `findings`  what was found of one thing, and the exit code of all
- `machine`   the disk, open files and the state folder
- `server`    one free call, and what it says of address, key, certificate, clock, model and limits
- `examine`   all of it, for a job or for the environment alone
"""

from batchgen.doctor.examine import examine
from batchgen.doctor.findings import Finding, exit_code_of

__all__ = ["Finding", "examine", "exit_code_of"]
