"""Targets whose own code is wrong: what fails there is told as a defect of the target, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from quant_core.errors import ArtifactError, LoweringError, PluginError, QuantError, UnknownNameError, VerificationError
from quant_core.export import Artifact, Program, Trace, capture, check, export, lower
from quant_core.plugins import API_VERSION, Capabilities, Registry, Target, hookimpl

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
Plugins = Callable[..., Registry]


class Rectified(Artifact):
    def content(self) -> bytes:
        return b"relu"

    def trace(self, inputs: list[Any]) -> Trace:
        return Trace(outputs=[inputs[0].relu()], values={})


class Silent(Rectified):
    def trace(self, inputs: list[Any]) -> Trace:
        return Trace(outputs=[], values={})


class Breaking(Rectified):
    def trace(self, inputs: list[Any]) -> Trace:
        raise KeyError("register")


class Bare(Rectified):
    def __init__(self) -> None:
        pass


class Worded(Rectified):
    def content(self) -> Any:
        return "relu"


class Empty(Rectified):
    def content(self) -> bytes:
        raise KeyError("weights")


class Listed(Rectified):
    def trace(self, inputs: list[Any]) -> Any:
        return [inputs[0].relu()]


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """``plugins(exporter=…, rules=…, runtime=…)`` is a registry with one target ``npu`` of that code."""
    import sys

    def make(exporter: Any, rules: Any = None, runtime: str | None = "torch") -> Registry:
        module = ModuleType("npu_plugin")
        target = Target(
            name="npu",
            summary="for tests",
            exporter="npu_plugin:exporter",
            suffix=".npu",
            capabilities=Capabilities(),
            runtime=runtime,
            rules=None if rules is None else "npu_plugin:rules",
        )

        @hookimpl
        def quant_targets() -> Iterable[Target]:
            yield target

        module.QUANT_API_VERSION, module.quant_targets = API_VERSION, quant_targets
        module.exporter, module.rules = exporter, rules
        monkeypatch.setitem(sys.modules, "npu_plugin", module)
        return Registry([EntryPoint("npu", "npu_plugin", "quant")])

    return make


def rectify(program: Program) -> Artifact:
    return Rectified("npu", program.signature)


def say_three(program: Program) -> list[Any]:
    return [3]


def divide(program: Program) -> Any:
    return 1 / 0


CASES: dict[str, tuple[dict[str, Any], type[QuantError], str]] = {
    "no artifact": (
        {"exporter": lambda program: None},
        LoweringError,
        "target 'npu' gave no artifact\n"
        "  at unknown unknown\n"
        "  npu_plugin:exporter returned a NoneType, not a quant_core.export.Artifact\n"
        "  Report this to the authors of that package.",
    ),
    "no function": (
        {"exporter": 3},
        PluginError,
        "target 'npu' has no exporter\n"
        "  at npu_plugin:exporter\n"
        "  it is a int, not a function (program, **options) -> Artifact\n"
        "  Report this to the authors of the package that registers the target.",
    ),
    "rules of numbers": (
        {"exporter": rectify, "rules": say_three},
        PluginError,
        "the rules of target 'npu' gave 3\n"
        "  at unknown unknown\n"
        "  npu_plugin:rules yields objects of quant_core.export.Refusal and Note\n"
        "  Report this to the authors of that package.",
    ),
    "rules that fail": (
        {"exporter": rectify, "rules": divide},
        PluginError,
        "the rules of target 'npu' failed\n"
        "  at unknown unknown\n"
        "  npu_plugin:rules raised ZeroDivisionError: division by zero\n"
        "  This is a defect of the target; report it with the cause of this error.",
    ),
    "a runtime that fails": (
        {"exporter": lambda program: Breaking("npu", program.signature)},
        ArtifactError,
        "the npu artifact fails when it is run\n"
        "  KeyError: 'register'\n"
        "  This is a defect of the target; report it with the cause of this error. Nothing was written.",
    ),
    "an artifact of nothing": (
        {"exporter": lambda program: Bare()},
        LoweringError,
        "target 'npu' gave an artifact without target and signature\n"
        "  at unknown unknown\n"
        "  Bare.__init__ does not call that of quant_core.export.Artifact\n"
        "  Report this to the authors of that package: it begins with super().__init__(target, program.signature).",
    ),
    "content of words": (
        {"exporter": lambda program: Worded("npu", program.signature)},
        ArtifactError,
        "the npu artifact does not give its bytes\n"
        "  Worded.content returned a str, not bytes\n"
        "  This is a defect of the target; report it to the authors of that package. Nothing was written.",
    ),
    "content that fails": (
        {"exporter": lambda program: Empty("npu", program.signature)},
        ArtifactError,
        "the npu artifact does not give its bytes\n"
        "  KeyError: 'weights'\n"
        "  This is a defect of the target; report it with the cause of this error. Nothing was written.",
    ),
    "no trace": (
        {"exporter": lambda program: Listed("npu", program.signature)},
        ArtifactError,
        "the npu artifact gives no trace when it is run\n"
        "  Listed.trace returned a list, not a quant_core.export.Trace\n"
        "  This is a defect of the target; report it to the authors of that package. Nothing was written.",
    ),
    "too few outputs": (
        {"exporter": lambda program: Silent("npu", program.signature)},
        VerificationError,
        "the npu artifact returns 0 tensors where the model returns 1\n"
        "  at torch.nn.ReLU\n"
        "  an artifact returns what the program returns, in the same order\n"
        "  This is a defect of the target; report it with the model. Nothing was written.",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_with_a_target_is_told(name: str, plugins: Plugins, tmp_path: Path) -> None:
    parts, kind, message = CASES[name]
    with pytest.raises(kind) as caught:
        export(nn.ReLU(), (X,), target="npu", path=tmp_path / "net.npu", plugins=plugins(**parts))
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


def test_an_artifact_without_traces_cannot_be_run_and_one_without_bytes_has_no_size(plugins: Plugins) -> None:
    program = capture(nn.ReLU(), (X,))
    with pytest.raises(ArtifactError, match="gives no trace"):
        lower(program, "npu", plugins=plugins(lambda program: Listed("npu", program.signature))).run(X)
    with pytest.raises(ArtifactError, match="does not give its bytes"):
        _ = lower(program, "npu", plugins=plugins(lambda program: Worded("npu", program.signature))).size


def test_rules_are_asked_by_a_check_too(plugins: Plugins) -> None:
    with pytest.raises(PluginError, match="the rules of target 'npu' failed"):
        check(capture(nn.ReLU(), (X,)), "npu", plugins=plugins(rectify, divide))


def test_an_exporter_swallows_no_options(plugins: Plugins) -> None:
    def swallow(program: Program, bits: int = 8, **options: Any) -> Artifact:
        return rectify(program)

    with pytest.raises(UnknownNameError) as caught:
        lower(capture(nn.ReLU(), (X,)), "npu", plugins=plugins(swallow), bit=4)
    assert str(caught.value) == ("target 'npu' has no option 'bit'\n  its options are bits\n  Did you mean 'bits'?")


@pytest.mark.parametrize(("runtime", "verified"), [("torch.nn", True), ("no_such_package.runtime", False)])
def test_the_runtime_may_be_a_part_of_a_package(runtime: str, verified: bool, plugins: Plugins) -> None:
    done = export(nn.ReLU(), (X,), target="npu", plugins=plugins(rectify, runtime=runtime))
    assert (done.verification is not None) == verified
