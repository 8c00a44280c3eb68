"""Quantized tensors in compiled and exported graphs: the same results, no graph breaks."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

from quant_core.errors import InputError
from quant_core.tensor import GridOrigin, QuantTensor

SCALES = {"per_tensor": torch.tensor(0.5), "per_channel": torch.tensor([0.5, 0.25, 0.3, 2.0]).reshape(1, 4, 1, 1)}


def image(granularity: str = "per_tensor") -> QuantTensor:
    scale = SCALES[granularity]
    integers = torch.arange(2 * 4 * 6 * 6).reshape(2, 4, 6, 6) % 16 - 8
    return QuantTensor(integers * scale, scale, torch.zeros_like(scale), torch.tensor(4.0), True, symmetric=True)


CALLS: dict[str, Callable[[Any], Any]] = {
    "index": lambda x: x[:, 1:3],
    "view": lambda x: x.view(2, -1),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
    "split": lambda x: x.split(2, 1),
    "iterate": lambda x: list(x),
    "permute and roll": lambda x: torch.roll(x.permute(0, 2, 3, 1), 1, -1),
    "modules": nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Flatten()).eval(),
    "indices": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "adaptive average": nn.AdaptiveAvgPool2d(1),
    "average": lambda x: F.avg_pool2d(x, 3, padding=1).mean((2, 3)),
    "resize": lambda x: F.interpolate(x, scale_factor=2),
    "pad and cast": lambda x: F.pad(x, (1, 1)).half(),
    "cat": lambda x: torch.cat([x, x.relu()], 1),
    "where": lambda x: torch.where(x > 0, x, x.relu()),
    "arithmetic": lambda x: -(x + x) * x * 2.0 - abs(x),
    "matmul": lambda x: torch.matmul(x, x),
    "plain": lambda x: torch.sigmoid(x) + x,
    "sizes": lambda x: x.size(0) + x.shape[1] + x.dim() + len(x),
}


def assert_same(got: Any, want: Any) -> None:
    got_leaves, got_kind = pytree.tree_flatten(got)
    want_leaves, want_kind = pytree.tree_flatten(want)
    assert got_kind == want_kind  # the types, signs and flags of quantized tensors as well
    for got_leaf, want_leaf in zip(got_leaves, want_leaves, strict=True):
        torch.testing.assert_close(got_leaf, want_leaf, rtol=0, atol=0)


class Module(nn.Module):
    def __init__(self, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Any) -> Any:
        return self.call(x)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("granularity", SCALES)
@pytest.mark.parametrize("name", CALLS)
def test_a_compiled_graph_gives_the_same_without_a_break(name: str, granularity: str):
    x = image(granularity)
    assert_same(torch.compile(CALLS[name], fullgraph=True, backend="eager")(x), CALLS[name](x))


@pytest.mark.parametrize("granularity", SCALES)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "sizes"])
def test_an_exported_program_gives_the_same(name: str, granularity: str):
    x = image(granularity)
    program = torch.export.export(Module(CALLS[name]), (x,), strict=False)
    assert_same(program.module()(x), CALLS[name](x))


def test_training_in_a_compiled_graph_has_the_same_gradient():
    def loss(leaf: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        x = image().replace(value=leaf * scale, scale=scale)
        y = F.avg_pool2d(F.relu(x + x), 2).flatten(1)
        return (y.value * y.scale).sum()

    def gradients(function: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        leaf, scale = image().int().float().requires_grad_(), torch.tensor(0.5, requires_grad=True)
        return torch.autograd.grad(function(leaf, scale), (leaf, scale))

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for got, want in zip(gradients(compiled), gradients(loss), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("granularity", SCALES)
def test_the_batch_of_an_exported_program_is_free(granularity: str):
    x = image(granularity)

    def call(value: torch.Tensor) -> QuantTensor:
        return F.avg_pool2d(torch.relu(x.replace(value=value)), 2).permute(0, 2, 3, 1)

    program = torch.export.export(
        Module(call), (x.value,), strict=False, dynamic_shapes={"x": {0: torch.export.Dim.DYNAMIC}}
    )
    three = torch.cat([x.value] * 3)
    assert_same(program.module()(three), call(three))


def test_an_exported_program_is_saved_and_loaded_with_its_quantized_inputs_and_outputs():
    x, file = image(), io.BytesIO()
    torch.export.save(torch.export.export(Module(lambda x: (x + x, x.flatten(1))), (x,), strict=False), file)
    loaded = torch.export.load(io.BytesIO(file.getvalue()))
    assert_same(loaded.module()(x), (x + x, x.flatten(1)))


def test_it_is_a_pytree_of_its_four_tensors():
    x = image()
    leaves, kind = pytree.tree_flatten(x)
    assert all(leaf is field for leaf, field in zip(leaves, (x.value, x.scale, x.zero_point, x.bit_width), strict=True))
    assert_same(pytree.tree_unflatten(leaves, kind), x)
    assert [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(x)[0]] == [
        ".value",
        ".scale",
        ".zero_point",
        ".bit_width",
    ]


@pytest.mark.parametrize("origins", ["none", "two", "one"])
def test_equal_scales_are_the_same_grid_only_if_one_quantizer_stores_them_in_a_graph_as_in_eager_mode(origins: str):
    def add(x: QuantTensor, scale: torch.Tensor) -> Any:
        return x + x.replace(scale=scale, origin=other)

    origin = None if origins == "none" else GridOrigin()
    other = GridOrigin() if origins == "two" else origin
    x = image().replace(origin=origin)
    eager = add(x, x.scale.clone())
    assert isinstance(eager, QuantTensor) == (origins == "one")
    assert_same(torch.compile(add, fullgraph=True, backend="eager")(x, x.scale.clone()), eager)


@pytest.mark.parametrize("whole", [True, False])
def test_scales_per_channel_of_one_quantizer_are_the_same_grid_unless_they_were_moved(whole: bool):
    def add(x: QuantTensor, scale: torch.Tensor) -> Any:
        y = x.replace(scale=scale, origin=origin)
        z = x.replace(origin=origin)
        return z + y if whole else z.flip(1) + y.flip(1)

    origin, x = GridOrigin(), image("per_channel")
    eager = add(x, x.scale.clone())
    assert isinstance(eager, QuantTensor) == whole
    assert_same(torch.compile(add, fullgraph=True, backend="eager")(x, x.scale.clone()), eager)


def test_a_scale_that_was_learned_on_meanwhile_is_another_grid():
    x = image().replace(origin=GridOrigin())
    assert type(x + x.replace(scale=x.scale * 2)) is torch.Tensor


@pytest.mark.parametrize("change", [lambda x: x * 2.0, lambda x: x.mean(), lambda x: x / 4])
def test_an_operation_that_changes_the_scale_leaves_the_origin_behind(change: Any):
    assert change(image().replace(origin=GridOrigin())).origin is None


def test_integers_in_a_graph_are_int32():
    x = image()
    got = torch.compile(lambda x: x.int(), fullgraph=True, backend="eager")(x)
    assert got.dtype == torch.int32
    assert torch.equal(got, x.int().to(torch.int32))


def test_changing_it_in_place_is_refused_while_exporting():
    with pytest.raises(InputError, match=r"^relu_ would change a QuantTensor in place"):
        torch.export.export(Module(lambda x: x.relu_()), (image(),), strict=False)
