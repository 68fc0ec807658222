"""What dispatch needs of the journal and the picture folder.

- `source`       rows -> the threads of requests to send
- `past`         a turn's request, and the conversation that it is sent with
- `reader`       a reply -> an answer, with its pictures stored as files
- `corrections`  which answers that do not fit are asked for again, and how
- `judgement`    recorded answers are judged again when the job asks for something else
- `recorder`     attempts and outcomes -> the journal
- `batches`      batches and their members -> the journal, and back

A picture's file is whole before the outcome that names it is committed.
"""

from batchgen.recorder.batches import JournalBatchRecorder
from batchgen.recorder.corrections import Corrections
from batchgen.recorder.judgement import judge_again
from batchgen.recorder.past import NO_PAST, Past, past_after, render_row
from batchgen.recorder.pictures import picture_folder, settle_pictures
from batchgen.recorder.reader import FolderReplyReader, judged_answer
from batchgen.recorder.recorder import JournalRecorder
from batchgen.recorder.source import RequestSource

__all__ = [
    "NO_PAST",
    "Corrections",
    "FolderReplyReader",
    "JournalBatchRecorder",
    "JournalRecorder",
    "Past",
    "RequestSource",
    "judge_again",
    "judged_answer",
    "past_after",
    "picture_folder",
    "render_row",
    "settle_pictures",
]
