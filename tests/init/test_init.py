"""`batchgen init`: a job that runs, whatever the file it is made for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batchgen import InputError, load_job, plan
from batchgen.init import write_job

SHAPES: dict[str, tuple[str, bytes]] = {
    "plain": ("products.csv", b"id,name,facts\n1,Kettle,red\n2,Pan,black\n"),
    "semicolons and umlauts": (
        "Pr\u00fcfung.csv",
        "Nr;Größe (cm);Ä\n007;22 x 19;ja\n008;30;nein\n".encode(),
    ),
    "a BOM": ("excel.csv", "sku;Text\nA;eins\nB;zwei\n".encode("utf-8-sig")),
    "UTF-16": ("wide.csv", "id;Text\nA;eins\n".encode("utf-16")),
    "UTF-32": ("wider.csv", "id;Text\nA;eins\n".encode("utf-32")),
    "UTF-16 without a mark": ("unmarked.csv", "id;Text\nA;eins\n".encode("utf-16-le")),
    "cp1252": ("alt.csv", "id;Größe\n1;weiß\n".encode("cp1252")),
    "cp1252, told late": (
        "late.csv",
        b"id;text\n" + b"".join(b"%d;plain\n" % n for n in range(500)) + b"x;wei\xdf\n",
    ),
    "TAB": ("table.tsv", b'key\ttext\na\tsays "hi"\n'),
    "lines": ("lines.txt", "One prompt.\nZwei für drei\n".encode()),
    "gzip": ("packed.csv.gz", gzip.compress(b"id,text\n1,hello\n")),
    "objects": ("rows.jsonl", b'{"id": 1, "text": "a", "more": null}\n{"id": 2, "text": "b"}\n'),
    "turns": (
        "talks.jsonl",
        b'{"id": "a", "questions": ["x", "y"]}\n{"id": "b", "questions": ["z"]}\n',
    ),
    "messages": ("threads.jsonl", b'{"messages": [{"role": "user", "content": "hi"}]}\n'),
    "batchgen's own names": ("clash.csv", b"id,status,output,bg_x\n1,new,yes,z\n"),
    "a template's words": (
        "words.csv",
        b"row,turn,loop,none,not,class,range,self\n1,2,3,4,5,6,7,8\n",
    ),
    "braces and quotes": ("odd.csv", b'"a {{ b }}","it""s \\ {% x %}","two\nlines",{#\n1,2,3,4\n'),
    "no id that is unique": ("twice.csv", b"id,text\n1,a\n1,b\n"),
    "an id with a gap": ("gap.csv", b"id,text\n1,a\n,b\n"),
    "a name that is no folder's": ("\u5546\u54c1 .simulated.csv", b"id,text\n1,a\n"),
    "a long name": ("x" * 200 + ".csv", b"id,text\n1,a\n"),
    "spaces in the name": ("my products.csv", b"id,text\n1,a\n"),
    "a quoted cell of lines": ("quoted.csv", b'id,text\n1,"a\nb, ""c"""\n'),
}


def made(folder: Path, name: str, content: bytes) -> tuple[Path, Mapping[str, Any]]:
    """The job that init writes for a file, and what is in it."""
    (folder / name).write_bytes(content)
    path = write_job(folder / name).path
    return path, yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "content"), SHAPES.values(), ids=SHAPES)
def test_a_job_for_any_file_can_be_planned(tmp_path: Path, name: str, content: bytes) -> None:
    """Whatever a file looks like, the job made for it loads, and its plan has a request for every
    row.
    """
    path, _ = made(tmp_path, name, content)
    planned = plan(load_job(path))
    assert planned.total >= 1
    assert planned.cost is not None
    assert planned.first is not None


@settings(max_examples=40, deadline=None)
@given(
    header=st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"),
            min_size=1,
            max_size=12,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_header_can_be_planned(
    tmp_path_factory: pytest.TempPathFactory, header: list[str]
) -> None:
    """Every header that can be read at all can stand in the job: its letters never end a string, a
    line or a template.
    """
    folder = tmp_path_factory.mktemp("header")
    line = ",".join('"' + name.replace('"', '""') + '"' for name in header)
    (folder / "p.csv").write_text(f"{line}\n{','.join('x' * len(header))}\n", encoding="utf-8")
    try:
        path = write_job(folder / "p.csv").path
    except InputError:
        assume(False)  # the file's own fault: a name twice, or none at all
    assert plan(load_job(path)).total == 1


def test_the_columns_are_used(tmp_path: Path) -> None:
    """The job names the file's id and prompt columns; without a column for the prompt it shows all
    of them but the id.
    """
    _, job = made(tmp_path, "a.csv", b"sku,Question\nA,why\nB,how\n")
    assert job["prompts"] == {"path": "a.csv", "id": "sku"}
    assert job["request"]["messages"][0]["content"] == "{{ Question }}\n"
    _, job = made(tmp_path, "b.csv", "product_id,Größe (cm)\n1,2\n".encode())
    assert job["prompts"]["id"] == "product_id"
    content = job["request"]["messages"][0]["content"]
    assert content == '{{ row["Größe (cm)"] }}\n'
    _, job = made(tmp_path, "c.csv", "product_id,Größe (cm),Art\n1,2,x\n".encode())
    content = job["request"]["messages"][0]["content"]
    assert content == 'Größe (cm): {{ row["Größe (cm)"] }}\nArt: {{ Art }}\n'


def test_an_id_must_name_every_row(tmp_path: Path) -> None:
    """A column that is called id but is empty or the same in some row is not taken for one; the
    next candidate is.
    """
    _, job = made(tmp_path, "a.csv", b"id,sku,text\n1,A,x\n1,B,y\n")
    assert job["prompts"]["id"] == "sku"
    _, job = made(tmp_path, "b.csv", b"id,text\n1,x\n,y\n")
    assert "id" not in job["prompts"]


def test_conversations_are_recognised(tmp_path: Path) -> None:
    """A list of texts under the name of turns is taken for these, and an empty one left out; a list
    of messages is the thread itself.
    """
    _, job = made(tmp_path, "a.jsonl", b'{"turns": ["a", "b"]}\n{"turns": ["c"]}\n')
    assert job["conversation"] == {"turns": "turns"}
    _, job = made(tmp_path, "b.jsonl", b'{"turns": ["a"]}\n{"turns": []}\n')
    assert job["prompts"]["empty"] == "skip"
    _, job = made(tmp_path, "c.jsonl", b'{"thread": [{"role": "user", "content": "hi"}]}\n')
    assert job["request"]["messages"] == "{{ thread }}"


def test_an_old_encoding_is_named(tmp_path: Path) -> None:
    """A file that is not UTF-8 gets the encoding that the reader thinks it is in, for the user to
    check.
    """
    path, job = made(tmp_path, "alt.csv", "id;Größe\n1;weiß\n".encode("cp1252"))
    assert job["prompts"]["encoding"] == "cp1252"
    first = plan(load_job(path)).first
    assert first is not None
    assert "weiß" in json.dumps(first, ensure_ascii=False)


@pytest.mark.parametrize(
    ("content", "position"),
    [
        (b"id,text\n1,a\n2,b,c\n", ":3: "),
        (b'id,text\n"1"2,a\n', ":2: "),
        (b"", ": is empty"),
        (b"PK\x03\x04", "zip file"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, position: str) -> None:
    """P30 A file that could not be run is refused as file:line, and no job is written for it."""
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.csv") as caught:
        write_job(tmp_path / "p.csv")
    assert position in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder in place of a file is an input error, also the one we are in."""
    for path in (tmp_path, Path()):
        with pytest.raises(InputError):
            write_job(path)


def test_rows_without_a_common_column_are_refused(tmp_path: Path) -> None:
    """JSONL whose rows share nothing has no template that fits them all."""
    (tmp_path / "p.jsonl").write_bytes(b'{"a": 1}\n{"b": 2}\n')
    with pytest.raises(InputError, match="no column in common"):
        write_job(tmp_path / "p.jsonl")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A job that is there stays as it is."""
    path, _ = made(tmp_path, "p.csv", b"id,text\n1,a\n")
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        write_job(tmp_path / "p.csv")
    assert path.read_text(encoding="utf-8") == "mine"


def test_an_example_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file, init writes an example job with prompts of its own, once."""
    monkeypatch.chdir(tmp_path)
    path = write_job(None).path
    assert path == Path("jobs/example.yaml")
    assert plan(load_job(path)).output == str(tmp_path / "outputs" / "example")
    with pytest.raises(InputError) as caught:
        write_job(None)
    assert len(caught.value.problems) == 2


def test_a_path_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job lies beside its prompts, wherever init was called."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p.csv").write_text("id,text\n1,a\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = write_job(Path("data/p.csv")).path
    assert path == Path("data/p.yaml")
    assert plan(load_job(path)).total == 1
