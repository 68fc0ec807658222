"""What a prompts file is: by its name, and by its first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from batchgen.prompts.rows import FileError

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".ods": "ods",
}
# The formats that are no text. They are read from a file only: their index is at its end.
BINARY = ("parquet", "xlsx", "ods")
# What may follow the ending of a text.
PACKINGS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}

_BY_PANDAS = (
    "convert it with: python -c \"import pandas; pandas.read_{}('IN')"
    ".to_json('OUT.jsonl', orient='records', lines=True, date_format='iso')\""
)
_BY_SQLITE = 'convert it with: sqlite3 -header -csv IN "SELECT * FROM its_table" > OUT.csv'
_BY_YAML = (
    'convert it with: python -c "import json, yaml; '
    "[print(json.dumps(row)) for row in yaml.safe_load(open('IN', encoding='utf-8'))]\" > OUT.jsonl"
)
_BY_SPREADSHEET = "open it in a spreadsheet program and save it as .xlsx"
_BY_UNPACKING = "unpack it, and name the file in it"
# Formats that others have, and how a file becomes one that batchgen reads. IN is its name, OUT the
# same without its ending.
_CONVERSIONS = {
    **dict.fromkeys((".arrow", ".feather"), _BY_PANDAS.format("feather")),
    **dict.fromkeys((".pkl", ".pickle"), _BY_PANDAS.format("pickle")),
    **dict.fromkeys((".h5", ".hdf5"), _BY_PANDAS.format("hdf")),
    ".orc": _BY_PANDAS.format("orc"),
    ".dta": _BY_PANDAS.format("stata"),
    ".sav": _BY_PANDAS.format("spss"),
    ".sas7bdat": _BY_PANDAS.format("sas"),
    ".xml": _BY_PANDAS.format("xml"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), _BY_SQLITE),
    **dict.fromkeys((".yaml", ".yml"), _BY_YAML),
    **dict.fromkeys((".xls", ".xlsb", ".xlsm", ".numbers"), _BY_SPREADSHEET),
    **dict.fromkeys((".tar", ".tgz", ".7z", ".rar"), _BY_UNPACKING),
}

_WRONG_NAME = "is {}, whatever its name says; end its name in {}"
# The bytes with which a file of a format begins that is not text, and what to do about it.
_MAGIC = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "is a Git LFS pointer, which stands for the file; fetch the file with: git lfs pull",
    ),
    (
        rb"PAR1[\0-\x08\x0e-\x1f]",
        _WRONG_NAME.format("a Parquet file", ".parquet, or set prompts.format: parquet"),
    ),
    (
        rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis\.opendocument\.spreadsheet",
        _WRONG_NAME.format("a spreadsheet", ".ods, or set prompts.format: ods"),
    ),
    (
        rb"PK\x03\x04.{26}(\[Content_Types\]|_rels/|docProps/|xl/)",
        _WRONG_NAME.format("a spreadsheet", ".xlsx, or set prompts.format: xlsx"),
    ),
    (rb"PK\x03\x04", _WRONG_NAME.format("a zip file", ".zip, as in p.csv.zip, or unzip it")),
    (rb"\x1f\x8b", "is compressed with gzip; end its name in .gz, or pipe it through gunzip"),
    (rb"BZh[1-9]1AY&SY", "is compressed with bzip2; end its name in .bz2"),
    (rb"\xfd7zXZ\0", "is compressed with xz; end its name in .xz"),
    (rb"\x28\xb5\x2f\xfd", "is compressed with zstd; end its name in .zst"),
    (
        rb"\xd0\xcf\x11\xe0\xa1\xb1",
        f"is an Office file that is old or encrypted; {_BY_SPREADSHEET}",
    ),
    (rb"SQLite format 3\0", "is an SQLite database; export a table of it as CSV"),
    (rb"ARROW1\0", "is an Arrow or Feather file; save it as Parquet"),
    (
        rb"(\xef\xbb\xbf)?\s*<(?i:!doctype html|html)[\s>]",
        "is an HTML page, and not what it links to; download the file itself, signed in if need be",
    ),
    (rb"\{\\rtf1", "is a document in RTF; save it as plain text (.txt)"),
    (rb"%PDF-", "is a PDF, which has no rows; put its text into a CSV"),
)
# Of the bytes before, the formats that are read from a file themselves.
_MAGIC_OF_BINARY = {"parquet": rb"PAR1", "xlsx": rb"PK\x03\x04", "ods": rb"PK\x03\x04"}
# How many bytes of a file `check_bytes` needs.
MAGIC_BYTES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class FileName:
    """What the name of a prompts file says.

    format: as in `prompts.format`; None: nothing that batchgen reads.
    packing: the ending of its compression, a key of PACKINGS, or empty.
    stem: the name without these endings.
    """

    format: str | None
    packing: str
    stem: str

    @classmethod
    def of(cls, name: str) -> FileName:
        """Take a name apart; capital letters in its endings do not matter."""
        path = PurePath(name)
        packing = path.suffix.lower() if path.suffix.lower() in PACKINGS else ""
        if packing:
            path = PurePath(path.stem)
        return cls(format=SUFFIXES.get(path.suffix.lower()), packing=packing, stem=path.stem)


def unknown_ending(name: str) -> FileError:
    """A name that does not say a format, with what to do about it."""
    path = PurePath(name)
    suffix = path.suffix.lower()
    if suffix in _CONVERSIONS:
        line = _CONVERSIONS[suffix].replace("IN", path.name).replace("OUT", path.stem)
        return FileError(0, f"batchgen does not read {suffix}; {line}")
    return FileError(
        0,
        f"the name ends in none of {' '.join(SUFFIXES)} (texts also followed by "
        f"{' '.join(PACKINGS)}); if the file is one of these, set prompts.format",
    )


def check_bytes(head: bytes, format: str) -> None:  # noqa: A002 - the job file's own word
    """Raise FileError when the first bytes of a file are not those of the format.

    `head` has at least the first MAGIC_BYTES, or all there are.
    """
    own = _MAGIC_OF_BINARY.get(format)
    if own and re.match(own, head):
        return
    for magic, sentence in _MAGIC:
        if re.match(magic, head, re.DOTALL):
            raise FileError(0, sentence)
    if own and head:
        raise FileError(0, f"is no {format} file; is prompts.format, or the name, right?")
