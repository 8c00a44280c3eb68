"""Reading and writing ``.npz`` files, which are zip archives of arrays, without numpy.

The format of an array is that of numpy's documentation, ``numpy.lib.format``, version 1.0: a magic word, the length of a header,
the header as a Python literal, and the bytes of the elements.
"""

from __future__ import annotations

import ast
import ctypes
import io
import math
import zipfile
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_ALIGNED: Final = 64
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the same file gives the same bytes at any time
_WORDS: Final = {
    torch.bool: "|b1",
    torch.uint8: "|u1",
    torch.int8: "|i1",
    torch.int16: "<i2",
    torch.int32: "<i4",
    torch.int64: "<i8",
    torch.float16: "<f2",
    torch.float32: "<f4",
    torch.float64: "<f8",
}
_DTYPES: Final = {word: dtype for dtype, word in _WORDS.items()}


def write(arrays: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    """The bytes of an archive of arrays, each under its name and ``.npy``, and of texts under their names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        members = {f"{name}.npy": _array(tensor) for name, tensor in arrays.items()}
        members |= {name: text.encode() for name, text in texts.items()}
        for name, content in members.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return stream.getvalue()


def read(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The arrays and the texts of an archive.

    >>> arrays, texts = read(write({"a.weight": torch.tensor([[1, -2]])}, {"note.txt": "hello"}))
    >>> arrays, texts
    ({'a.weight': tensor([[ 1, -2]])}, {'note.txt': 'hello'})
    """
    arrays, texts = {}, {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            member = archive.read(name)
            if name.endswith(".npy"):
                arrays[name.removesuffix(".npy")] = _tensor(member)
            else:
                texts[name] = member.decode()
    return arrays, texts


def _array(tensor: Tensor) -> bytes:
    whole = tensor.detach().cpu().contiguous()
    header = f"{{'descr': '{_WORDS[whole.dtype]}', 'fortran_order': False, 'shape': {tuple(whole.shape)}, }}"
    missing = -(len(_MAGIC) + 2 + len(header) + 1) % _ALIGNED
    line = header.encode() + b" " * missing + b"\n"
    elements = ctypes.string_at(whole.data_ptr(), whole.nbytes) if whole.numel() else b""
    return _MAGIC + len(line).to_bytes(2, "little") + line + elements


def _tensor(member: bytes) -> Tensor:
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(member[len(_MAGIC) : start], "little")
    header = ast.literal_eval(member[start:end].decode())
    dtype, shape = _DTYPES[header["descr"]], header["shape"]
    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(member[end:]), dtype=dtype).reshape(shape)
