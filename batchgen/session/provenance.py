"""What the journal keeps about how a run's answers came to be."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import batchgen
from batchgen.errors import OutputError
from batchgen.journal import Journal
from batchgen.session.options import Options
from batchgen.spend import key_label, remember
from batchgen.workspace import Workspace

_PACKAGES = ("openai", "aiohttp", "jinja2", "pydantic", "genai-prices")


def provenance(
    workspace: Workspace, options: Options, journal: Journal, key: str | None
) -> dict[str, Any]:
    """The versions, the server, the job, the prompts and the options of a run; no secrets.

    Of the `key` there is what it is called.
    """
    prompts = workspace.staged(journal)
    return {
        "versions": {
            "batchgen": batchgen.__version__,
            **{name: version(name) for name in _PACKAGES},
        },
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "base_url": workspace.connection.base_url,
        "provider": workspace.connection.provider_id,
        "simulated": workspace.simulate,
        "key": key_label(workspace.job, key),
        "job": str(workspace.job.path),
        "job_sha256": hashlib.sha256(workspace.job.text.encode()).hexdigest(),
        "prompts": prompts.source,
        "prompts_sha256": prompts.digest,
        "limit": options.limit,
        "sample": options.sample,
        "seed": options.seed if options.sample is not None else None,
        "max_cost": options.max_cost,
    }


def note_journal(workspace: Workspace, say: Callable[[str], None]) -> None:
    """Note the journal for `batchgen spend`, unless it is simulated; a run goes on without."""
    if workspace.simulate:
        return
    try:
        remember(workspace.folder, workspace.job.name)
    except OutputError as error:
        say(f"batchgen spend will not count this job: {error}")
