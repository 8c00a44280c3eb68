"""Compiling the kernels: once, into a private folder, and never in the way of a user without a compiler."""

import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quant_core import native
from quant_core.errors import ConfigurationError
from quant_core.native import NativeBuildError
from quant_core.native.acceptance import is_acceptable
from quant_core.native.binding import SOURCES
from quant_core.native.compiler import build
from quant_core.native.library import Kernels
from quant_core.ops import quantize_int

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="this machine has no C compiler")
Settings = Callable[..., None]


@needs_compiler
def test_compiled_once_and_kept_in_the_cache(settings: Settings, tmp_path: Path) -> None:
    settings()
    first = build(*SOURCES)
    assert first.parent == tmp_path / "cache" / "quant-core"
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    built = first.stat().st_mtime_ns
    assert build(*SOURCES) == first
    assert first.stat().st_mtime_ns == built
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name]


@needs_compiler
def test_every_set_of_flags_computes_correctly(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags in (("-march=native",), ()):
        monkeypatch.setattr("quant_core.native.compiler._FLAGS", (flags,))
        settings()
        assert is_acceptable(Kernels(build(*SOURCES)))


def test_without_a_compiler_torch_computes_and_the_log_says_why(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings(CC="no-such-compiler")
    with caplog.at_level(logging.INFO, "quant_core.native"):
        assert native.kernels() is None
    assert "the compiler CC=no-such-compiler was not found" in caplog.text
    x = torch.tensor([-3.0, 0.26], requires_grad=True)
    y = quantize_int(x, torch.tensor(0.5), 0, 2, signed=True)
    y.sum().backward()
    assert y.tolist() == [-1.0, 0.5]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0]


def test_required_kernels_that_cannot_be_compiled_are_an_error(settings: Settings) -> None:
    settings(CC="no-such-compiler", QUANT_NATIVE="1")
    with pytest.raises(NativeBuildError) as caught:
        native.kernels()
    assert str(caught.value) == (
        "the compiler CC=no-such-compiler was not found\n"
        "  the native kernels are compiled on the machine that runs them\n"
        "  Install gcc or clang; without one the same numbers are computed by torch operations, only slower."
    )


def test_a_compiler_that_fails_is_named_with_its_last_words(settings: Settings, tmp_path: Path) -> None:
    compiler = tmp_path / "broken-cc"
    compiler.write_text("#!/bin/sh\necho 'something went wrong' >&2\nexit 1\n")
    compiler.chmod(0o755)
    settings(CC=str(compiler), QUANT_NATIVE="1")
    with pytest.raises(NativeBuildError) as caught:
        native.kernels()
    assert str(caught.value) == (
        f"{compiler} cannot compile the native kernels\n"
        "  something went wrong\n"
        "  Set CC to another compiler, or QUANT_NATIVE=0 to do without them."
    )


@needs_compiler
def test_a_folder_that_others_can_write_is_not_used(settings: Settings, tmp_path: Path) -> None:
    settings(TMPDIR=str(tmp_path))
    (tmp_path / "cache" / "quant-core").mkdir(parents=True)
    os.chmod(tmp_path / "cache" / "quant-core", 0o777)
    assert tmp_path / "cache" not in build(*SOURCES).parents


def test_switched_off(settings: Settings) -> None:
    settings(QUANT_NATIVE="0")
    assert native.kernels() is None


def test_an_unknown_setting(settings: Settings) -> None:
    settings(QUANT_NATIVE="yes")
    with pytest.raises(ConfigurationError) as caught:
        native.kernels()
    assert str(caught.value) == (
        "QUANT_NATIVE='yes' is not a setting\n"
        "  at the environment\n"
        "  native kernels are off (0), required (1), or used where they can be compiled (auto)\n"
        "  Set QUANT_NATIVE to 0, 1 or auto, or unset it."
    )


@needs_compiler
def test_kernels_that_compute_wrongly_are_not_accepted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Kernels.gradient

    def wrong(self: Kernels, *arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        grad_x, sums = right(self, *arguments)  # type: ignore[arg-type]
        sums[0] *= 1.01
        return grad_x, sums

    settings(QUANT_NATIVE="1")
    monkeypatch.setattr(Kernels, "gradient", wrong)
    with pytest.raises(NativeBuildError, match="compute other numbers than torch"):
        native.kernels()
