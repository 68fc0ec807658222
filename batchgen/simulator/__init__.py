"""An OpenAI-compatible server on loopback: quickstart without a key, rehearsal, and the other end of the tests.

It answers as the API does (shapes, errors, limits, headers), never from a model: every text, picture and vector is
marked as simulated and is the same for the same request body, in every process. It can be slow, limited or faulty on
purpose. It imports nothing of batchgen except `errors`.

```text
server.py      sockets, routes, the order of things      settings.py   what it simulates
calls.py       HTTP request -> Call                      limits.py     requests, tokens, images per minute
checks.py      Call -> the API's own refusals            faults.py     the ways a server misbehaves
texts.py       Call -> words and tokens                  refusals.py   the official error shape
answers.py     Call -> official answer                   pictures.py   prompt -> PNG, WebP, JPEG
resources.py   /files, /batches: who answers             files.py      uploads and outputs, on disk
batches.py     a batch's way, by the clock               tasks.py      its input file, checked
stats.py       counts, the record of requests
```

Words in a prompt that steer it, as rehearsal aids:

- `ECHO:` at the start of the last user message: the answer is exactly the text after it.
- `[policy]` anywhere: refused for its content with 400 (`/moderations` flags it instead).
- a model whose name starts with `missing-`: 404 `model_not_found`.
"""

from __future__ import annotations

from batchgen.simulator.batches.lifecycle import BatchInfo, Fate
from batchgen.simulator.faults import DEFAULT_FAULTS, FAULTS
from batchgen.simulator.server import Simulator, serve
from batchgen.simulator.settings import Settings
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
