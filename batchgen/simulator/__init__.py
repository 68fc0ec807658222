"""An OpenAI-compatible server on loopback: for a start without a key, rehearsals and tests.

It answers as the API does (shapes, errors, limits, headers), never from a model: every text,
picture and vector is marked as simulated and is the same for the same request body, in every
process. It can be slow, limited or faulty on purpose. It imports nothing of batchgen except
`errors`.

```text
server.py      sockets, and the order of a request      settings.py   what it simulates
standalone.py  the command `batchgen simulate`         stats.py      counts, and the log
endpoints.py   each path: read, check, charge, answer   limits.py     limits per minute
calls.py       HTTP request -> Call                     faults.py     the ways a server misbehaves
checks.py      Call -> the API's own refusals           draws.py      the fault of each request
answers.py     Call -> official answer                  refusals.py   the official error shape
texts.py       Call -> words and tokens                 pictures.py   prompt -> PNG, WebP, JPEG

batches/       the Batch API and its files:
resources.py   routes of /files and /batches           files.py      uploads and results, on disk
lifecycle.py   create, poll, list, cancel              batch.py      one batch, by the clock
tasks.py       an input file, checked                  outputs.py    its output and error file
```

Words in a prompt that steer it, for rehearsals:

- `ECHO:` at the start of the last user message: the answer is exactly the text after it.
- `[policy]` anywhere: refused for its content with 400 (`/moderations` flags it instead).
- a model whose name starts with `missing-`: 404 `model_not_found`.
"""

from __future__ import annotations

from batchgen.simulator.batches.batch import BatchInfo, Fate
from batchgen.simulator.faults import DEFAULT_FAULTS, FAULTS
from batchgen.simulator.server import Simulator
from batchgen.simulator.settings import Settings
from batchgen.simulator.standalone import serve
from batchgen.simulator.stats import Received, RequestInfo, Stats

__all__ = [
    "DEFAULT_FAULTS",
    "FAULTS",
    "BatchInfo",
    "Fate",
    "Received",
    "RequestInfo",
    "Settings",
    "Simulator",
    "Stats",
    "serve",
]
