"""Folding of batch normalizations against the reference's ``merge_bn``: the same weights and biases."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from brevitas.nn.utils import merge_bn
from torch import nn

from quant_nn import fold_batch_norms

LAYERS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], Any]] = {
    "linear": (nn.Linear, {}, (3, 4), nn.BatchNorm1d),
    "conv1d": (nn.Conv1d, {"kernel_size": 3, "groups": 2}, (2, 4, 6), nn.BatchNorm1d),
    "conv2d": (nn.Conv2d, {"kernel_size": 3}, (2, 4, 5, 5), nn.BatchNorm2d),
    "transposed2d": (nn.ConvTranspose2d, {"kernel_size": 2, "stride": 2}, (2, 4, 5, 5), nn.BatchNorm2d),
}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", LAYERS)
def test_weights_and_biases_are_those_of_the_reference(name: str, bias: bool) -> None:
    torch.manual_seed(0)
    kind, options, shape, norm_kind = LAYERS[name]
    layer, norm = kind(4, 6, bias=bias, **options), norm_kind(6)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 2.0)
    theirs, mine = copy.deepcopy(layer), nn.Sequential(layer, norm)
    merge_bn(theirs, copy.deepcopy(norm), output_channel_dim=1 if name.startswith("transposed") else 0)
    fold_batch_norms(mine, (torch.randn(shape),))
    torch.testing.assert_close(layer.weight, theirs.weight, rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(layer.bias, theirs.bias, rtol=2e-6, atol=1e-6)
