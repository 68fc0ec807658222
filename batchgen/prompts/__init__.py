"""Prompt files -> Prompt, one at a time.

A file or a stream is CSV, TSV, JSONL, plain text or the Batch API's input, and may be gzipped.

Cells are never interpreted: `007`, `NA`, `1e3` and the empty cell stay text, and JSON keeps its
types. Memory holds one row, never the whole file. The flow:

- `sources`    a path or a stream -> bytes, hashed and unzipped
- `lines`      bytes -> lines of text, checked and bounded
- `delimited`  lines -> rows of CSV and TSV
- `records`    lines -> rows of JSONL and plain text
- `batchfile`  lines -> rows that are themselves requests, as the Batch API takes them
- `rows`       a raw row, and the two kinds of error: of one row, and of the file
- `reader`     the rows as numbered prompts, and everything that is wrong with them
"""

from batchgen.prompts.lines import LIMIT
from batchgen.prompts.reader import Dialect, Prompt, PromptsFile, open_prompts
from batchgen.prompts.sources import file_digest

__all__ = ["LIMIT", "Dialect", "Prompt", "PromptsFile", "file_digest", "open_prompts"]
