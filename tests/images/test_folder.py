"""Pictures that are written whole and that nothing overwrites."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from drawings import drawn, encoded

from batchgen.errors import OutputError
from batchgen.images import (
    PictureFolder,
    is_intact,
    stored,
)
from batchgen.replies import UnreadableReplyError


def folder(tmp_path: Path, owned: Callable[[str], bool] = lambda path: False) -> PictureFolder:
    pictures = PictureFolder(tmp_path, owned)
    pictures.prepare()
    return pictures


def test_pictures_are_written_and_known_again(tmp_path: Path) -> None:
    """P04 A picture's file has the bytes, size and hash that its record says, and a changed file is
    noticed.
    """
    data = drawn()
    (picture,) = folder(tmp_path).save([encoded(data)], "a")
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
    saved = pictures.save([encoded(drawn()), encoded(drawn("JPEG"))], "a")
    assert [picture.path for picture in saved] == ["images/a-1.png", "images/a-2.jpg"]
    with pytest.raises(UnreadableReplyError):
        pictures.save([encoded(drawn()), encoded(drawn()[:-20])], "b")
    assert sorted(os.listdir(tmp_path / "images")) == ["a-1.png", "a-2.jpg"]


def test_owned_pictures_are_never_overwritten(tmp_path: Path) -> None:
    """P33 A name that an answer owns, or that was taken a moment ago, is not given again; a file
    that a crash left is replaced.
    """
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "old.png").write_bytes(b"paid for")
    (tmp_path / "images" / "left.png").write_bytes(b"left by a crash")
    pictures = folder(tmp_path, lambda path: path == "images/old.png")
    (again,) = pictures.save([encoded(drawn())], "old")
    assert again.path == f"images/old.{again.sha256[:16]}.png"
    assert (tmp_path / "images" / "old.png").read_bytes() == b"paid for"
    (left,) = pictures.save([encoded(drawn())], "left")
    assert left.path == "images/left.png"
    assert is_intact(tmp_path, asdict(left), rehash=True)
    (other,) = pictures.save([encoded(drawn(shade=9))], "left")
    assert other.path != left.path
    assert is_intact(tmp_path, asdict(left), rehash=True)


def test_long_names_written_at_once(tmp_path: Path) -> None:
    """P04 Threads whose pictures have similar names do not write into each other's temporary
    files.
    """
    pictures = folder(tmp_path)
    data = [drawn(size=(300, 300), shade=n) for n in range(12)]
    saved: list[dict[str, object]] = []

    def save(n: int) -> None:
        saved.extend(
            asdict(picture) for picture in pictures.save([encoded(data[n])], "x" * 150 + str(n))
        )

    threads = [threading.Thread(target=save, args=(n,)) for n in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saved) == len(data)
    assert all(is_intact(tmp_path, picture, rehash=True) for picture in saved)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """P34 An images folder that is a link is refused; a link in place of a picture is replaced, not
    followed.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "images").symlink_to(elsewhere)
    with pytest.raises(OutputError, match="link"):
        folder(tmp_path / "job")
    assert os.listdir(elsewhere) == []
    pictures = folder(tmp_path)
    target = elsewhere / "target"
    target.write_bytes(b"kept")
    (tmp_path / "images" / "a.png").symlink_to(target)
    (picture,) = pictures.save([encoded(drawn())], "a")
    assert target.read_bytes() == b"kept"
    assert not (tmp_path / picture.path).is_symlink()
