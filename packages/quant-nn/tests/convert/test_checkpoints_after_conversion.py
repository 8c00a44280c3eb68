"""Float checkpoints load into converted models, and those of another architecture load nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from quant_core.checkpoints import load_checkpoint
from quant_core.errors import InputError, StateError
from quant_nn import Rule, quantize

RULES = [
    Rule(types=("Conv2d", "Linear"), options={"input_quant": "Int8ActPerTensorFloat"}),
    Rule(types="ReLU"),
]


def net(width: int = 4) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(4 * width, 2)
    )


def test_a_float_checkpoint_loads_into_the_converted_model() -> None:
    torch.manual_seed(0)
    trained, model = net(), quantize(net(), RULES).model
    load_checkpoint(model, trained.state_dict())
    expected = quantize(trained, RULES).model
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(model(x), expected(x))


def test_a_quantized_checkpoint_loads_as_well() -> None:
    torch.manual_seed(0)
    trained, model = quantize(net(), RULES).model, quantize(net(), RULES).model
    x = torch.randn(2, 1, 4, 4)
    trained(x)
    load_checkpoint(model, trained.state_dict())
    assert torch.equal(model.eval()(x), trained.eval()(x))


@pytest.mark.parametrize("quantized", [False, True])
def test_another_architecture(quantized: bool) -> None:
    model: nn.Module = net()
    if quantized:
        model = quantize(model, RULES).model
    state = copy.deepcopy(model.state_dict())
    checkpoint = net(5).state_dict()
    checkpoint["head.weight"] = checkpoint.pop("4.weight")
    with pytest.raises(StateError) as caught:
        load_checkpoint(model, checkpoint)
    assert str(caught.value).splitlines() == [
        "the checkpoint is that of another architecture",
        "  at Sequential",
        "  0.weight has the shape (5, 1, 3, 3) in the checkpoint and (4, 1, 3, 3) in the model",
        *(
            f"  {name} has the shape (5,) in the checkpoint and (4,) in the model"
            for name in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
        ),
        "  4.weight (2, 16) is missing in the checkpoint",
        "  head.weight (2, 20) has no place in the model",
        "  Build the model that the checkpoint was made with; nothing was loaded.",
    ]
    assert all(torch.equal(one, state[key]) for key, one in model.state_dict().items())


def test_names_behind_those_of_a_wrapper() -> None:
    model = quantize(net(), RULES).model
    with pytest.raises(StateError) as caught:
        load_checkpoint(model, {f"_orig_mod.{name}": tensor for name, tensor in net().state_dict().items()})
    assert caught.value.fix.startswith("All names start with '_orig_mod.', which wrappers of models add: ")


def test_a_long_list_is_cut() -> None:
    with pytest.raises(StateError) as caught:
        load_checkpoint(nn.Sequential(*(nn.Linear(1, 1) for _ in range(15))), {})
    assert caught.value.why.splitlines()[-1] == "and 10 more"


def test_what_is_no_checkpoint() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(InputError) as caught:
        load_checkpoint(net, "net.pt")  # type: ignore[arg-type]  # what users try
    assert str(caught.value).splitlines()[0] == "a str is no checkpoint"
    with pytest.raises(InputError) as caught:
        load_checkpoint(net, {"epoch": 3, "model": net.state_dict()})  # type: ignore[dict-item]
    assert str(caught.value).splitlines() == [
        "the checkpoint holds other checkpoints",
        "  'model' is of the type OrderedDict, and a checkpoint maps names to tensors",
        "  Pass the part that holds the model, such as checkpoint['model'].",
    ]
