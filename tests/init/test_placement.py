"""`batchgen init` finds the header where another program has put it, and the rows below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import yaml

from batchgen import InputError, load_job, plan
from batchgen.init import write_job

KEYWORDS = (
    "Keyword Stats 2024-01-05 at 10_11_12\n"
    '"January 1, 2023 - December 31, 2023"\n'
    "Keyword\tCurrency\tVolume\nkettle\tUSD\t500\n"
)
QUALTRICS = (
    "StartDate,ResponseId,Q1\n"
    'Start Date,Response ID,"Which?\nAnd why?"\n'
    '"{""ImportId"":""startDate""}","{""ImportId"":""_recordId""}","{""ImportId"":""QID1""}"\n'
    "2024-01-01,R_1,kettle\n"
)
MONKEY = (
    "Respondent ID,Collector ID,Name?,Which do you like?,,Anything else?\n"
    ",,Open-Ended Response,Tea,Coffee,Open-Ended Response\n"
    "1001,5,kettle,Tea,,no\n"
)
AMAZON = (
    "TemplateType=fptcustom\tVersion=2021.1\tThe top 3 rows are for Amazon.com use only.\t\n"
    "SKU\tProduct Name\tDescription\tBrand\nitem_sku\titem_name\tdescription\tbrand\n"
    "A1\tkettle\tBlue\tX\n"
)
# What each file holds, what the job says about it beside path and id, and what init says.
LAYOUTS: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "a title": ("p.csv", "Report, Q1\n\nsku;name;x\n1;kettle;y\n", {"skip_lines": 1}, "first line"),
    "a word": ("p.csv", "Products\nsku;name;x\n1;kettle;y\n", {"skip_lines": 1}, "first line"),
    "notes": ("p.csv", "Of:,Q1\nBy:,Ann\n\nsku,name,x\n1,kettle,y\n", {"skip_lines": 2}, "2 lines"),
    "remarks": ("p.csv", "# by x\n# v2\nsku,name,x\n1,kettle,y\n", {"skip_lines": 2}, "2 lines"),
    "keyword planner": ("p.csv", KEYWORDS.encode("utf-16"), {"skip_lines": 2}, "2 lines"),
    "TABs": ("p.tsv", "Products\nsku\tname\tx\n1\tkettle\ty\n", {"skip_lines": 1}, "first line"),
    "Qualtrics": ("p.csv", QUALTRICS, {"skip_rows": 2}, "Qualtrics writes more headers"),
    "SurveyMonkey": ("p.csv", MONKEY, {
        "skip_lines": 2,
        "header": ["Respondent ID", "Collector ID", "Name?", "Which do you like?: Tea",
                   "Which do you like?: Coffee", "Anything else?"],
    }, "made of the first two rows"),
    "Amazon": ("p.tsv", AMAZON, {"skip_lines": 1, "skip_rows": 1}, "Amazon writes more headers"),
    "an array": ("p.jsonl", '[{"sku": "a", "name": "kettle"}]', {"format": "json"}, "one document"),
    "printed": ("p.jsonl", '[\n {\n  "name": "kettle"\n }\n]', {"format": "json"}, "one document"),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_header_is_found(tmp_path: Path, case: str) -> None:
    """What stands above and below the header is left out, is in the job, and init says so."""
    name, content, wanted, sentence = LAYOUTS[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = write_job(path)
    assert sentence in " ".join("\n".join(done.findings).split())
    prompts = yaml.safe_load(done.path.read_text(encoding="utf-8"))["prompts"]
    assert {key: prompts[key] for key in prompts if key not in ("path", "id")} == wanted
    planned = plan(load_job(done.path), simulate=True)
    assert planned.calls == 1
    assert "kettle" in json.dumps(planned.first)


def workbook(path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    book = openpyxl.Workbook(write_only=True)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_title_in_a_sheet(tmp_path: Path) -> None:
    """So it is in a spreadsheet; and of several sheets init says which one it took."""
    rows: list[list[Any]] = [
        ["Products"],
        ["as of", "2024"],
        [],
        ["SKU", "Name", "Price"],
        ["K-1", "kettle", 5],
    ]
    path = workbook(tmp_path / "p.xlsx", {"Data": rows, "More": [["x"]]})
    done = write_job(path)
    findings = " ".join("\n".join(done.findings).split())
    assert "sheet Data, the first of Data, More; --sheet names another" in findings
    assert "header below the first 2 lines, which are no part of the table" in findings
    assert plan(load_job(done.path), simulate=True).calls == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt\nHello, world\nBye, world\n", "p.csv:2: expected 1 cell, found 2; put a cell"),
        ("prompt\nHello,world\nBye,world\n", "p.csv:2: expected 1 cell, found 2; put a cell"),
        ("id,name,text\n1,a,x,y\n2,b,y\n3,c,z\n", "p.csv:2: expected 3 cells, found 4"),
        ("Title here\n1,2,3\n4,5,6\n", "p.csv:2: expected 1 cell, found 3"),
        ("id,text\r\n1,a\r\n\x1a", "p.csv:3: has nothing but control characters"),
        ('id, name\n1, "a, b"\n', "p.csv:2: expected 2 cells, found 3; a double quote counts only"),
        ('id\n"a" \n', "p.csv:2: text, or a space, follows a closing double quote"),
        ("{\\rtf1\\ansi hello}", "p.csv: is a document in RTF"),
        ("<!DOCTYPE html>\n<html>Sign in</html>", "p.csv: is an HTML page"),
    ],
)
def test_what_is_no_header_is_not_taken_for_one(tmp_path: Path, content: str, message: str) -> None:
    """P30 Texts with commas, broken rows and numbers are refused as they are: no line is lost."""
    path = tmp_path / "p.csv"
    path.write_text(content, encoding="utf-8", newline="")
    with pytest.raises(InputError) as refusal:
        write_job(path)
    assert message in str(refusal.value)


def test_texts_alone_are_left_alone(tmp_path: Path) -> None:
    """A column of texts that have semicolons in them stays one column."""
    path = tmp_path / "p.csv"
    path.write_text("prompt\nFirst this; then that\nOne; two\n", encoding="utf-8")
    done = write_job(path)
    assert yaml.safe_load(done.path.read_text(encoding="utf-8"))["prompts"] == {"path": "p.csv"}
    assert plan(load_job(done.path), simulate=True).calls == 2


def test_pdfs_are_named(tmp_path: Path) -> None:
    """Of a column of PDFs init says that only the names are sent, and how the files are."""
    path = tmp_path / "p.csv"
    path.write_text("id,report\n1,a.pdf\n2,b c.PDF\n", encoding="utf-8")
    findings = " ".join("\n".join(write_job(path).findings).split())
    assert "report names PDFs, and only the names are sent; report | data_url sends" in findings


def test_another_sheet_is_named(tmp_path: Path) -> None:
    """P30 Where the first sheet has no rows, the message names the others."""
    sheets = {"README": [["See the next sheet"]], "data": [["sku", "name"], ["K-1", "kettle"]]}
    path = workbook(tmp_path / "p.xlsx", sheets)
    with pytest.raises(InputError, match=r"no rows in its first sheet .* data\); --sheet names"):
        write_job(path)
