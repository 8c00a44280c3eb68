"""Models that are built on the meta device and get their numbers from a checkpoint, as large models are loaded."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import quant_nn as qnn
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int8ActPerTensorFloatMSE,
    Int8WeightPerChannelFloatMSE,
    Int8WeightPerTensorFixedPoint,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
)

STEPS = 2
X = torch.linspace(-1.0, 2.0, 12).reshape(3, 4)


def default() -> nn.Module:
    act = qnn.QuantReLU(collect_stats_steps=STEPS)
    return nn.Sequential(qnn.QuantLinear(4, 4), act, qnn.QuantLinear(4, 2))


def learned() -> nn.Module:
    first = qnn.QuantLinear(4, 4, weight_quant=Int8WeightPerChannelFloatMSE, weight_bit_width_impl_type="parameter")
    act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloatMSE, collect_stats_steps=STEPS)
    return nn.Sequential(first, act, qnn.QuantLinear(4, 2, weight_quant=Int8WeightPerTensorFixedPoint))


def shifted() -> nn.Module:
    act = qnn.QuantReLU(act_quant=ShiftedUint8ActPerTensorFloat, collect_stats_steps=STEPS, return_quant_tensor=True)
    last = qnn.QuantLinear(4, 2, weight_quant=ShiftedUint8WeightPerTensorFloat, bias_quant=Int32Bias)
    first = qnn.QuantLinear(4, 4, input_quant=Int8ActPerTensorFloat, input_collect_stats_steps=STEPS)
    return nn.Sequential(first, act, last)


every_network = pytest.mark.parametrize("build", [default, learned, shifted])


def on_meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def check_alike(woken: nn.Module, wanted: nn.Module) -> None:
    """They hold the same, and go on alike: in training, while and after statistics are collected, and in eval mode."""
    assert not any(tensor.is_meta for tensor in (*woken.parameters(), *woken.buffers()))
    for step in range(2 * STEPS):
        outs = [net(X + step) for net in (woken, wanted)]
        assert torch.equal(*outs)
        for net, out in zip((woken, wanted), outs, strict=True):
            net.zero_grad()
            out.sum().backward()
    for one, other in zip(woken.parameters(), wanted.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)
    ours, theirs = woken.state_dict(), wanted.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(woken.eval()(X), wanted.eval()(X))


@every_network
@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
def test_quantizers_start_anew_for_a_float_checkpoint(build: Callable[[], nn.Module], inside: bool) -> None:
    float_net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    woken, wanted = on_meta(build), build()
    wanted.load_state_dict(float_net.state_dict())
    with torch.device("meta" if inside else "cpu"):
        assert not any(woken.load_state_dict(float_net.state_dict(), assign=True))
    check_alike(woken, wanted)


@every_network
@pytest.mark.parametrize("steps", [1, STEPS])
def test_a_quantized_checkpoint_goes_on_where_it_was_saved(build: Callable[[], nn.Module], steps: int) -> None:
    trained = build()
    for step in range(steps):
        trained(X - step)
    woken, wanted = on_meta(build), build()
    wanted.load_state_dict(trained.state_dict())
    assert not any(woken.load_state_dict(trained.state_dict(), assign=True))
    check_alike(woken, wanted)


def test_the_mode_of_a_model_stays_as_it_is() -> None:
    woken = on_meta(default).eval()
    woken.load_state_dict(default().state_dict(), assign=True)
    assert not any(module.training for module in woken.modules())


def test_what_a_quantized_checkpoint_lacks_is_missing() -> None:
    state = default().state_dict()
    lost = "1.act_quant.tensor_quant.scaling_impl.value"
    del state[lost]
    with pytest.raises(RuntimeError, match=lost):
        on_meta(default).load_state_dict(state, assign=True)
