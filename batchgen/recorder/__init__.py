"""What dispatch needs of the journal and the picture folder.

The source makes requests of rows, the reader makes answers and pictures of replies, and the
recorders make outcomes durable. For each request it happens in that order: pictures are whole
before the outcome that names them is committed.
"""

from batchgen.recorder.batches import JournalBatchRecorder
from batchgen.recorder.reader import FolderReplyReader
from batchgen.recorder.recorder import JournalRecorder
from batchgen.recorder.source import RequestSource, render_row

__all__ = [
    "FolderReplyReader",
    "JournalBatchRecorder",
    "JournalRecorder",
    "RequestSource",
    "render_row",
]
