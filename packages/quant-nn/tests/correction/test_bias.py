"""Bias correction: means of outputs are those of full precision again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, StateError
from quant_core.quant import Int16Bias
from quant_nn.calibration import passing, quantizers
from quant_nn.correction import correct_bias


def net(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, weight_bit_width=3, **options),
        qnn.QuantReLU(return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(4 * 36, 5, weight_bit_width=3, **options),
    ).eval()


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(size, 2, 8, 8, generator=generator) for size in (8, 16, 3)]


def calibrated(**options: Any) -> nn.Sequential:
    model = net(**options)
    qnn.calibrate(model, batches(), "max")
    return model


def outputs(model: nn.Module, path: str) -> Tensor:
    """Of a layer, with channels last, over all data."""
    found: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda module, args, out: found.append(out))
    with torch.no_grad():
        for batch in batches():
            model(batch)
    handle.remove()
    return torch.cat([out.movedim(1, -1).reshape(-1, out.shape[1]) for out in found])


def test_means_are_those_of_full_precision() -> None:
    model = calibrated()
    with passing(quantizers(model).values()):
        exact = {path: outputs(model, path).double().mean(0) for path in ("1", "4")}
    before = {path: outputs(model, path).double().mean(0) for path in ("1", "4")}
    report = correct_bias(model, batches())
    assert list(report.shifts) == ["1", "4"]
    for path in ("1", "4"):
        after = outputs(model, path).double().mean(0)
        assert (before[path] - exact[path]).abs().max() > 1e-3
        assert torch.allclose(after, exact[path], atol=1e-6)


def test_data_that_can_be_gone_through_only_once_will_do() -> None:
    expected, found = correct_bias(calibrated(), batches()), correct_bias(calibrated(), iter(batches()))
    assert all(torch.equal(expected.shifts[path], shift) for path, shift in found.shifts.items())


def test_a_quantized_bias_is_corrected_as_far_as_it_can_be() -> None:
    model = calibrated(bias_quant=Int16Bias)
    with passing(quantizers(model).values()):
        exact = outputs(model, "4").mean(0)
    before = (outputs(model, "4").mean(0) - exact).abs().max()
    correct_bias(model, batches())
    assert (outputs(model, "4").mean(0) - exact).abs().max() < before


def test_only_biases_change_and_modes_stay() -> None:
    model = calibrated().train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    identities = [id(p) for p in model.parameters()]
    correct_bias(model, batches())
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == {"1.bias", "4.bias"}
    assert identities == [id(p) for p in model.parameters()]
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_when_it_fails_nothing_has_changed() -> None:
    model = calibrated()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}

    class Failing:
        """Fails when it is gone through for the third time."""

        passes = 0

        def __iter__(self) -> Iterator[Tensor]:
            self.passes += 1
            if self.passes == 3:
                raise RuntimeError("disk")
            yield from batches()

    with pytest.raises(RuntimeError, match="disk"):
        correct_bias(model, Failing())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_the_report_is_a_table() -> None:
    model = nn.Sequential(
        qnn.QuantLinear(2, 1, weight_bit_width=2), qnn.QuantLinear(1, 1, bias=False, weight_bit_width=2)
    )
    nn.init.zeros_(model[0].bias)
    model[0].weight.data.copy_(torch.tensor([[1.0, 0.25]]))
    assert str(correct_bias(model, [torch.ones(4, 2)])) == (
        "biases corrected: 1\n"
        "layer   mean shift   largest shift\n"
        "──────────────────────────────────\n"
        "0       0.25         0.25\n"
        "left, without a bias: 1"
    )


def test_bad_input_is_refused() -> None:
    with pytest.raises(StateError) as caught:
        correct_bias(net(), batches())
    assert str(caught.value) == (
        "bias correction comes after calibration\n"
        "  at 0.act_quant, 2.act_quant\n"
        "  their ranges are not known yet, and so not what they will do\n"
        "  Call quant_nn.calibrate(model, data) first."
    )
    with pytest.raises(InputError, match="there is no data"):
        correct_bias(calibrated(), [])
    with pytest.raises(ConfigurationError) as wrong:
        correct_bias(qnn.QuantLinear(2, 2, bias=False), [torch.ones(2, 2)])
    assert str(wrong.value) == (
        "there is no bias to correct\n"
        "  at QuantLinear\n"
        "  no layer of quant_nn in it has both a weight and a bias\n"
        "  Build the layers with bias=True."
    )
