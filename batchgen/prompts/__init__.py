"""Prompt files -> Prompt, one at a time.

Texts (CSV, TSV, JSONL, JSON, plain text, the Batch API's input) come from a file, packed or not, or
from a stream; Parquet and spreadsheets from a file; rows of Python's objects from a caller.

Cells are never interpreted: in CSV `007`, `NA`, `1e3` and the empty cell stay text, and what has
types keeps them. Memory holds few rows, never the whole file, but for spreadsheets, which come
whole. The flow:

- `opening`    a path or a stream -> an open prompts file: the checks, and the reader of its format
- `formats`    what a file is, by its name and by its first bytes
- `sources`    a path or a stream -> bytes, hashed and unpacked
- `lines`      bytes -> lines of text, checked and bounded
- `charset`    the encoding of a file that is not UTF-8, for who asks
- `letters`    letters that stand where no language has them, a sign of the wrong encoding
- `delimited`  lines -> records of CSV and TSV
- `table`      records of cells -> rows by the names of a header
- `options`    how the table in a file is written
- `records`    lines -> rows of JSONL and plain text
- `documents`  text -> rows of a JSON array
- `batchfile`  lines -> rows that are themselves requests, as the Batch API takes them
- `parquet`    a Parquet file -> rows
- `sheets`     a spreadsheet -> rows
- `cells`      the values of these two as JSON has them
- `given`      rows that a caller in Python gives -> rows
- `objects`    their values as JSON has them
- `rows`       a raw row, and the two kinds of error: of one row, and of the file
- `reader`     the rows as numbered prompts, and everything that is wrong with them
"""

from batchgen.prompts.given import GivenRows, open_given
from batchgen.prompts.lines import LIMIT
from batchgen.prompts.opening import open_prompts
from batchgen.prompts.options import TableOptions
from batchgen.prompts.reader import Dialect, Prompt, PromptsFile
from batchgen.prompts.sources import file_digest

__all__ = [
    "LIMIT",
    "Dialect",
    "GivenRows",
    "Prompt",
    "PromptsFile",
    "TableOptions",
    "file_digest",
    "open_given",
    "open_prompts",
]
