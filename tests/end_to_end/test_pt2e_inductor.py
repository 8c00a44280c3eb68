"""Inductor on x86 computes programs of pairs with onednn's integer convolutions and linear layers, to the bit, in any batch."""

from __future__ import annotations

import re
import shutil
import warnings
from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import export
from quant_core.quant import Int8ActPerTensorFixedPoint, Int8WeightPerTensorFixedPoint, Int32Bias

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler"),
    pytest.mark.skipif(
        "onednn" not in torch.backends.quantized.supported_engines or not torch.backends.mkldnn.is_available(),
        reason="this build of torch has no onednn",
    ),
]


class Act(Int8ActPerTensorFixedPoint):
    """A scale of 2^-5 that needs no data."""

    scaling_impl_type = "const"
    scaling_init = 4.0


EXACT: dict[str, Any] = {"weight_quant": Int8WeightPerTensorFixedPoint, "bias_quant": Int32Bias}


class Net(nn.Module):
    """Two convolutions, a pool between them, and a linear layer behind."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(Act, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(3, 8, 3, **EXACT)
        self.relu1 = qnn.QuantReLU(Act, signed=False, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(8, 8, 3, output_quant=Act, **EXACT, return_quant_tensor=True)
        self.head = qnn.QuantLinear(32, 4, bias=True, output_quant=Act, **EXACT)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu1(self.conv1(self.entry(x))), 2)
        scores: Tensor = self.head(self.conv2(x).flatten(1))
        return scores


def test_every_layer_is_one_of_integers() -> None:
    from torch._inductor import config
    from torch._inductor.utils import run_and_get_code

    torch.manual_seed(0)
    x, wide = (torch.round(torch.randn(batch, 3, 10, 10) * 1024) / 1024 for batch in (2, 5))
    net = Net().eval()
    done = export(net, (x,), target="pt2e", dynamic_shapes="batch")
    artifact: Any = done.artifact
    with warnings.catch_warnings(), config.patch(freezing=True), torch.no_grad():
        warnings.simplefilter("ignore")  # of the compiler about itself
        compiled = torch.compile(artifact.exported.module(), dynamic=True)
        result, codes = run_and_get_code(compiled, x)
        assert torch.equal(result, net(x))
        with torch.compiler.set_stance("fail_on_recompile"):
            assert torch.equal(compiled(wide), net(wide))
    found = Counter(re.findall(r"torch\.ops\.onednn\.(q\w+)|torch\.ops\.aten\.(convolution|addmm)", "\n".join(codes)))
    assert found == {("qconv_pointwise", ""): 2, ("qlinear_pointwise", ""): 1}
