"""Pictures that are written whole and that nothing overwrites."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from drawings import drawn, encoded

from batchgen.errors import OutputError
from batchgen.images import (
    Picture,
    PictureFolder,
    is_intact,
    restored,
    stored,
)
from batchgen.replies import UnreadableReplyError

ROW = ("=row", b"key")


class Journal(dict[str, dict[str, Any]]):
    """What a journal records of pictures, by path."""

    def record(self, pictures: Sequence[Picture], owner: tuple[str, bytes] = ROW) -> None:
        for picture in pictures:
            self[picture.path] = {**asdict(picture), "ident": owner[0], "key": owner[1]}


def folder(tmp_path: Path, journal: Journal | None = None) -> PictureFolder:
    pictures = PictureFolder(tmp_path, (Journal() if journal is None else journal).get)
    pictures.prepare()
    return pictures


def answered(
    pictures: PictureFolder,
    data: Sequence[bytes],
    stem: str,
    journal: Journal,
    owner: tuple[str, bytes] = ROW,
) -> list[Picture]:
    """Save, record and publish the pictures of an answer."""
    saved = pictures.save([encoded(each) for each in data], stem, owner)
    journal.record(saved, owner)
    pictures.publish([asdict(each) for each in saved])
    return saved


def test_pictures_are_written_and_known_again(tmp_path: Path) -> None:
    """P04 A picture's file has the bytes, size and hash that its record says, and a changed file is
    noticed.
    """
    data = drawn()
    (picture,) = answered(folder(tmp_path), [data], "a", Journal())
    assert (tmp_path / "images" / "a.png").read_bytes() == data
    assert (picture.path, picture.size, picture.sha256) == (
        "images/a.png",
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    about = asdict(picture)
    assert is_intact(tmp_path, about)
    assert is_intact(tmp_path, about, rehash=True)
    os.utime(tmp_path / picture.path)
    assert is_intact(tmp_path, about)
    (tmp_path / picture.path).write_bytes(data[:-1] + b"x")
    assert not is_intact(tmp_path, about)
    (tmp_path / picture.path).unlink()
    assert not is_intact(tmp_path, about)
    assert stored({"b64_json": "x", "revised_prompt": "p"}, picture) == {
        "revised_prompt": "p",
        **{name: about[name] for name in ("path", "sha256", "size")},
    }


def test_several_pictures_are_numbered_and_all_or_none(tmp_path: Path) -> None:
    """P35 With n above 1 each picture has its number and its own format; if one is bad, none is
    written.
    """
    pictures = folder(tmp_path)
    saved = answered(pictures, [drawn(), drawn("JPEG")], "a", Journal())
    assert [picture.path for picture in saved] == ["images/a-1.png", "images/a-2.jpg"]
    with pytest.raises(UnreadableReplyError):
        pictures.save([encoded(drawn()), encoded(drawn()[:-20])], "b", ROW)
    assert sorted(os.listdir(tmp_path / "images")) == ["a-1.png", "a-2.jpg"]


def test_a_new_picture_takes_the_plain_name(tmp_path: Path) -> None:
    """P33 The current picture of an answer has its row's plain name; the one before is in
    `replaced/`, whole, and so is what the user made of it.
    """
    journal = Journal()
    pictures = folder(tmp_path, journal)
    images = tmp_path / "images"
    old, new, newest = (drawn(shade=shade) for shade in (1, 2, 3))
    for data in (old, new):
        (picture,) = answered(pictures, [data], "a", journal)
        assert picture.path == "images/a.png"
        assert is_intact(tmp_path, asdict(picture), rehash=True)
    (images / "a.png").write_bytes(b"retouched")
    answered(pictures, [newest], "a", journal)
    assert (images / "a.png").read_bytes() == newest
    kept = {each.read_bytes() for each in (images / "replaced").iterdir()}
    assert kept == {old, b"retouched"}
    assert {each.name for each in images.iterdir()} == {"a.png", "replaced"}


def test_what_is_not_the_answers_own_is_never_touched(tmp_path: Path) -> None:
    """P33 A name is not given that another answer owns or is about to own, or that is a file, a
    folder or a link of the user's.
    """
    journal = Journal()
    pictures = folder(tmp_path, journal)
    images = tmp_path / "images"
    (images / "mine.png").write_bytes(b"mine")
    (images / "folder.png").mkdir()
    (images / "link.png").symlink_to(tmp_path / "nowhere")
    theirs = drawn()
    answered(pictures, [theirs], "other", journal, ("=row", b"an older key"))
    pictures.save([encoded(drawn(shade=5))], "flying", ("=another", b"key"))
    data = drawn(shade=7)
    for stem in ("mine", "folder", "link", "other", "flying"):
        (picture,) = answered(pictures, [data], stem, journal)
        assert picture.path == f"images/{stem}.{picture.sha256[:16]}.png"
        assert (tmp_path / picture.path).read_bytes() == data
    assert (images / "mine.png").read_bytes() == b"mine"
    assert (images / "link.png").is_symlink()
    assert (images / "other.png").read_bytes() == theirs
    (again,) = answered(pictures, [data], "mine", journal, ("=third", b"key"))
    assert again.path == f"images/mine.{again.sha256[:16]}-2.png"
    assert not (images / "replaced").exists()


def test_a_crash_before_the_name_is_given(tmp_path: Path) -> None:
    """P01 What a dead process had not published is found: intact if its answer is recorded, and
    then it gets its name; removed if not. A file of the user's stays in both cases.
    """
    journal = Journal()
    pictures = folder(tmp_path, journal)
    images = tmp_path / "images"
    old, new = drawn(shade=1), drawn(shade=2)
    answered(pictures, [old], "a", journal)
    pictures.save([encoded(new)], "lost", ROW)
    saved = pictures.save([encoded(new)], "a", ROW)
    (images / ".mine.new").write_bytes(b"mine")
    (images / "lost.png").write_bytes(b"mine, too")
    journal.record(saved)
    assert is_intact(tmp_path, asdict(saved[0]), rehash=True)
    item = {"path": saved[0].path, "sha256": saved[0].sha256, "size": saved[0].size}
    assert restored(tmp_path, item) == {"b64_json": encoded(new)}
    folder(tmp_path, journal).settle()
    assert (images / "a.png").read_bytes() == new
    assert [each.read_bytes() for each in (images / "replaced").iterdir()] == [old]
    assert {each.name for each in images.iterdir()} == {
        ".mine.new",
        "lost.png",
        "a.png",
        "replaced",
    }
    assert (images / "lost.png").read_bytes() == b"mine, too"


def test_long_names_written_at_once(tmp_path: Path) -> None:
    """P04 Threads whose pictures have similar names do not write into each other's temporary
    files.
    """
    pictures = folder(tmp_path)
    data = [drawn(size=(300, 300), shade=n) for n in range(12)]
    saved: list[dict[str, object]] = []

    def save(n: int) -> None:
        made = answered(pictures, [data[n]], "x" * 150 + str(n), Journal())
        saved.extend(asdict(picture) for picture in made)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saved) == len(data)
    assert all(is_intact(tmp_path, picture, rehash=True) for picture in saved)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """P34 An images folder that is a link is refused, and so is a folder of replaced pictures; a
    link in place of a picture stays, and what it leads to as well.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "images").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="link"):
        folder(tmp_path / "job")
    assert os.listdir(elsewhere) == []
    journal = Journal()
    pictures = folder(tmp_path, journal)
    target = elsewhere / "target"
    target.write_bytes(b"kept")
    (tmp_path / "images" / "a.png").symlink_to(target)
    (picture,) = answered(pictures, [drawn()], "a", journal)
    assert target.read_bytes() == b"kept"
    assert not (tmp_path / picture.path).is_symlink()
    (tmp_path / "images" / "replaced").symlink_to(elsewhere)
    answered(pictures, [drawn()], "b", journal)
    with pytest.raises(OutputError, match="link"):
        answered(pictures, [drawn(shade=3)], "b", journal)
    assert os.listdir(elsewhere) == ["target"]
