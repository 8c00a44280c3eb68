"""Writing files: all or nothing, through links, and only where a regular file is or can be."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quant_core.errors import ArtifactError
from quant_core.export.files import check_writable, write_atomically


def refused(path: Path) -> str:
    """What is said before any work; writing says the same, and leaves nothing behind."""
    with pytest.raises(ArtifactError) as before:
        check_writable(path)
    with pytest.raises(ArtifactError) as writing:
        write_atomically(path, b"new")
    assert str(writing.value) == str(before.value)
    return str(before.value)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that every user can reach and write to; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextlib.contextmanager
def plain_user() -> Iterator[None]:
    """Within the block permissions hold; for the administrator they do not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt("the user")


def no_space(*args: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for content in (b"old", b"new"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_as_accessible_as_any_new_one(tmp_path: Path) -> None:
    ours, plain = tmp_path / "ours", tmp_path / "plain"
    write_atomically(ours, b"")
    plain.write_bytes(b"")
    assert ours.stat().st_mode == plain.stat().st_mode


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)


def test_a_directory_that_is_not_writable(folder: Path) -> None:
    folder.chmod(0o555)
    with plain_user():
        assert refused(folder / "net.onnx") == (
            "cannot write 'net.onnx'\n"
            f"  at {folder / 'net.onnx'}\n"
            f"  {folder} is not writable for this user\n"
            "  Choose another directory, or change its permissions."
        )


def test_a_file_that_is_read_only(folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with plain_user():
        assert refused(path) == (
            "cannot write 'net.onnx'\n"
            f"  at {path}\n"
            "  it is read-only for this user\n"
            "  Give another file name, or change its permissions."
        )
    assert path.read_bytes() == b"old"


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    path = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_file_is_written(tmp_path: Path, there: bool) -> None:
    real, link, through = tmp_path / "deep" / "net.onnx", tmp_path / "link", tmp_path / "through"
    real.parent.mkdir()
    if there:
        real.write_bytes(b"old")
    link.symlink_to(real)
    through.symlink_to(link)
    write_atomically(through, b"new")
    assert real.read_bytes() == b"new"
    assert [path.is_symlink() for path in (real, link, through)] == [False, True, True]
    assert list(real.parent.iterdir()) == [real]


def test_a_link_into_a_missing_directory(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "missing" / "net.onnx")
    assert refused(link) == (
        "cannot write 'link'\n"
        f"  at {link}\n"
        f"  {tmp_path / 'missing'} is not a directory\n"
        f"  Create it first: mkdir -p {tmp_path / 'missing'}"
    )


def test_a_link_to_itself(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(link)
    assert refused(link) == (
        "cannot write 'link'\n"
        f"  at {link}\n"
        "  it is a symbolic link that leads back to itself\n"
        "  Remove the link, or give another file name."
    )
    assert link.is_symlink()


def test_a_directory(tmp_path: Path) -> None:
    assert refused(tmp_path) == (
        f"cannot write {tmp_path.name!r}\n"
        f"  at {tmp_path}\n"
        "  it is a directory\n"
        f"  Give a file name, for example {tmp_path / 'model.onnx'}."
    )


def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert refused(path) == (
        "cannot write 'pipe'\n"
        f"  at {path}\n"
        "  it is a named pipe, which a file cannot replace\n"
        "  Give the name of a regular file, or of a new one."
    )
    assert path.is_fifo()


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        assert refused(Path("socket")) == (
            "cannot write 'socket'\n"
            "  at socket\n"
            "  it is a socket, which a file cannot replace\n"
            "  Give the name of a regular file, or of a new one."
        )


def test_a_link_to_a_device(tmp_path: Path) -> None:
    link = tmp_path / "net.onnx"
    link.symlink_to(os.devnull)
    assert refused(link) == (
        "cannot write 'net.onnx'\n"
        f"  at {link}\n"
        "  it is a device, which a file cannot replace\n"
        "  Give the name of a regular file, or of a new one."
    )


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failure_leaves_the_file_there_before_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, no_space)
    with pytest.raises(ArtifactError) as caught:
        write_atomically(path, b"new")
    assert str(caught.value) == (
        "cannot write 'net.onnx'\n"
        f"  at {path}\n"
        "  OSError: No space left on device\n"
        "  Check the free space and the permissions of the directory; the file there before is unchanged."
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_an_interruption_leaves_nothing_behind_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^the user$"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
