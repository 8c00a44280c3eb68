"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from quant_core.errors import ArtifactError

_PREFIX: Final = ".quant-"  # fixed, so that a temporary name is not longer than the file system takes
_KINDS: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_writable(path: Path) -> None:
    """Find out before any work whether a file can be written there; a symbolic link stands for the file that it leads to.

    Raises:
        ArtifactError: when the directory does not exist or cannot be written to, or the path is a directory, a pipe, a socket, a
            device or a file that is read-only.
    """
    real = _real(path)
    parent = real.parent
    if os.path.isdir(real):
        reason, fix = "it is a directory", f"Give a file name, for example {path / 'model.onnx'}."
    elif os.path.islink(real):
        reason, fix = "it is a symbolic link that leads back to itself", "Remove the link, or give another file name."
    elif os.path.exists(real) and not os.path.isfile(real):
        kind = _KINDS.get(stat.S_IFMT(os.stat(real).st_mode), "no regular file")
        reason, fix = f"it is {kind}, which a file cannot replace", "Give the name of a regular file, or of a new one."
    elif not os.path.isdir(parent):
        reason, fix = f"{parent} is not a directory", f"Create it first: mkdir -p {parent}"
    elif not _may_write(parent):
        reason, fix = f"{parent} is not writable for this user", "Choose another directory, or change its permissions."
    elif os.path.exists(real) and not _may_write(real):
        reason, fix = "it is read-only for this user", "Give another file name, or change its permissions."
    else:
        return
    raise ArtifactError(f"cannot write {path.name or str(path)!r}", where=str(path), why=reason, fix=fix)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` in one step: a reader finds the old file or the new one, and a failure leaves the old one.

    A symbolic link stays, and the file that it leads to is written; a file that is replaced keeps its permissions. Nothing is
    left behind, also when the user interrupts.

    Raises:
        ArtifactError: when the file cannot be written.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files as :func:`write_atomically` writes one: all are on the disk before the first is put in its place.

    Raises:
        ArtifactError: when one of them cannot be written; those that were there before are unchanged.
    """
    for path in contents:
        check_writable(path)
    temporaries: dict[Path, str] = {}
    path = next(iter(contents))
    try:
        for path, content in contents.items():
            _write_beside(_real(path), content, temporaries)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
    except OSError as failure:
        raise ArtifactError(
            f"cannot write {path.name!r}",
            where=str(path),
            why=f"{type(failure).__name__}: {failure.strerror or failure}",
            fix="Check the free space and the permissions of the directory; the file there before is unchanged.",
        ) from failure
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _write_beside(real: Path, content: bytes, temporaries: dict[Path, str]) -> None:
    """Write the content of a file to a temporary one in the same directory, which is noted first."""
    descriptor, temporaries[real] = tempfile.mkstemp(dir=real.parent, prefix=_PREFIX)
    with open(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporaries[real], stat.S_IMODE(os.stat(real).st_mode) if os.path.exists(real) else 0o666 & ~_umask())


def _real(path: Path) -> Path:
    """The file that is written: a path as it was given, unless it is a symbolic link."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def _may_write(place: Path) -> bool:
    return os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
