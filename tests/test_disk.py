"""Files: whole or absent, never written through a link, with the user's modes; a full disk is
reported.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from lab import Lab

from batchgen import disk
from batchgen.disk import (
    append_line,
    atomic_write,
    file_system,
    mac_network_type,
    make_folder,
    refuse_link,
    sweep,
)
from batchgen.errors import OutputError
from batchgen.simulator import Simulator


def test_a_file_appears_whole(tmp_path: Path) -> None:
    """P04 The old file stays until the block ends well; then the new one replaces it, with nothing
    beside it.
    """
    path = tmp_path / "a.csv"
    path.write_text("old", encoding="utf-8")
    with atomic_write(path) as file:
        file.write("new\r\n中")
        file.flush()
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_bytes() == "new\r\n中".encode()
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")]
)
def test_a_broken_writing_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    """P04 Whatever ends the block, the old file stays and no temporary one is left."""
    path = tmp_path / "a.csv"
    path.write_text("old", encoding="utf-8")
    wanted = OutputError if isinstance(error, OSError) else type(error)

    def half() -> None:
        with atomic_write(path) as file:
            file.write("half")
            raise error

    with pytest.raises(wanted):
        half()
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_failed_fsync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P03 If the file cannot be synced, the old one stays and an error is raised."""
    path = tmp_path / "a.csv"
    path.write_text("old", encoding="utf-8")

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OutputError, match="Input/output error"), atomic_write(path) as file:
        file.write("new")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


def test_file_and_folder_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P04 The file is synced before its name is, and the folder after."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def rename(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with atomic_write(tmp_path / "a", binary=True) as file:
        file.write(b"x")
    assert steps == ["file", "rename", "folder"]


FULL = """
import resource, sys
from pathlib import Path
from batchgen.disk import atomic_write
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with atomic_write(Path(sys.argv[1])) as file:
    file.write("x" * 100_000)
"""


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """P03 A full disk: one sentence says what to do, the old file is whole, nothing is beside it,
    and no signal kills the process.
    """
    path = tmp_path / "a.csv"
    path.write_text("old", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "OutputError" in done.stderr.splitlines()[-1]
    assert (
        "the disk is full; nothing that was recorded is lost; make room and run again"
        in done.stderr
    )
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "disk is full"),
        (errno.EROFS, "cannot be written"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "fix it"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, number: int, words: str) -> None:
    """P05 Each way in which a disk fails has its sentence, with the path."""
    with pytest.raises(OutputError, match=words) as caught, disk.translating_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_folders(tmp_path: Path) -> None:
    """P05 A folder is made and tried at once; what is no folder of its own is refused."""
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling", "file/below"):
        with pytest.raises(OutputError):
            make_folder(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    """P04 Temporary files of processes that are gone are removed; those of a running process and
    all other files stay.
    """
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    leftovers = [
        f".results.csv.{int(gone.stdout)}-3.tmp",
        f".probe.{os.getpid()}-0.tmp",
        ".x.99999999999999999999-1.tmp",
    ]
    others = [
        f".results.csv.{os.getppid()}-3.tmp",
        ".mine.tmp",
        "a.1-1.tmp",
        "results.csv",
        ".lock",
    ]
    for name in (*leftovers, *others):
        (tmp_path / name).write_text("half", encoding="utf-8")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """P34 Neither a log nor a table is written through a link or into a pipe that somebody
    planted.
    """
    target = tmp_path / "target"
    target.write_text("kept", encoding="utf-8")
    (tmp_path / "run.log").symlink_to(target)
    os.mkfifo(tmp_path / "pipe")
    for name in ("run.log", "pipe"):
        with pytest.raises(OutputError, match="link or not a regular file"):
            append_line(tmp_path / name, "x")
    (tmp_path / "a.csv").symlink_to(target)
    with atomic_write(tmp_path / "a.csv") as file:
        file.write("table")
    assert target.read_text(encoding="utf-8") == "kept"
    assert not (tmp_path / "a.csv").is_symlink()
    refuse_link(tmp_path / "nothing")
    append_line(tmp_path / "fresh.log", "one")
    append_line(tmp_path / "fresh.log", "two")
    assert [
        line.split(" ", 1)[1]
        for line in (tmp_path / "fresh.log").read_text(encoding="utf-8").splitlines()
    ] == ["one", "two"]


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P02 A journal on a network file system is refused before anything is written there; the
    nearest mount decides.
    """
    mounts, share = tmp_path / "mounts", tmp_path / "a share"
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    mounts.write_text(
        f"/dev/sda / ext4 rw 0 0\nnas:/x {str(share).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
        f"tmpfs {str(share / 'local').replace(' ', chr(92) + '040')} tmpfs rw 0 0\n",
        encoding="utf-8",
    )
    assert [
        file_system(path)
        for path in (share, share / "x", share / "local" / "x", tmp_path / "a sharex", Path("/"))
    ] == [*("nfs4", "nfs4", "tmpfs", "ext4", "ext4")]
    with pytest.raises(OutputError, match=r"network file system \(nfs4\)"):
        make_folder(share / "job")
    make_folder(share / "local" / "job")
    mounts.unlink()
    assert file_system(share) == ""


@pytest.mark.parametrize(
    "kind", ["fuse.glusterfs", "gpfs", "beegfs", "fuse.gcsfuse", "fuse.juicefs", "vboxsf", "drvfs"]
)
def test_many_file_systems_are_known_as_network_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """P02 Clusters, buckets and folders of a virtual machine's host are refused too."""
    monkeypatch.setattr(disk, "MOUNTS", tmp_path / "mounts")
    (tmp_path / "mounts").write_text(f"what {tmp_path} {kind} rw 0 0\n", encoding="utf-8")
    with pytest.raises(OutputError, match=rf"network file system \({kind}\)"):
        make_folder(tmp_path / "job")


MAC = """/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@nas/a (b) on /Volumes/a (b) (smbfs, nodev, nosuid, mounted by me)
/dev/disk4s1 on /Volumes/a (b)/usb (msdos, local, nodev)
nas:/x on /Volumes/x (nfs)
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/Users/me", ""),
        ("/Volumes/a (b)/jobs", "smbfs"),
        ("/Volumes/a (b)/usb/jobs", ""),
        ("/Volumes/xy", ""),
        ("/Volumes/x", "nfs"),
    ],
)
def test_what_macos_does_not_call_local_is_a_network_file_system(path: str, kind: str) -> None:
    """P02 On macOS, which has no /proc, what `mount` lists decides."""
    assert mac_network_type(Path(path), MAC) == kind


def test_modes_follow_the_umask(lab: Lab, api: Simulator) -> None:
    """P38 Under umask 077 the files of a run are 0600 and its folders 0700: journal, lock, log,
    tables, report, pictures.
    """
    lab.prompts(1)
    job = lab.job(api.url, kind="image", request={"model": "gpt-image-2", "prompt": "{{ text }}"})
    done = subprocess.run(
        [
            "sh",
            "-c",
            'umask 077 && exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "batchgen",
            "run",
            str(job),
        ],
        cwd=lab.folder,
        env=lab.environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    modes = {
        path.relative_to(lab.folder).as_posix(): path.stat().st_mode & 0o777
        for path in lab.output().rglob("*")
    }
    assert {
        "outputs/job/journal.db",
        "outputs/job/.lock",
        "outputs/job/run.log",
        "outputs/job/images/r1.png",
    } <= set(modes)
    assert {
        name: mode
        for name, mode in modes.items()
        if mode != (0o700 if (lab.folder / name).is_dir() else 0o600)
    } == {}
    assert lab.output().stat().st_mode & 0o777 == 0o700
    assert [name for name in modes if name.endswith(".tmp")] == []


@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
def test_a_folder_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """P05 A folder in which no file can be made, synced or renamed is refused, and nothing is left
    in it.
    """

    def fails(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, name, fails)
    with pytest.raises(OutputError, match="cannot be written"):
        make_folder(tmp_path)
    assert os.listdir(tmp_path) == []
