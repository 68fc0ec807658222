"""What dispatch needs of the journal and the picture folder.

- `source`    rows -> the threads of requests to send
- `reader`    a reply -> an answer, with its pictures stored as files
- `recorder`  attempts and outcomes -> the journal
- `batches`   batches and their members -> the journal, and back

A picture's file is whole before the outcome that names it is committed.
"""

from batchgen.recorder.batches import JournalBatchRecorder
from batchgen.recorder.pictures import picture_folder, settle_pictures
from batchgen.recorder.reader import FolderReplyReader
from batchgen.recorder.recorder import JournalRecorder
from batchgen.recorder.source import RequestSource, render_row

__all__ = [
    "FolderReplyReader",
    "JournalBatchRecorder",
    "JournalRecorder",
    "RequestSource",
    "picture_folder",
    "render_row",
    "settle_pictures",
]
