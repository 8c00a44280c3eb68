"""Calibrating models: what is set, when, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import AbsMax
from quant_core.errors import (
    ConfigurationError,
    InputError,
    QuantError,
    StateError,
    UnknownNameError,
    UnusedAttributeError,
)
from quant_core.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8ActPerTensorFloatBatchQuant1d,
    Int8Bias,
    ShiftedUint8ActPerTensorFloat,
)
from quant_nn.calibration import METHODS, Levels
from quant_nn.toolkit import QuantDescriptor

NAMED = [method for method in METHODS if method not in ("auto", "statistics")]


def net(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True, **options),
        qnn.QuantLinear(6, 8, bias_quant=Int8Bias, weight_bit_width=4),
        qnn.QuantReLU(return_quant_tensor=True, **options),
        nn.Dropout(0.5),
        qnn.QuantLinear(8, 3, bias_quant=Int8Bias, weight_bit_width=4),
    )


def batches(count: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, 6, generator=generator) * (1 + i) for i in range(count)]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("method", NAMED)
@pytest.mark.parametrize("bits", [3, 8])
def test_the_scale_is_the_threshold_over_the_largest_integer(method: str, bits: int) -> None:
    model = net(bit_width=bits)
    report = qnn.calibrate(model, batches(), method)
    assert torch.allclose(model[0].act_quant.scale(), report.thresholds["0.act_quant"].float() / 2 ** (bits - 1))
    assert torch.allclose(model[2].act_quant.scale(), report.thresholds["2.act_quant"].float() / (2**bits - 1))
    assert report.batches == 4
    assert [q.elements for q in report.quantizers] == [4 * 16 * 6, 4 * 16 * 8]


def test_ranges_are_those_of_full_precision() -> None:
    model = net()
    floats = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    floats[0].load_state_dict({"weight": model[1].weight, "bias": model[1].bias})
    report = qnn.calibrate(model, batches(), "max")
    seen = torch.cat(batches())
    assert report.thresholds["0.act_quant"].item() == seen.abs().max().item()
    assert report.thresholds["2.act_quant"].item() == pytest.approx(floats(seen).max().item(), rel=1e-6)


def test_nothing_else_changes() -> None:
    model = net().train()
    model[3].eval()
    before = state(model)
    hooks = {path: (len(m._forward_hooks), len(m._forward_pre_hooks)) for path, m in model.named_modules()}
    modes = {path: m.training for path, m in model.named_modules()}
    qnn.calibrate(model, batches())
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert all(".scaling_impl." in key for key in changed)
    assert modes == {path: m.training for path, m in model.named_modules()}
    assert hooks == {path: (len(m._forward_hooks), len(m._forward_pre_hooks)) for path, m in model.named_modules()}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_goes_on_from_the_calibrated_scale() -> None:
    model = net()
    parameter = model[0].act_quant.tensor_quant.scaling_impl.value
    qnn.calibrate(model, batches(), "max")
    scale = model[0].act_quant.scale()
    model.train()(torch.randn(4, 6) * 100)
    assert torch.equal(model[0].act_quant.scale(), scale)
    assert model[0].act_quant.tensor_quant.scaling_impl.value is parameter
    assert parameter.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_all_or_nothing(method: str) -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = qnn.QuantReLU(), qnn.QuantReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = Fork()
    before = state(model)
    with pytest.raises(StateError) as caught:
        qnn.calibrate(model, batches(), method)
    assert str(caught.value) == (
        "quantizers have seen no data\n"
        "  at unused.act_quant\n"
        "  no tensor reached them in 4 batches; nothing has been calibrated\n"
        "  Give data that takes every path through the model, or name the others as only=[…]."
    )
    assert same(state(model), before)
    qnn.calibrate(model, batches(), method, only=["used.act_quant"])
    assert not model.used.act_quant.tensor_quant.scaling_impl.awaits_data


def test_their_own_statistics_are_those_of_training() -> None:
    options = {"act_quant": ShiftedUint8ActPerTensorFloat, "collect_stats_steps": 4}
    calibrated, trained = net(**options), net(**options)
    qnn.calibrate(calibrated[0], batches(), "statistics")
    for batch in batches():
        trained[0].train()(batch)
    assert same(state(calibrated[0]), state(trained[0]))


def test_fewer_batches_than_steps_are_enough() -> None:
    model = net()
    qnn.calibrate(model, batches(), "statistics")
    assert all(not m.act_quant.tensor_quant.scaling_impl.collected.running for m in (model[0], model[2]))


def test_by_default_each_quantizer_is_calibrated_as_it_can_be() -> None:
    shifted = {"act_quant": ShiftedUint8ActPerTensorFloat, "collect_stats_steps": 4}
    model, other = (nn.Sequential(qnn.QuantIdentity(**shifted), qnn.QuantReLU()) for _ in range(2))
    found = qnn.calibrate(model, batches())
    qnn.calibrate(other[0], batches(), "statistics")
    qnn.calibrate(other, batches(), "mse", only=["1.act_quant"])
    assert same(state(model), state(other))
    assert [q.elements for q in found.quantizers] == [None, 4 * 16 * 6]


def test_their_own_statistics_start_anew_when_asked_again() -> None:
    model = net()
    qnn.calibrate(model, [torch.full((2, 6), 50.0)], "statistics")
    qnn.calibrate(model, batches(), "statistics", again=True)
    once = net()
    qnn.calibrate(once, batches(), "statistics")
    assert same(state(model), state(once))


def test_statistics_of_batch_quantizers_are_set_for_eval_mode() -> None:
    act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloatBatchQuant1d)
    qnn.calibrate(act, [torch.full((2, 3, 4), 1.28)], "max")
    assert act.eval().act_quant.scale().item() == pytest.approx(0.01)


def test_powers_of_two_stay_powers_of_two() -> None:
    act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=4)
    qnn.calibrate(act, batches(), "mse")
    scale = act.act_quant.scale()
    assert torch.equal(scale, 2 ** torch.log2(scale).round())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(NAMED))
def test_a_scale_per_channel_is_that_of_each_channel_alone(seed: int, method: str) -> None:
    x = torch.randn(20, 3, 5, generator=torch.Generator().manual_seed(seed)) * torch.tensor([[0.1], [1.0], [30.0]])
    options = {
        "scaling_per_output_channel": True,
        "per_channel_broadcastable_shape": (1, 3, 1),
        "scaling_stats_impl": AbsMax,
        "bit_width": 5,
    }
    act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat.let(**options))
    qnn.calibrate(act, [x[:10], x[10:]], method)
    for channel in range(3):
        alone = qnn.QuantIdentity(bit_width=5)
        qnn.calibrate(alone, [x[:, channel]], method)
        assert torch.equal(act.act_quant.scale()[0, channel, 0], alone.act_quant.scale())


def test_a_shared_quantizer_sees_all_of_its_tensors() -> None:
    left = qnn.QuantReLU()
    right = qnn.QuantReLU(act_quant=left.act_quant)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = left, right

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(10 * x)

    report = qnn.calibrate(Both(), [torch.ones(3)], "max")
    assert report.thresholds["left.act_quant"].item() == 10.0
    assert len(report.quantizers) == 1


def test_an_accumulator_that_keeps_the_bits_of_its_values_is_calibrated() -> None:
    from quant_core.quant import ShiftRoundSaturateTo8bit

    model = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantLinear(6, 8, bias=False, return_quant_tensor=True),
        qnn.TruncQuantAccumulator(ShiftRoundSaturateTo8bit),
    )
    report = qnn.calibrate(model, batches(), "max")
    expected = max((model[1].weight @ batch.t()).abs().max().item() for batch in batches())
    assert report.thresholds["2.trunc_quant"].item() == pytest.approx(expected, rel=1e-6)


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = qnn.QuantIdentity()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.act(x if y is None else x + y)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (qnn.QuantIdentity(), [torch.full((2,), 3.0)]),
        (qnn.QuantIdentity(), [(torch.full((2,), 3.0), "label")]),
        (Named(), [(torch.ones(2), torch.full((2,), 2.0), "label")]),
        (Named(), [[torch.full((2,), 3.0)]]),
        (Named(), [{"x": torch.ones(2), "y": torch.full((2,), 2.0)}]),
        (Named(), iter([{"x": torch.full((2,), 3.0)}])),
        (Named(), (x for x in [torch.full((2,), 3.0)])),
        (Named(), torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.full((4,), 3.0)), batch_size=2)),
    ],
)
def test_batches_have_many_forms(model: nn.Module, data: Any) -> None:
    model = copy.deepcopy(model)
    (threshold,) = qnn.calibrate(model, data, "max").thresholds.values()
    assert threshold.item() == 3.0


def test_a_forward_of_ones_own() -> None:
    report = qnn.calibrate(
        qnn.QuantIdentity(), [{"image": torch.ones(2)}], "max", forward=lambda model, batch: model(5 * batch["image"])
    )
    assert report.thresholds["act_quant"].item() == 5.0


def test_a_rule_of_ones_own() -> None:
    def half(histogram: Any, levels: Levels | None, share: float = 0.5) -> Tensor:
        return histogram.largest * share

    model = qnn.QuantIdentity()
    report = qnn.calibrate(model, [torch.full((3,), 4.0)], half, share=0.25)
    assert report.thresholds["act_quant"].item() == 1.0
    assert report.method == "half"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            lambda histogram, levels: histogram.largest * float("nan"),
            "[nan] is no threshold\n  at 0.act_quant\n  it is a largest magnitude, and so finite and not negative\n",
        ),
        (
            lambda histogram, levels: torch.ones(3),
            "[1.0, 1.0, 1.0] is no threshold\n"
            "  at 0.act_quant\n"
            "  it is one number for each of 1 channels, and no tensor of shape (3,)\n",
        ),
        (
            lambda histogram, levels: 3.0,
            "3.0 is no threshold\n  at 0.act_quant\n  it is one number for each of 1 channels, and no float\n",
        ),
    ],
)
def test_what_a_rule_of_ones_own_gives_is_checked(rule: Any, text: str) -> None:
    fix = "  Let the rule return a tensor of shape (R,), such as 0.9 * histogram.largest."
    wrong(text + fix, ConfigurationError, net(), batches(), rule)


def test_the_report_tells_the_threshold_that_is_set() -> None:
    powers = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=4)
    assert qnn.calibrate(powers, [torch.tensor([3.3])], "max").thresholds["act_quant"].item() == 4.0
    small = qnn.QuantIdentity(scaling_min_val=0.5)
    found = qnn.calibrate(small, [torch.tensor([0.25])], "max").quantizers[0]
    assert (found.threshold.item(), found.largest.item()) == (0.5, 0.25)


def test_a_compiled_model_is_calibrated() -> None:
    model, other = net(), net()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled.eval()(batches()[0])
    report = qnn.calibrate(compiled, batches())
    assert report.thresholds == qnn.calibrate(other, batches()).thresholds
    with torch.no_grad():
        assert torch.equal(compiled(batches()[0]), other.eval()(batches()[0]))


@pytest.mark.parametrize("progress", [True, False, None])
def test_a_progress_bar_is_shown_when_asked_for(progress: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    qnn.calibrate(qnn.QuantReLU(), [torch.ones(3)] * 5, progress=progress)
    shown = capsys.readouterr()
    assert ("calibrating" in shown.err) is bool(progress)  # standard error is no terminal here
    assert shown.out == ""


def test_the_report_is_a_table() -> None:
    model = nn.Sequential(qnn.QuantIdentity(), qnn.QuantReLU())
    assert str(qnn.calibrate(model, [torch.full((2, 500), 1.5)], "max")) == (
        "calibrated with 'max'; batches: 1, quantizers: 2\n"
        "quantizer     threshold   largest seen   elements\n"
        "─────────────────────────────────────────────────\n"
        "0.act_quant   1.5         1.5            1,000\n"
        "1.act_quant   1.5         1.5            1,000"
    )


def wrong(text: str, error: type[QuantError], model: nn.Module, data: Any, *args: Any, **options: Any) -> None:
    before = state(model)
    with pytest.raises(error) as caught:
        qnn.calibrate(model, data, *args, **options)
    assert str(caught.value) == text
    assert same(state(model), before)


def test_no_data_is_an_error() -> None:
    text = (
        "there is no data\n"
        "  at Sequential\n"
        "  the iterable ended before its first batch\n"
        "  Give a list or a DataLoader; a generator that was used before is empty."
    )
    wrong(text, InputError, net(), [])


@pytest.mark.parametrize("data", [{"input": torch.ones(2, 6)}, "images", None])
def test_what_is_no_iterable_of_batches_is_refused(data: Any) -> None:
    text = (
        f"a {type(data).__name__} is no data\n"
        "  at calibrating\n"
        "  data is an iterable of batches: tensors, tuples of arguments, or mappings of keywords\n"
        "  Put a single batch into a list: [batch]."
    )
    wrong(text, InputError, net(), data)


@pytest.mark.parametrize("only", [[], "2.act_quant"])
def test_only_is_a_list_of_paths(only: Any) -> None:
    text = (
        f"only={only!r} names no quantizers\n"
        "  it is a list of the paths of those that are to be calibrated\n"
        f"  Write only=[{'2.act_quant' if only else '0.act_quant'!r}], or leave it out for all."
    )
    wrong(text, ConfigurationError, net(), batches(), only=only)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_what_is_not_finite_is_refused_with_the_name_of_the_layer(method: str, bad: str) -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU(), qnn.QuantIdentity()))
    before = state(model)
    with pytest.raises(InputError) as caught:
        qnn.calibrate(model, [torch.ones(3), torch.tensor([1.0, float(bad)])], method)
    assert "\n  at 0.1 (QuantIdentity)\n" in str(caught.value)
    assert same(state(model), before)


def test_twice_is_an_error_unless_it_is_asked_for() -> None:
    model = net()
    qnn.calibrate(model, batches())
    text = (
        "the model is calibrated already\n"
        "  at 0.act_quant, 2.act_quant\n"
        "  2 of 2 quantizers have seen data, and what they may have learned since would be lost\n"
        "  Pass again=True to calibrate them anew, or the names of the others as only=[…]."
    )
    wrong(text, StateError, model, batches(), "max")
    report = qnn.calibrate(model, [torch.full((2, 6), 7.0)], "max", again=True)
    assert report.thresholds["0.act_quant"].item() == 7.0


def test_unknown_words_are_refused() -> None:
    text = (
        "unknown calibration method 'entrpy'\n"
        "  the methods are auto, statistics, max, entropy, percentile, mse, or a function of a histogram\n"
        "  Did you mean 'entropy'?"
    )
    wrong(text, UnknownNameError, net(), batches(), "entrpy")
    text = (
        "the method 'percentile' has no option 'percent'\n"
        "  its options are bins, percentile\n"
        "  Did you mean 'percentile'?"
    )
    wrong(text, UnusedAttributeError, net(), batches(), "percentile", percent=99)
    text = "the method 'max' has no option 'bins'\n  it has no options\n  Leave bins out."
    wrong(text, UnusedAttributeError, net(), batches(), "max", bins=64)
    text = (
        "the model has no quantizer '0.act_qant' to calibrate\n"
        "  those that take their scale from data are 0.act_quant, 2.act_quant\n"
        "  Did you mean '0.act_quant' or '2.act_quant'?"
    )
    wrong(text, UnknownNameError, net(), batches(), only=["0.act_qant"])


def test_what_cannot_be_calibrated_is_refused() -> None:
    text = (
        "there is nothing to calibrate\n"
        "  at QuantLinear\n"
        "  no quantizer that is on takes its scale from data; those of weights take it from the weight\n"
        "  Give layers an activation quantizer such as Int8ActPerTensorFloat, or a QuantDescriptor without amax."
    )
    wrong(text, ConfigurationError, qnn.QuantLinear(6, 2), batches())
    text = (
        "the method 'max' cannot calibrate this quantizer\n"
        "  at act_quant\n"
        "  it has a zero-point that is to be found in data as well, and the method finds a threshold only\n"
        "  Use method='statistics', which collects what the quantizer itself asks for."
    )
    wrong(text, ConfigurationError, qnn.QuantIdentity(ShiftedUint8ActPerTensorFloat), batches(), "max")
    text = (
        "the method 'mse' cannot calibrate this quantizer\n"
        "  at act_quant\n"
        "  it compares ranges by the integers that they are rounded to, with the zero-point 0\n"
        "  Use method='statistics', which collects what the quantizer itself asks for, or 'max'."
    )
    wrong(text, ConfigurationError, qnn.QuantIdentity(quant_type="binary"), batches(), "mse")
    text = (
        "the method 'statistics' cannot calibrate this quantizer\n"
        "  at input_quant\n"
        "  AmaxScaling collects no statistics in training\n"
        "  Use 'max', 'entropy', 'percentile' or 'mse'."
    )
    described = qnn.QuantLinear(6, 2, quant_desc_input=QuantDescriptor())
    wrong(text, ConfigurationError, described, batches(), "statistics")


@pytest.mark.parametrize("x", [torch.arange(4), torch.ones(4, dtype=torch.bool), torch.ones(4) * 1j])
def test_what_holds_no_floats_is_refused(x: Tensor) -> None:
    text = (
        f"a tensor of {x.dtype} cannot be quantized\n"
        "  at 0 (QuantIdentity)\n"
        "  quantization rounds real numbers, and the result has the dtype of the tensor\n"
        "  Convert it first: x.float(), for images usually x.float() / 255."
    )
    wrong(text, InputError, nn.Sequential(qnn.QuantIdentity()), [x], "entropy")


def test_options_are_checked_before_data_is_gone_through() -> None:
    def never() -> Any:
        raise AssertionError("no batch is asked for")
        yield

    with pytest.raises(ConfigurationError, match="percentile=0 is not a percentile"):
        qnn.calibrate(net(), never(), "percentile", percentile=0)
    with pytest.raises(ConfigurationError, match="bins=1000 is not a number of bins"):
        qnn.calibrate(net(), never(), "entropy", bins=1000)


def test_devices_must_not_be_mixed() -> None:
    text = (
        "a batch on meta does not fit a model on cpu\n"
        "  at Sequential\n"
        "  a model computes where its parameters are\n"
        "  Move one of them: model.to(device), or batch.to(device) for each batch."
    )
    wrong(text, InputError, net(), [torch.zeros(2, 6, device="meta")])


def test_keywords_must_be_those_of_the_model() -> None:
    text = (
        "the model has no argument 'labels'\n"
        "  at Named\n"
        "  a batch that is a mapping holds keywords, and the model takes x, y\n"
        "  Take other keys out of the batches, or pass forward=lambda model, batch: …"
    )
    wrong(text, InputError, Named(), [{"x": torch.ones(1), "labels": torch.ones(1)}])
