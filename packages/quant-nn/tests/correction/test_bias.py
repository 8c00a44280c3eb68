"""Bias correction: means of outputs are those of full precision again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, InputError, StateError
from quant_core.quant import Int16Bias
from quant_nn.calibration import passing, quantizers
from quant_nn.correction import BiasError, correct_bias


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


def test_a_second_call_finds_nothing_to_do() -> None:
    model = calibrated()
    first = correct_bias(model, batches())
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for again in [correct_bias(corrected, batches()) for corrected in (model, *others)]:
        for path, shift in again.shifts.items():
            assert shift.abs().max() < 1e-6 < 1e-3 < first.shifts[path].abs().max()


def test_a_second_call_on_other_data_ends_where_a_first_one_would() -> None:
    once, twice = calibrated(), calibrated()
    others = [batch.flip(0).square() for batch in batches()]
    correct_bias(twice, batches())
    correct_bias(once, others)
    correct_bias(twice, others)
    for path in ("1.bias", "4.bias"):
        assert torch.allclose(once.get_parameter(path), twice.get_parameter(path), atol=1e-6)


def test_biases_that_were_trained_since_count_as_full_precision() -> None:
    model, fresh = calibrated(), calibrated()
    correct_bias(model, batches())
    for layer in (model[1], model[4]):
        layer.bias.data.add_(0.125)
    fresh.load_state_dict(model.state_dict())
    expected = correct_bias(fresh, batches())
    found = correct_bias(model, batches())
    assert all(torch.equal(shift, found.shifts[path]) for path, shift in expected.shifts.items())


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
        "  no layer in it has both a quantized weight and a bias\n"
        "  Build the layers with bias=True."
    )


class Fixed(nn.Module):
    """Multiplies by 3 where 3.5 is meant, and tells so."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x + self.offset

    def bias_errors(self) -> list[BiasError]:
        return [BiasError(name="offset", bias=self.offset, module=self, of_call=self._of_call)]

    def _of_call(self, args: tuple[Any, ...], out: Tensor) -> tuple[Tensor, int]:
        return -0.5 * args[0].flatten(0, -2).sum(0), args[0].numel()


def test_layers_that_tell_their_errors_take_part() -> None:
    model = nn.Sequential(qnn.QuantLinear(4, 1, weight_bit_width=3), Fixed()).eval()
    x = torch.rand(32, 4)
    with torch.no_grad():
        exact = 3.5 * nn.functional.linear(x, model[0].weight, model[0].bias)
    report = correct_bias(model, [x])
    assert list(report.shifts) == ["0", "1.offset"]
    assert torch.allclose(model(x).mean(0), exact.mean(0), atol=1e-6)
    assert correct_bias(model, [x]).shifts["1.offset"].abs() < 1e-6
