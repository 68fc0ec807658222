"""How an open batch is shown, in report.json and by `status`."""

from __future__ import annotations

import time
from typing import Any

from batchgen.dispatch.batches.records import Batch, counts_of


def batch_json(batch: Batch) -> dict[str, Any]:
    """A batch that has not ended, as the server showed it last.

    `age_s` is in seconds, `expires_at` in seconds since 1970.
    """
    answered, failed = counts_of(batch)
    return {
        "id": batch.id,
        "status": batch.status,
        "cancelling": batch.cancel_requested,
        "endpoint": batch.endpoint,
        "model": batch.model,
        "requests": batch.requests,
        "answered": answered,
        "failed": failed,
        # A clock that was set back since must not show a negative age.
        "age_s": max(0, round(time.time() - batch.made_at)),
        "expires_at": batch.seen.get("expires_at"),
    }
