"""`export --to hf`: the folder that the `datasets` library of Hugging Face loads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from lab import Lab
from PIL import Image

from batchgen.errors import InputError
from batchgen.maintenance import export_dataset
from batchgen.simulator import Simulator

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the data set is to be; the library does not ask the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return lab.folder / "sets" / "mine"


def loaded(folder: Path) -> Any:
    """The data set as the library loads it."""
    import datasets

    return datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))


def written(lab: Lab, path: Path, folder: Path) -> Any:
    """Run a job, export its results, and load them."""
    lab.go(path)
    export_dataset(lab.load(path), folder)
    return loaded(folder)


def test_chat(lab: Lab, api: Simulator, folder: Path) -> None:
    """The input's values and types and the answers come back, rows without an answer too."""
    values: list[Any] = [
        {"n": 1, "tags": ["a"]},
        {"n": 2, "tags": []},
        {"n": 3, "tags": ["b", "c"]},
    ]
    (lab.folder / "prompts.jsonl").write_text(
        "\n".join(json.dumps({"id": f"{n:03}", "value": each}) for n, each in enumerate(values)),
        encoding="utf-8",
    )
    path = lab.job(
        api.url,
        prompts={"path": "prompts.jsonl", "id": "id"},
        request={"model": "m", "messages": [{"role": "user", "content": "{{ id }}"}]},
    )
    lab.go(path, limit=2)
    export_dataset(lab.load(path), folder)
    table = loaded(folder)
    assert list(table["id"]) == ["000", "001", "002"]
    assert list(table["value"]) == values
    assert list(table["status"]) == ["succeeded", "succeeded", "pending"]
    assert table["output"][2] is None


def test_embeddings(lab: Lab, api: Simulator, folder: Path) -> None:
    """Embeddings load as an array of shape (n, d) of float32."""
    request = {"model": "text-embedding-3-small", "input": "{{ id }}", "dimensions": 6}
    table = written(lab, lab.job(api.url, kind="embedding", request=request), folder)
    array = table.with_format("numpy")["output"][:]
    assert numpy.array(array).shape == (5, 6)
    assert table.features["output"].feature.dtype == "float32"


def test_conversations(lab: Lab, api: Simulator, folder: Path) -> None:
    """A thread loads as a list of messages."""
    (lab.folder / "prompts.jsonl").write_text(
        json.dumps({"id": "a", "turns": ["one", "two"]}), encoding="utf-8"
    )
    path = lab.job(
        api.url,
        prompts={"path": "prompts.jsonl", "id": "id"},
        conversation={"turns": "turns"},
        request={"model": "m", "messages": [{"role": "user", "content": "{{ turn }}"}]},
    )
    table = written(lab, path, folder)
    assert [each["role"] for each in table["messages"][0]] == ["user", "assistant"] * 2


def test_pictures(lab: Lab, api: Simulator, folder: Path) -> None:
    """Pictures are in the data set, byte for byte; a row whose picture is gone has none."""
    path = lab.job(api.url, kind="image", request={"model": "gpt-image-2", "prompt": "{{ id }}"})
    lab.go(path)
    gone = lab.output() / lab.table()[4]["output"]
    gone.unlink()
    export_dataset(lab.load(path), folder)
    table = loaded(folder)
    shown = table["output"]
    assert isinstance(shown[0], Image.Image)
    assert shown[4] is None
    raw = table.cast_column("output", type(table.features["output"])(decode=False))
    for row, cells in list(zip(raw, lab.table(), strict=True))[:4]:
        assert row["output"]["bytes"] == (lab.output() / cells["output"]).read_bytes()
        assert row["output"]["path"] == os.path.basename(cells["output"])


def test_no_answer_names_a_file(lab: Lab, api: Simulator, folder: Path) -> None:
    """An answer from before a job drew pictures is no path: no file that it names is taken in."""
    secret = lab.folder / "secret"
    secret.write_text("secret", encoding="utf-8")
    answer = f"[echo] {'../' * 20}{secret}"
    request = {"model": "m", "messages": [{"role": "user", "content": answer}]}
    path = lab.job(api.url, request=request)
    lab.go(path)
    lab.job(api.url, kind="image", request={"model": "gpt-image-2", "prompt": "{{ id }}"})
    export_dataset(lab.load(path), folder)
    assert b"secret" not in b"".join(
        file.read_bytes() for file in folder.rglob("*.parquet") if file.is_file()
    ).replace(str(secret).encode(), b"")
    assert list(loaded(folder)["output"]) == [None] * 5


def test_the_card(lab: Lab, api: Simulator, folder: Path) -> None:
    """The card names the job, the models, the dates, the counts and where a licence goes."""
    path = lab.job(api.url, name="shop")
    lab.go(path, limit=2)
    export_dataset(lab.load(path), folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "license: unknown" in card
    assert "# shop" in card
    assert "3 pending, 2 succeeded" in card
    assert "| prompts | prompts.csv |" in card
    assert "Simulated" not in card


def test_a_simulated_set_says_so(lab: Lab, folder: Path) -> None:
    """A data set of a simulated run says on its card that nothing in it is true."""
    path = lab.job("http://127.0.0.1:9/v1")
    lab.go(path, simulate=True)
    export_dataset(lab.load(path), folder, simulate=True)
    assert "no model was asked" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_folder_with_files_is_refused(lab: Lab, api: Simulator, folder: Path) -> None:
    """Nothing is overwritten: a folder that has files is refused and stays as it is."""
    path = lab.job(api.url)
    lab.go(path)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="is not empty; name a new folder"):
        export_dataset(lab.load(path), folder)
    assert [each.name for each in folder.parent.rglob("*")] == ["mine", "mine.txt"]
