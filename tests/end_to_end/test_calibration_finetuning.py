"""The recipe for fine-tuning after calibration brings back most of what rounding cost."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "finetune_digits.py"


@pytest.fixture
def script() -> Iterator[ModuleType]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("finetune_digits", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)


def test_a_tenth_of_the_schedule_brings_back_most_of_the_accuracy(script: ModuleType) -> None:
    reached = script.run(epochs=60, seed=0)
    assert reached["float"] > 0.9
    assert reached["calibrated"] < reached["float"] - 0.1
    assert script.recovered(reached) > 0.5


def test_it_exits_with_success(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--seed", "1"]) == 0
    assert "fine-tuned" in capsys.readouterr().out
