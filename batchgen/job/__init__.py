"""job.yaml -> Job: read and checked, with every problem at once as file:line:column.

- `positions`   key paths, lines and columns
- `wording`     PyYAML's and pydantic's errors in plain words, and what looks like an API key
- `yaml_nodes`  text -> plain data and the position of every value; the only door to PyYAML
- `values`      the checks of single values
- `provider`    where requests go and with which key; the environment and `.env`
- `sections`    the sections of a job file
- `model`       `Job`, and its JSON Schema
- `load`        a job file, or the options of run-batch -> `Job`
- `variants`    a job that the caller has changed
"""

from batchgen.job.load import job_for_batch_file, load_job
from batchgen.job.model import (
    TEXT_KINDS,
    TURN_KINDS,
    Job,
    KindName,
    Mode,
    json_schema,
)
from batchgen.job.positions import KeyPath, dotted
from batchgen.job.provider import DEFAULT_URL, Connection, api_key, connection
from batchgen.job.sections import (
    NOTICE_FIELDS,
    OPENAI_BATCH,
    PLACEHOLDER,
    Conversation,
    Event,
    Limits,
    Notify,
    Output,
    OutputCsv,
    Price,
    Prompts,
    PromptsFormat,
    Provider,
    Retry,
)
from batchgen.job.values import MaxFailures, unsendable
from batchgen.job.variants import as_called, with_mode, with_prompts

__all__ = [
    "DEFAULT_URL",
    "NOTICE_FIELDS",
    "OPENAI_BATCH",
    "PLACEHOLDER",
    "TEXT_KINDS",
    "TURN_KINDS",
    "Connection",
    "Conversation",
    "Event",
    "Job",
    "KeyPath",
    "KindName",
    "Limits",
    "MaxFailures",
    "Mode",
    "Notify",
    "Output",
    "OutputCsv",
    "Price",
    "Prompts",
    "PromptsFormat",
    "Provider",
    "Retry",
    "api_key",
    "as_called",
    "connection",
    "dotted",
    "job_for_batch_file",
    "json_schema",
    "load_job",
    "unsendable",
    "with_mode",
    "with_prompts",
]
