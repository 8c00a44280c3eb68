"""Names that Python takes and a script does not."""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture, lower

from .grids import ALONE


class Größen(nn.Module):
    """Modules and inputs with names beyond ASCII, one of them float."""

    def __init__(self) -> None:
        super().__init__()
        self.ü, self.é = qnn.QuantIdentity(), qnn.QuantIdentity()
        self.ö, self.ä = qnn.QuantLinear(4, 4), nn.Linear(4, 4)

    def forward(self, größe: Tensor, ß: Tensor) -> Tensor:
        return self.ä(self.é(self.ö(self.ü(größe)))) + ß


def test_names_beyond_ascii_become_names_of_a_script() -> None:
    torch.manual_seed(0)
    net, x = Größen().eval(), (torch.randn(2, 4), torch.randn(2, 4))
    artifact = lower(capture(net, x), "torchq", plugins=ALONE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.load(io.BytesIO(artifact.content()))
    assert torch.equal(script(*x), artifact.run(*x))
    assert torch.allclose(script(*x), net(*x), atol=1e-6)
    assert "ue4_weight = self.ue4_weight" in script.code
