"""`batchgen init` on files of the shapes that public data sets have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab
from PIL import Image
from shapes import SHAPES, Shape, jsonl, says, shared

import batchgen
from batchgen import InputError, load_job, plan
from batchgen.init import InitOptions, Written, write_job


def written(folder: Path, shape: Shape, **options: Any) -> tuple[Written, dict[str, Any]]:
    """What init did for a file, and the job that it wrote."""
    (folder / shape.name).write_bytes(shape.content)
    done = write_job(folder / shape.name, InitOptions(**options))
    return done, yaml.safe_load(done.path.read_text(encoding="utf-8"))


def at(job: dict[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    value: Any = job
    for name in key.split("."):
        value = (value or {}).get(name)
    return value


def first_text(job: Path) -> str:
    """The text of the last message of the first request."""
    first = plan(load_job(job)).first
    assert first is not None
    return str(first["body"]["messages"][-1]["content"]).rstrip("\n")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_shape_is_understood(tmp_path: Path, shape: Shape) -> None:
    """What the file shows is in the job and in what init says, and plan accepts the job."""
    done, job = written(tmp_path, shape)
    text = "\n".join(done.findings)
    assert {key: at(job, key) for key in shape.job} == shape.job
    assert [each for each in shape.found if each not in text] == []
    assert plan(load_job(done.path)).calls > 0
    if shape.user is not None:
        assert first_text(done.path) == shape.user
    assert all(len(line) <= 100 for finding in done.findings[1:] for line in finding.splitlines())


def test_it_is_said_on_stdout(lab: Lab) -> None:
    """The command prints the rows, the id with its reason, the prompt, and the next commands."""
    (lab.folder / "shop.csv").write_text("sku;Name\nA;Mug\nB;Pan\n", encoding="utf-8")
    ran = lab.run("init", "shop.csv")
    assert ran.returncode == 0
    assert ran.stdout.splitlines() == [
        "shop.csv: 2 rows of CSV with semicolons, UTF-8",
        "  id        sku, filled and different in every row",
        "  prompt    Name",
        "wrote shop.yaml",
        "next: batchgen plan shop.yaml",
        "      batchgen run shop.yaml --simulate",
    ]
    (lab.folder / "night.jsonl").write_bytes(SHAPES["batch requests"].content)
    assert "batchgen run-batch -i night.jsonl -o" in lab.run("init", "night.jsonl").stdout


@pytest.mark.parametrize("name", ["ShareGPT", "fine-tuning with tools", "MT-bench", "Alpaca"])
def test_the_job_runs(lab: Lab, name: str) -> None:
    """A job that init wrote runs to its end on the simulated API."""
    shape = SHAPES[name]
    (lab.folder / shape.name).write_bytes(shape.content)
    job = write_job(lab.folder / shape.name).path
    assert batchgen.run(load_job(job), batchgen.Options(simulate=True)).exit_code == 0


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("text", "input"),
        ("completion", "prompt"),
        ("image", "prompt"),
        ("embedding", "input"),
        ("moderation", "input"),
    ],
)
def test_another_kind(tmp_path: Path, kind: str, field: str) -> None:
    """--kind writes the fields of that kind, with a bound on its cost, and plan accepts it."""
    done, job = written(tmp_path, SHAPES["image prompts"], kind=kind)
    assert job["kind"] == kind
    assert job["request"][field] == "{{ Prompt }}\n"
    planned = plan(load_job(done.path))
    assert planned.cost_at_most is not None


def test_what_the_user_says_counts(tmp_path: Path) -> None:
    """--id and --prompt name columns, and a name that is no column is refused with the nearest."""
    shape = Shape("p.csv", b"id,name,text\n1,Mug,a\n2,Pan,\n")
    done, job = written(tmp_path, shape, id="name", prompt=("name", "text"))
    assert job["prompts"]["id"] == "name"
    assert "name, as you said" in "\n".join(done.findings)
    assert first_text(done.path) == "name: Mug\ntext: a"
    done.path.unlink()
    with pytest.raises(InputError, match=r"p\.csv: has no column 'nam'.*did you mean 'name'"):
        written(tmp_path, shape, prompt=("nam",))


def test_a_column_of_pictures(tmp_path: Path) -> None:
    """Pictures that are here are shown to the model, or edited with --kind image_edit."""
    Image.new("RGB", (8, 8)).save(tmp_path / "mug.png")
    shape = Shape("photos.csv", b"photo,wish\nmug.png,Make it red\n")
    done, job = written(tmp_path, shape)
    assert job["request"]["messages"][0]["content"][1]["image_url"] == {
        "url": "{{ photo | data_url }}"
    }
    assert plan(load_job(done.path)).calls == 1
    done.path.unlink()
    done, job = written(tmp_path, shape, kind="image_edit")
    assert job["request"]["image"] == "{{ photo }}"
    assert plan(load_job(done.path)).calls == 1
    done.path.unlink()
    with pytest.raises(InputError, match="kind image_edit: no column names picture files"):
        written(tmp_path, Shape("p.csv", b"id,text\n1,a\n"), kind="image_edit")


def test_what_plan_refuses_is_not_written(tmp_path: Path) -> None:
    """P30 Where no job could run, init says why as plan would, and leaves no job."""
    shape = Shape("p.csv", b"name,text\nMug,a\nMug,b\n")
    with pytest.raises(InputError, match="'Mug' is the id of line 2 already"):
        written(tmp_path, shape, id="name")
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(["", " ", "a", "Why?", "a.png", "https://x.example/a.png", "X-1", "{{ x }}"]),
    st.lists(st.sampled_from(["", "a", "b"]), max_size=2),
    st.lists(
        st.one_of(
            st.builds(says, st.sampled_from(["user", "assistant", "human", "x"]), st.just("t")),
            st.builds(shared, st.sampled_from(["human", "gpt", "x"]), st.just("t")),
            st.dictionaries(st.sampled_from(["role", "from", "content", "value"]), st.none()),
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["a", "b"]), st.just(1), max_size=1),
)
NAMES = st.sampled_from(
    (
        *("id", "messages", "conversations", "turns", "prompt", "instruction", "input", "tools"),
        *("row", "system", "output", "image", "custom_id", "method", "url", "body", "no-name"),
    )
)


def attempted(prompts: Path) -> Written | None:
    """What init wrote for a file, or None if it refused it, in words about it, and wrote none."""
    try:
        return write_job(prompts)
    except InputError as error:
        message = str(error)
    assert message.startswith((str(prompts.with_suffix("")), prompts.name))
    assert [path.name for path in prompts.parent.iterdir()] == [prompts.name]
    return None


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.dictionaries(NAMES, CELLS, max_size=4), min_size=1, max_size=4))
def test_plan_accepts_whatever_init_writes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """P30 Over objects of any shape init either writes a job that plan accepts, or writes none."""
    folder = tmp_path_factory.mktemp("rows")
    (folder / "p.jsonl").write_bytes(jsonl(*rows))
    done = attempted(folder / "p.jsonl")
    if done is not None:
        planned = plan(load_job(done.path))
        assert planned.total + sum(planned.left_out.values()) >= len(rows)


@settings(max_examples=80, deadline=None)
@given(
    table=st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(
                st.sampled_from(["", " ", "a", "b,c", "X-1", "7", "9.5", "a.png", "id", "prompt"]),
                min_size=width,
                max_size=width,
            ),
            min_size=2,
            max_size=5,
        )
    )
)
def test_plan_accepts_the_job_of_any_table(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]
) -> None:
    """P30 So it is over tables of any header and cells."""
    folder = tmp_path_factory.mktemp("table")
    lines = [",".join(json.dumps(cell) for cell in row) for row in table]
    (folder / "p.csv").write_text("\n".join(lines), encoding="utf-8")
    done = attempted(folder / "p.csv")
    if done is not None:
        plan(load_job(done.path))
