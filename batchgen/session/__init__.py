"""What one run opens and closes.

- `options`     what the caller may set for a run
- `session`     Session: folder, lock, journal and signals, and the steps of a run
- `backends`    the server, the client and the backends that a run sends with
- `budgets`     how much a run may still spend, and how many rows may still fail
- `key_spending`  what a run spends with its key, in the file of all jobs
- `progress`    tells the caller how far a run is
- `memory`      keeps the garbage collector off the objects that outlive a run
- `event_loop`  runs a coroutine to its end
- `batch_ids`   which of a job's batches a command names
- `provenance`  what the journal keeps about how a run's answers came to be
"""

from batchgen.session.batch_ids import require_open_batches
from batchgen.session.options import Options, ProgressCallback
from batchgen.session.session import Session

__all__ = ["Options", "ProgressCallback", "Session", "require_open_batches"]
