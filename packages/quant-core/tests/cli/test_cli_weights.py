"""`--weights`: strict, and without running code from the file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from quant_core.cli.weights import load_weights
from quant_core.errors import LoadError

FIX = "Give the weights of this model, or the model of these weights."


class Marker:
    """Unpickling it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def _saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@settings(max_examples=10, deadline=None)
@given(st.integers(min_value=1, max_value=5), st.booleans())
def test_what_was_saved_is_loaded_bit_by_bit(size: int, nested: bool) -> None:
    source, model = nn.Linear(size, 2), nn.Linear(size, 2)
    state = source.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        load_weights(model, _saved(Path(folder) / "net.pt", {"state_dict": state, "epoch": 3} if nested else state))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), model.parameters(), strict=True))


def test_names_behind_those_of_a_wrapper(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt", nn.DataParallel(nn.Linear(2, 2)).state_dict())
    with pytest.raises(LoadError) as caught:
        load_weights(nn.Linear(2, 2), path)
    assert caught.value.fix == (
        "All names start with 'module.', which wrappers of models add: save the state dict of the model inside of "
        "the wrapper, or load {name.removeprefix('module.'): tensor for name, tensor in checkpoint.items()}."
    )


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        load_weights(nn.Linear(2, 2), tmp_path / "net.pt")
    assert str(caught.value) == (
        "there is no weights file 'net.pt'\n"
        f"  at {tmp_path}/net.pt\n"
        f"  {tmp_path} has no such file\n"
        "  Give a file written by torch.save(model.state_dict(), path)."
    )


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="it is a directory"):
        load_weights(nn.Linear(2, 2), tmp_path)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_text("these are no weights")
    with pytest.raises(LoadError) as caught:
        load_weights(nn.Linear(2, 2), path)
    assert caught.value.what == "'net.pt' is not a weights file"
    assert caught.value.where == str(path)
    assert caught.value.why.startswith("torch.load(weights_only=True) refuses it: ")
    assert caught.value.fix == (
        "Give a file written by torch.save(model.state_dict(), path): tensors only, no pickled objects."
    )


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt", {"weight": Marker(str(tmp_path / "it-ran"))})
    with pytest.raises(LoadError, match=r"^'net\.pt' is not a weights file"):
        load_weights(nn.Linear(2, 2), path)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([torch.zeros(1)], "it holds a list"),
        ({"weight": 3}, "'weight' is a int, not a tensor"),
        ({3: torch.zeros(1)}, "it holds a dict"),
    ],
)
def test_a_file_without_a_state_dict(content: Any, why: str, tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt", content)
    with pytest.raises(LoadError) as caught:
        load_weights(nn.Linear(2, 2), path)
    assert str(caught.value) == (
        "'net.pt' holds no state dict\n"
        f"  at {path}\n"
        f"  {why}\n"
        "  Save model.state_dict(), by itself or as 'state_dict' in a dict."
    )


def test_complex_weights_are_not_cut_down_to_their_real_part(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt", {"weight": torch.zeros(2, 2, dtype=torch.complex64), "bias": torch.ones(2)})
    model = nn.Linear(2, 2)
    before = model.bias.detach().clone()
    with pytest.raises(LoadError) as caught:
        load_weights(model, path)
    assert str(caught.value) == (
        "the weights in 'net.pt' do not fit the model\n"
        f"  at {path}\n"
        "  'weight' holds torch.complex64, the model has torch.float32\n"
        "  Save real numbers: torch would drop the imaginary parts."
    )
    assert torch.equal(model.bias, before)


def test_keys_that_do_not_fit_are_answered_with_the_nearest_ones(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt", {"wieght": torch.zeros(2, 2), "bias": torch.zeros(2), "zzz": torch.zeros(1)})
    with pytest.raises(LoadError) as caught:
        load_weights(nn.Linear(2, 2), path)
    assert str(caught.value) == (
        "the weights in 'net.pt' do not fit the model\n"
        f"  at {path}\n"
        "  'weight' is missing; the nearest key is 'wieght'\n"
        "  'wieght' is not in the model; the nearest key is 'weight'\n"
        "  'zzz' is not in the model\n"
        f"  {FIX}"
    )


def test_shapes_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt", nn.Linear(3, 4).state_dict())
    with pytest.raises(LoadError) as caught:
        load_weights(nn.Linear(2, 2), path)
    assert str(caught.value) == (
        "the weights in 'net.pt' do not fit the model\n"
        f"  at {path}\n"
        "  'weight' has shape (4, 3), the model has (2, 2)\n"
        "  'bias' has shape (4,), the model has (2,)\n"
        f"  {FIX}"
    )


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    path = _saved(tmp_path / "net.pt", {})
    with pytest.raises(LoadError) as caught:
        load_weights(nn.Sequential(*(nn.Linear(2, 2) for _ in range(5))), path)
    lines = caught.value.why.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 5 more"
