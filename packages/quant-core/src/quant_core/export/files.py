"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from quant_core.errors import ArtifactError


def check_writable(path: Path) -> None:
    """Find out before any work whether a file can be written there.

    Raises:
        ArtifactError: when the directory does not exist or cannot be written to, or the path is a directory.
    """
    parent = path.parent
    if path.is_dir():
        reason, fix = "it is a directory", f"Give a file name, for example {path / 'model.onnx'}."
    elif not parent.is_dir():
        reason, fix = f"{parent} is not a directory", f"Create it first: mkdir -p {parent}"
    elif not os.access(parent, os.W_OK):
        reason, fix = f"{parent} is not writable for this user", "Choose another directory, or change its permissions."
    else:
        return
    raise ArtifactError(f"cannot write {path.name!r}", where=str(path), why=reason, fix=fix)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` in one step: a reader finds the old file or the new one, and a failure leaves the old one.

    Raises:
        ArtifactError: when the file cannot be written.
    """
    check_writable(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = stream.name
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as failure:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise ArtifactError(
            f"cannot write {path.name!r}",
            where=str(path),
            why=f"{type(failure).__name__}: {failure.strerror or failure}",
            fix="Check the free space and the permissions of the directory; the file there before is unchanged.",
        ) from failure


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
