"""Calibration in steps: what is kept of an interrupted one, and that going on from it is as if nothing had happened."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import StateError
from quant_core.quant import ShiftedUint8ActPerTensorFloat
from quant_nn.calibration import METHODS, Calibration

SHIFTED = {"act_quant": ShiftedUint8ActPerTensorFloat, "collect_stats_steps": 6}
EVERY = [*((method, {}) for method in METHODS), ("auto", SHIFTED), ("statistics", SHIFTED)]


class Stops(nn.Module):
    """Raises in the middle of the model, once."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.left = 0

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0 and self.error is not None:
            raise self.error
        return x


def net(**options: Any) -> nn.Sequential:
    """The first quantizer sees a batch before the model is interrupted in it, and the second does not."""
    torch.manual_seed(0)
    return nn.Sequential(qnn.QuantIdentity(**options), Stops(), qnn.QuantLinear(6, 8), qnn.QuantReLU())


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(16, 6, generator=generator) * (6 - i) for i in range(6)]  # the first is the largest


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def interrupted(model: nn.Sequential, error: BaseException, batch: int = 3) -> nn.Sequential:
    model[1].error, model[1].left = error, batch
    return model


@pytest.mark.parametrize(("method", "options"), EVERY)
def test_a_batch_that_is_interrupted_counts_once(method: str, options: dict[str, Any]) -> None:
    whole, stopped = net(**options), interrupted(net(**options), KeyboardInterrupt())
    expected = qnn.calibrate(whole, batches(), method)
    calibration = Calibration(stopped, method)
    before = state(stopped)
    with pytest.raises(KeyboardInterrupt):
        calibration.collect(batches())
    assert calibration.batches == 2
    assert same(state(stopped), before)
    calibration.collect(itertools.islice(batches(), calibration.batches, None))
    report = calibration.finish()
    assert same(state(stopped), state(whole))
    assert str(report) == str(expected)


@pytest.mark.parametrize(("method", "options"), EVERY)
def test_one_call_changes_nothing_when_it_is_interrupted(method: str, options: dict[str, Any]) -> None:
    model = interrupted(net(**options), ValueError("bad data"))
    before = state(model)
    with pytest.raises(ValueError, match="bad data"):
        qnn.calibrate(model, batches(), method)
    assert same(state(model), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(("method", "options"), EVERY)
def test_it_goes_on_from_a_checkpoint_in_another_session(method: str, options: dict[str, Any], tmp_path: Any) -> None:
    def half() -> Iterator[Tensor]:
        yield from batches()[:3]
        raise KeyboardInterrupt

    whole, stopped = net(**options), net(**options)
    qnn.calibrate(whole, batches(), method)
    first = Calibration(stopped, method)
    with pytest.raises(KeyboardInterrupt):
        first.collect(half())
    torch.save(first.state_dict(), tmp_path / "half.pt")
    second = Calibration(net(**options), method)
    second.load_state_dict(torch.load(tmp_path / "half.pt", weights_only=True))
    second.collect(itertools.islice(batches(), second.batches, None))
    assert second.finish().batches == 6
    assert same(state(second.model), state(whole))


@pytest.mark.parametrize("method", METHODS)
def test_nothing_changes_before_the_end(method: str) -> None:
    model = net()
    before, modes = state(model), [module.training for module in model.modules()]
    calibration = Calibration(model, method)
    calibration.collect(batches())
    assert same(state(model), before)
    assert [module.training for module in model.modules()] == modes
    calibration.finish()
    assert not same(state(model), before)


@pytest.mark.parametrize("method", METHODS)
def test_a_block_that_fails_leaves_nothing_behind(method: str) -> None:
    calibrated, other = net(), net()
    calibration = Calibration(calibrated, method)
    with calibration.collecting():
        calibrated(batches()[1])
    interrupted(calibrated, ValueError("in the block"), 1)
    with pytest.raises(ValueError, match="in the block"), calibration.collecting():
        calibrated(batches()[0])
    calibration.finish()
    qnn.calibrate(other, [batches()[1]], method)
    assert same(state(calibrated), state(other))


def test_a_state_stays_what_it_was() -> None:
    calibration = Calibration(net(), "entropy")
    calibration.collect(batches()[:2])
    taken = calibration.state_dict()
    copied = copy.deepcopy(taken)
    calibration.collect([100 * batch for batch in batches()])
    again = Calibration(net(), "entropy")
    again.load_state_dict(taken)
    expected = Calibration(net(), "entropy")
    expected.load_state_dict(copied)
    assert str(again.finish()) == str(expected.finish())


def test_collecting_within_collecting_is_an_error() -> None:
    calibration = Calibration(net(), "max")
    with calibration.collecting(), pytest.raises(StateError) as caught:
        calibration.collect(batches())
    assert str(caught.value) == (
        "this calibration is collecting already\n"
        "  at Sequential\n"
        "  a block of collecting() has not ended, and tensors would count twice\n"
        "  Run the model by itself in such a block, or call collect(data) outside of it."
    )
    calibration.collect(batches())


def test_statistics_that_were_not_collected_anew_are_missed() -> None:
    model = net()
    qnn.calibrate(model, batches(), "statistics")
    before = state(model)
    with pytest.raises(StateError, match="quantizers have seen no data"):
        Calibration(model, "statistics", again=True).finish()
    assert same(state(model), before)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"method": "max"}, "it was collected with method 'max', and not 'entropy'"),
        ({"bins": 1024}, "it was collected with bins 1024, and not 2048"),
        ({"calibrators": {"7.act_quant": {}}}, "it was collected for '7.act_quant', which is not calibrated here"),
        ({"own": [{}]}, "it holds the statistics of 1 quantizers, and here are 0 or others"),
    ],
)
def test_a_state_of_another_calibration_is_refused(change: dict[str, Any], text: str) -> None:
    taken = Calibration(net(), "entropy")
    taken.collect(batches())
    with pytest.raises(StateError) as caught:
        Calibration(net(), "entropy").load_state_dict(taken.state_dict() | change)
    assert str(caught.value) == (
        "this state is of another calibration\n"
        f"  {text}\n"
        "  Make the Calibration with the model, the method and the bins that it was saved with."
    )


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(StateError) as caught:
        Calibration(net(), "entropy").load_state_dict(net().state_dict())
    assert str(caught.value) == (
        "this is not the state of a calibration\n  it has no 'method'\n  Give what Calibration.state_dict() returned."
    )
