"""The journal -> results and errors tables: CSV, JSONL, Parquet, Excel or the Batch API's files.

- `layout`      which columns the tables of a job have
- `answers`     a recorded response -> what it means
- `computed`    the cells of output.columns
- `build`       rows and outcomes -> records; a record is one line of a table
- `wide`        records that differ in one axis -> one record
- `write`       Tables: one pass over the journal writes every table, whole
- `freshness`   whether the tables in a folder are those that would be written
- `formats`     records -> CSV, JSONL, Parquet, a workbook or a DataFrame
- `dataset`     records -> a folder that Hugging Face's `datasets` loads
- `formulas`    cells that a spreadsheet would run
- `chained`     the same records as rows for another job
- `batchfiles`  outcomes -> the lines of the Batch API's output and error files

The network is not needed, so every table can be deleted and written again.
"""

from batchgen.tables.answers import read_answer
from batchgen.tables.build import reason_of
from batchgen.tables.chained import ChainedRow, ChainedRows
from batchgen.tables.formats import frame
from batchgen.tables.layout import (
    LEADING,
    TRAILING,
    TableLayout,
    check_formats,
    check_size,
    conflicts,
    layout_of,
)
from batchgen.tables.write import Tables, table_paths

__all__ = [
    "LEADING",
    "TRAILING",
    "ChainedRow",
    "ChainedRows",
    "TableLayout",
    "Tables",
    "check_formats",
    "check_size",
    "conflicts",
    "frame",
    "layout_of",
    "read_answer",
    "reason_of",
    "table_paths",
]
