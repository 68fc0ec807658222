"""`batchgen init` names the encoding of a file that is not UTF-8, or refuses it."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab

from batchgen import InputError, load_job, plan
from batchgen.init import InitOptions, write_job
from batchgen.prompts.charset import guess_encoding

# Sentences whose letters the encodings have, and those that are as good an answer.
TEXTS = {
    "gb18030": "请用两句话描述这个搪瓷水壶。它的容量是一升半。",
    "big5": "請用兩句話描述這個搪瓷水壺。它的容量是一升半。",
    "cp932": "このやかんを二つの文で説明してください。容量は千五百です。",
    "euc_jp": "このやかんを二つの文で説明してください。容量は千五百です。",
    "cp949": "이 주전자를 두 문장으로 설명해 주세요. 용량은 일점오 리터입니다.",
    "cp1251": "Опишите этот чайник двумя предложениями. Объём полтора литра.",
    "koi8_r": "Опишите этот чайник двумя предложениями. Объём полтора литра.",
    "cp1252": "Décrivez cette bouilloire émaillée : « à l'ancienne », près de 5 €.",
    "mac_roman": "Décrivez cette bouilloire émaillée, à l’ancienne, très légère.",
}


def table(text: str) -> str:
    """A CSV with a text in two rows."""
    return f"id;text\n1;{text}\n2;{text[4:]}\n"


@pytest.mark.parametrize("encoding", TEXTS)
def test_an_encoding_is_found(tmp_path: Path, encoding: str) -> None:
    """The guess reads the file as it was written; the job names it, and init shows two words."""
    path = tmp_path / "p.csv"
    path.write_bytes(table(TEXTS[encoding]).encode(encoding))
    done = write_job(path)
    job = yaml.safe_load(done.path.read_text(encoding="utf-8"))
    named = job["prompts"]["encoding"]
    assert path.read_bytes().decode(named) == table(TEXTS[encoding])
    assert f"encoding  {named}, a guess: it reads" in "\n".join(done.findings)
    first = plan(load_job(done.path)).first
    assert TEXTS[encoding] in json.dumps(first, ensure_ascii=False)


# What a few letters in cp1252 look like, which other encodings can read as well.
FEW = ["Müller", "Café", "perché è così", "één café € 5", "Tea – “hot” • 5 €", "20 °C ± 5 µm ½",
       "Küchentücher weiß;3,99 €", "GRÖSSE ÜBER"]  # fmt: skip


@pytest.mark.parametrize("text", FEW)
def test_few_letters_are_read_as_a_western_file(tmp_path: Path, text: str) -> None:
    """A short file of Western Europe is cp1252, and not one in which its letters make no words."""
    path = tmp_path / "p.csv"
    path.write_bytes(f"1;{text}\r\n".encode("cp1252"))
    guess = guess_encoding(path)
    assert guess is not None
    assert guess.encoding == "cp1252"


def test_a_named_encoding_is_not_guessed(lab: Lab) -> None:
    """--encoding reads the file so, even where a guess would be another, and the job says it."""
    (lab.folder / "p.csv").write_bytes(table("Ã©tÃ©").encode("cp437", "replace"))
    ran = lab.run("init", "p.csv", "--encoding", "cp437")
    assert ran.returncode == 0, ran.stderr
    assert "guess" not in ran.stdout
    job = yaml.safe_load((lab.folder / "p.yaml").read_text(encoding="utf-8"))
    assert job["prompts"]["encoding"] == "cp437"


@pytest.mark.parametrize("packed", [False, True])
def test_utf8_with_a_broken_line_is_refused(tmp_path: Path, packed: bool) -> None:
    """P30 A file that is UTF-8 but for a line is refused with that line, and never read as
    cp1252."""
    content = "id,text\n1,Café\n2,y\n".encode() + "3,Größe\n".encode("cp1252")
    path = tmp_path / ("p.csv.bz2" if packed else "p.csv")
    path.write_bytes(bz2.compress(content) if packed else content)
    with pytest.raises(InputError, match=r":4: this line is not UTF-8, and the others are: '3,Gr"):
        write_job(path)
    assert not (tmp_path / "p.yaml").exists()


def test_a_run_does_not_suggest_what_would_spoil_the_file(tmp_path: Path) -> None:
    """P30 Where lines before the broken one are UTF-8, the message names no other encoding to
    set."""
    (tmp_path / "p.csv").write_bytes("id,text\n1,Café\n".encode() + b"2,Gr\xf6\xdfe\n")
    job = tmp_path / "p.yaml"
    job.write_text(
        "kind: chat\nprompts: {path: p.csv}\nrequest: {model: m, messages: [{role: user, "
        'content: "{{ text }}"}]}\n',
        encoding="utf-8",
    )
    with pytest.raises(
        InputError, match=r"p\.csv:3: is not UTF-8, and lines before it are"
    ) as refusal:
        plan(load_job(job))
    assert "prompts.encoding" not in str(refusal.value)


def test_one_long_line_is_judged_by_its_letters(tmp_path: Path) -> None:
    """P30 So is a JSON array on one line, with one broken letter among many good ones."""
    content = json.dumps([{"text": "Größe"}] * 20, ensure_ascii=False).encode()
    (tmp_path / "p.json").write_bytes(content.replace("ö".encode(), b"\xf6", 1))
    with pytest.raises(InputError, match=r"p\.json:1: this line is not UTF-8"):
        write_job(tmp_path / "p.json")


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200), name=st.sampled_from(["p.csv", "p.txt", "p.jsonl.gz"]))
def test_any_bytes_get_a_job_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    """P30 Whatever a file holds, init writes a job that plan accepts or says what is wrong."""
    path = tmp_path_factory.mktemp("bytes") / name
    path.write_bytes(content)
    try:
        done = write_job(path)
    except InputError:
        assert [each.name for each in path.parent.iterdir()] == [name]
    else:
        plan(load_job(done.path))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_utf8_is_never_guessed(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """What is UTF-8 stays so."""
    path = tmp_path_factory.mktemp("text") / "p.csv"
    path.write_bytes(text.encode("utf-8", "replace"))
    if not (len(text) > 3 and "\0" in text):
        assert guess_encoding(path) is None


def test_tables_as_other_programs_leave_them(lab: Lab) -> None:
    """The options that a table needs are read with and stand in the job."""
    (lab.folder / "report.csv").write_text(
        "Keywords\n2024\nword|volume\nmug|10\npan|20\n", encoding="utf-8"
    )
    ran = lab.run("init", "report.csv", "--skip-lines", "2", "--delimiter", "|")
    assert ran.returncode == 0, ran.stderr
    job = yaml.safe_load((lab.folder / "report.yaml").read_text(encoding="utf-8"))
    assert job["prompts"]["skip_lines"] == 2
    assert job["prompts"]["delimiter"] == "|"
    (lab.folder / "bare.csv").write_text("a1,Why?\na2,How?\n", encoding="utf-8")
    assert lab.run("init", "bare.csv", "--no-header").returncode == 0
    bare = yaml.safe_load((lab.folder / "bare.yaml").read_text(encoding="utf-8"))
    assert bare["prompts"] == {"path": "bare.csv", "id": "column_1", "header": False}
    (lab.folder / "twice.csv").write_text("text,text\na,b\n", encoding="utf-8")
    assert "not sure  the header has a name more than once" in lab.run("init", "twice.csv").stdout
    assert plan(load_job(lab.folder / "twice.yaml")).calls == 1


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """An encoding that does not exist, or does not fit, is refused, and no job is written."""
    (tmp_path / "p.csv").write_bytes("id,text\n1,Größe\n".encode("cp1252"))
    for encoding in ("latin-17", "ascii"):
        with pytest.raises(InputError, match=r"p\.csv"):
            write_job(tmp_path / "p.csv", InitOptions(encoding=encoding))
    assert not (tmp_path / "p.yaml").exists()


def test_messages_name_options(tmp_path: Path) -> None:
    """A reader's message names the option of init, because there is no job with a key yet."""
    (tmp_path / "p.csv").write_text("prompt\nHello, world\nBye, world\n", encoding="utf-8")
    with pytest.raises(InputError, match="set --skip-lines"):
        write_job(tmp_path / "p.csv")
    (tmp_path / "p.jsonl").write_text('[{"text": "a"}', encoding="utf-8")
    with pytest.raises(InputError, match="expected a comma"):
        write_job(tmp_path / "p.jsonl")
