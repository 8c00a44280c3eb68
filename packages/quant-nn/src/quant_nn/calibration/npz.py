"""Batches in files that ``numpy.savez`` wrote."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from quant_core.cli.errors import ArgumentError
from quant_core.errors import LoadError

Arrays = dict[str, Any]
"""The arrays of a file by their name, those that numpy named itself in their order."""


def read_arrays(paths: Sequence[Path]) -> list[Arrays]:
    """The arrays in each file.

    Raises:
        LoadError: when numpy is not installed, or a file cannot be read.
        ArgumentError: when the arrays of a file do not fit each other, or those of another file.
    """
    files = [_read(path) for path in paths]
    for path, arrays in zip(paths, files, strict=True):
        _check_lengths(path, arrays)
        if arrays.keys() != files[0].keys():
            raise ArgumentError(
                f"{path.name!r} holds other inputs than {paths[0].name!r}",
                where="--data",
                why=f"its arrays are {', '.join(arrays)}, and those of the first file {', '.join(files[0])}",
                fix="Save the same arrays in each file, under the same names.",
            )
    return files


def batches_of(files: Sequence[Arrays], batch_size: int, dtype: torch.dtype) -> list[Any]:
    """The batches of one file after those of the other; none holds samples of two.

    Args:
        files: what :func:`read_arrays` has read.
        batch_size: how many samples there are in a batch, at most.
        dtype: of the model, into which floats are converted.

    Returns:
        Tuples of arguments, where numpy has named the arrays or there is only one; else mappings of keywords.
    """
    found: list[Any] = []
    for arrays in files:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        floats = {name: x.to(dtype) if x.is_floating_point() else x for name, x in tensors.items()}
        positional = len(arrays) == 1 or all(name.startswith("arr_") for name in arrays)
        batches = zip(*(x.split(batch_size) for x in floats.values()), strict=True)
        found += [tuple(batch) if positional else dict(zip(arrays, batch, strict=True)) for batch in batches]
    return found


def _read(path: Path) -> Arrays:
    try:
        import numpy as np
    except ImportError as missing:
        raise LoadError(
            f"{path.name!r} cannot be read",
            where="--data",
            why="numpy is not installed",
            fix="Install it: pip install numpy.",
        ) from missing
    try:
        with path.open("rb") as file:  # which numpy leaves open when it is damaged
            opened = np.load(file, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                raise _unreadable(path, "it holds a single array without a name, as numpy.save writes it")
            with opened:
                arrays = {name: opened[name] for name in sorted(opened.files, key=_order)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as failure:
        raise _unreadable(path, f"{type(failure).__name__}: {failure}") from failure
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # of other members numpy gives the bytes
        raise _unreadable(path, "it holds what is no array, as torch.save writes it")
    strange = next((name for name, array in arrays.items() if array.dtype.kind not in "fiub"), None)
    if strange is not None:
        raise _unreadable(path, f"{strange} holds {arrays[strange].dtype}, which are no real numbers")
    return {name: array.astype(_native(array.dtype), copy=False) for name, array in arrays.items()}


def _native(dtype: Any) -> Any:
    """The dtype in the byte order of this machine, and no wider than torch has it."""
    return "f8" if dtype.kind == "f" and dtype.itemsize > 8 else dtype.newbyteorder("=")


def _unreadable(path: Path, why: str) -> LoadError:
    return LoadError(
        f"{path.name or str(path)!r} cannot be read",
        where=str(path),
        why=why,
        fix="Give a file that numpy.savez wrote, of arrays of numbers.",
    )


def _check_lengths(path: Path, arrays: Arrays) -> None:
    """Axis 0 of all arrays is as long."""
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) == 1 and 0 not in lengths.values():
        return
    listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
    raise ArgumentError(
        f"{path.name!r} holds no samples that fit each other",
        where="--data",
        why=f"axis 0 of every array counts samples, and they are {listed or 'none'}",
        fix="Save arrays with as many samples each, for example numpy.savez('data.npz', images).",
    )


def _order(name: str) -> tuple[int, str]:
    """``arr_10`` comes after ``arr_9``."""
    number = name.removeprefix("arr_")
    return (int(number), "") if number.isdigit() else (-1, name)
