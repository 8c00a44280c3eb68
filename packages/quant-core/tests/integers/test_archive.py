"""The file: numpy reads it, it reads itself, and what is none of its kind is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant_core.errors import ArtifactError
from quant_core.integers import Plan, load
from quant_core.integers.archive import read, write
from quant_core.integers.artifact import pack

DTYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64, torch.bool)


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=4))
def test_numpy_reads_what_is_written(dtype: torch.dtype, shape: list[int]) -> None:
    tensor = (torch.arange(int(np.prod(shape)), dtype=torch.float64).reshape(shape) % 2).to(dtype)
    content = write({"a.b": tensor}, {"note.txt": "héllo"})
    with np.load(io.BytesIO(content)) as archive:
        found = archive["a.b"]
        assert archive["note.txt"].decode() == "héllo"
    assert found.shape == tuple(shape)
    assert found.dtype == tensor.numpy().dtype
    assert np.array_equal(found, tensor.numpy())
    arrays, texts = read(content)
    assert torch.equal(arrays["a.b"], tensor)
    assert arrays["a.b"].dtype == dtype
    assert texts == {"note.txt": "héllo"}


def test_equal_content_gives_equal_bytes() -> None:
    arrays = {"w": torch.arange(6).reshape(2, 3)}
    assert write(arrays, {"t": "x"}) == write({"w": arrays["w"].clone()}, {"t": "x"})


def test_a_transposed_tensor_is_stored_in_order() -> None:
    tensor = torch.arange(6).reshape(2, 3).t()
    assert torch.equal(read(write({"w": tensor}, {}))[0]["w"], tensor)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load(tmp_path / "net.npz")
    assert str(caught.value) == (
        f"cannot read 'net.npz'\n  at {tmp_path / 'net.npz'}\n  FileNotFoundError: No such file or directory\n"
        "  Give the path of a file that quant export integers wrote."
    )


def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match="this is no network in integers that can be read") as caught:
        load(path)
    assert "BadZipFile: File is not a zip file" in str(caught.value)
    path.write_bytes(write({"w": torch.zeros(1)}, {}))
    with pytest.raises(ArtifactError, match=r"KeyError: 'graph\.json'"):
        load(path)


def test_a_file_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    content = pack(Plan(), "net")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        described = json.loads(archive.read("graph.json"))
    path.write_bytes(write({}, {"graph.json": json.dumps(described | {"version": 9}), "model.h": ""}))
    with pytest.raises(ArtifactError, match="it is 'quant integers', version 9") as caught:
        load(path)
    assert "Export it again with this version: quant export integers" in str(caught.value)
