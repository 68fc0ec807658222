"""A prompts file -> a job that runs, and what was found in the file.

- `options`        what the user says that the file cannot show
- `survey`         one pass over the prompts: what is in each column
- `layout`         how the file is written: where its header is, and what else its name hides
- `shape`          what the rows are, and how the prompt is made of them
- `conversations`  rows that are conversations
- `texts`          rows whose prompt is made of texts in columns, and of a picture
- `identity`       the column that names the rows
- `names`          column names in templates and in YAML
- `job_text`       the text of the job file
- `doubts`         what may be wrong in it
- `findings`       what was found, for a person
- `writing`        the steps, and the last of them: `plan` accepts the job
"""

from batchgen.init.options import InitOptions
from batchgen.init.writing import Written, write_job

__all__ = ["InitOptions", "Written", "write_job"]
