"""The sections of a job file: the keys each may have, their types and defaults.

The descriptions go into the JSON Schema, where editors show them. A validator raises ValueError
with a sentence for the user that follows the key's name.
"""

from batchgen.job.sections.limits import Batches, Limits, Retry
from batchgen.job.sections.notify import NOTICE_FIELDS, PLACEHOLDER, Event, Notify
from batchgen.job.sections.output import Output, OutputCsv, TableFormat
from batchgen.job.sections.pricing import Price
from batchgen.job.sections.prompts import (
    CUSTOM_ID,
    OPENAI_BATCH,
    SET_BY_ROWS,
    Conversation,
    Prompts,
    PromptsFormat,
)
from batchgen.job.sections.provider import Provider
from batchgen.job.sections.section import Section

__all__ = [
    "CUSTOM_ID",
    "NOTICE_FIELDS",
    "OPENAI_BATCH",
    "PLACEHOLDER",
    "SET_BY_ROWS",
    "Batches",
    "Conversation",
    "Event",
    "Limits",
    "Notify",
    "Output",
    "OutputCsv",
    "Price",
    "Prompts",
    "PromptsFormat",
    "Provider",
    "Retry",
    "Section",
    "TableFormat",
]
