"""The one call: what it returns and writes, and that a failure writes and changes nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import ArtifactError, QuantError, UnknownNameError, UnsupportedError, VerificationError
from quant_core.export import Note, export
from quant_core.plugins import Registry


def test_it_captures_lowers_verifies_and_saves(net: nn.Module, x: Tensor, plugins: Registry, folder: Path) -> None:
    path = folder / "net.json"
    done = export(net, (x,), target="listing", path=path, plugins=plugins)
    assert done.path == path
    assert path.read_bytes() == done.artifact.content()
    assert done.artifact.size == path.stat().st_size
    assert done.verification.equal
    assert done.seconds > 0
    assert torch.equal(done.artifact.run(x), net.eval()(x))
    assert os.listdir(folder) == ["net.json"]


def test_without_a_path_it_stays_in_memory_and_without_verification_nothing_runs(
    net: nn.Module, x: Tensor, plugins: Registry
) -> None:
    done = export(net, (x,), target="listing", verify=False, plugins=plugins)
    assert (done.path, done.verification) == (None, None)


def test_it_prints_what_to_know_of_it(
    net: nn.Module, x: Tensor, plugins: Registry, folder: Path, parts: dict[str, Any]
) -> None:
    done = export(net, (x,), target="listing", path=folder / "net.json", plugins=plugins)
    assert str(done) == f"{done.verification}\nsaved as {folder / 'net.json'}"
    kind = f"{type(net).__module__}.Net"
    assert repr(done.program) == f"Program({kind}, quantized weights: 2, biases: 2, activations: 2)"
    assert len(repr(done)) < 1000

    fresh = nn.Sequential(parts["activation"]())
    unseen = export(fresh, (x,), target="listing", verify=False, plugins=plugins)
    unseen.artifact.notes = (Note(where="0", what="it is small"),)
    assert str(unseen) == (
        "listing, not compared with the model\n"
        "note: no data has been seen by 0.act_quant; the scale there is the one it starts from\n"
        "note: it is small\n"
        "  at 0"
    )


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"target": "strict"}, UnsupportedError),
        ({"target": "lising"}, UnknownNameError),
        ({"target": "listing", "options": {"error": 0.1, "at": "output"}}, VerificationError),
        ({"target": "listing", "options": {"nonsense": 1}}, UnknownNameError),
    ],
)
def test_a_failed_export_changes_nothing(
    options: dict[str, Any],
    kind: type[QuantError],
    net: nn.Module,
    x: Tensor,
    plugins: Registry,
    folder: Path,
    snapshot: Callable[[nn.Module], Any],
) -> None:
    path = folder / "net.json"
    path.write_text("the file before")
    before = snapshot(net)
    with pytest.raises(kind):
        export(net, (x,), path=path, plugins=plugins, **options)
    after = snapshot(net)
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:] == after[1:]
    assert path.read_text() == "the file before"
    assert os.listdir(folder) == ["net.json"]


def test_a_path_that_cannot_be_written_is_found_before_any_work(
    net: nn.Module, x: Tensor, plugins: Registry, folder: Path
) -> None:
    missing = folder / "missing"
    cases = {
        missing / "net.json": (
            f"cannot write 'net.json'\n"
            f"  at {missing / 'net.json'}\n"
            f"  {missing} is not a directory\n"
            f"  Create it first: mkdir -p {missing}"
        ),
        folder: (
            f"cannot write {folder.name!r}\n"
            f"  at {folder}\n"
            "  it is a directory\n"
            f"  Give a file name, for example {folder / 'model.onnx'}."
        ),
    }
    for path, message in cases.items():
        with pytest.raises(ArtifactError) as caught:
            export(net, "not even inputs", target="listing", path=path, plugins=plugins)
        assert str(caught.value) == message


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    net: nn.Module, x: Tensor, plugins: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "net.json"
    path.write_text("the file before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError) as caught:
        export(net, (x,), target="listing", path=path, plugins=plugins)
    assert str(caught.value) == (
        "cannot write 'net.json'\n"
        f"  at {path}\n"
        "  OSError: No space left on device\n"
        "  Check the free space and the permissions of the directory; the file there before is unchanged."
    )
    assert path.read_text() == "the file before"
    assert os.listdir(folder) == ["net.json"]
