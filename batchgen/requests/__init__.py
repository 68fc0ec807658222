"""Job + row -> Request: the API's own body, rendered, with its fingerprint.

- `templates`  the job's strings as functions of a row's values
- `sandbox`    the Jinja2 that runs them, with `metering` (its bounds) and `filters`
- `where`      which rows the job is about
- `uploads`    the picture files that rows name
- `checks`     what is wrong with a request, in the job file or in one row
- `conversations`  the filter that makes messages of conversations as data sets have them
- `emptiness`  whether a row leaves its prompt empty
- `content`    texts that are missing, and numbers that stand for texts
- `bounds`     the most tokens that a request can use
- `request`    `Request`, and canonical JSON
- `columns`    `output.columns`: cells that are computed from answers
- `render`     `Renderer`, which makes requests out of rows

The fingerprint is SHA-256 over canonical JSON of the scheme, the provider, the endpoint, the
rendered body, the hashes of uploaded files and the fingerprint of the turn before. Settings that do
not change the answer (limits, retries, time-outs, output) and defaults that batchgen adds by itself
are left out of it.
"""

from batchgen.requests.bounds import (
    MAX_PICTURE_TOKENS,
    TYPICAL_PICTURE_TOKENS,
    searches,
    server_tools,
)
from batchgen.requests.checks import unknown_column
from batchgen.requests.columns import Blank
from batchgen.requests.faults import RequestError
from batchgen.requests.render import Renderer
from batchgen.requests.request import (
    SCHEME,
    Axes,
    Request,
    canonical,
    combinations,
    with_correction,
    with_history,
    without_system_messages,
)
from batchgen.requests.uploads import PictureStamp, Upload, read_upload, unchanged

__all__ = [
    "MAX_PICTURE_TOKENS",
    "SCHEME",
    "TYPICAL_PICTURE_TOKENS",
    "Axes",
    "Blank",
    "PictureStamp",
    "Renderer",
    "Request",
    "RequestError",
    "Upload",
    "canonical",
    "combinations",
    "read_upload",
    "searches",
    "server_tools",
    "unchanged",
    "unknown_column",
    "with_correction",
    "with_history",
    "without_system_messages",
]
