"""A disk that is full while files are written: what was there stays, and nothing else is left."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_core.errors import ArtifactError
from quant_core.export.files import write_atomically, write_together

OLD = {"net.onnx": b"old model", "net.onnx.data": b"old data"}
ROOM = 64 * 1024
SMALL, LARGE = b"s" * 100, b"l" * 2 * ROOM


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within the block no file of this process can grow beyond a size."""
    resource = pytest.importorskip("resource", reason="limits of processes are those of Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own with little room, seen through the process that has it mounted."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("a file system of its own needs Linux")
    mounting = f"mount -t tmpfs -o size={ROOM} none '{tmp_path}' && echo mounted && read wait"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounting]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("this user may not mount a file system")
        try:
            yield Path(f"/proc/{holder.pid}/root{tmp_path}")
        finally:
            holder.stdin.close()


def refused(folder: Path, contents: dict[str, bytes], name: str, reason: str) -> None:
    for old, content in OLD.items():
        (folder / old).write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        write_together({folder / new: content for new, content in contents.items()})
    assert str(caught.value) == (
        f"cannot write {name!r}\n"
        f"  at {folder / name}\n"
        f"  OSError: {reason}\n"
        "  Check the free space and the permissions of the directory; the file there before is unchanged."
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == OLD


@pytest.mark.parametrize("full", ["net.onnx.data", "net.onnx"])
def test_neither_of_two_files_is_written_where_one_grows_too_large(tmp_path: Path, full: str) -> None:
    contents = {name: LARGE if name == full else SMALL for name in ("net.onnx.data", "net.onnx")}
    with largest_file(ROOM):
        refused(tmp_path, contents, full, "File too large")
    write_together({tmp_path / name: content for name, content in contents.items()})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents


@pytest.mark.parametrize("full", ["net.onnx.data", "net.onnx"])
def test_neither_of_two_files_is_written_on_a_disk_without_room(small_disk: Path, full: str) -> None:
    contents = {name: LARGE if name == full else SMALL for name in ("net.onnx.data", "net.onnx")}
    refused(small_disk, contents, full, "No space left on device")


def test_two_files_of_which_each_has_room_and_both_have_not(small_disk: Path) -> None:
    half = LARGE[: ROOM // 2]
    refused(small_disk, {"net.onnx.data": half, "net.onnx": half}, "net.onnx", "No space left on device")
    write_atomically(small_disk / "net.onnx", half)
    assert (small_disk / "net.onnx").read_bytes() == half
