"""Replicas, as ``nn.DataParallel`` makes them on other devices: their parameters are those of the layer moved there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

LAYERS: list[tuple[type[nn.Module], dict[str, Any]]] = [
    (QuantLSTM, {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
    (QuantGRU, {"shared_input_hidden_weights": True, "bidirectional": True}),
    (QuantRNN, {"io_quant": None, "bias_quant": None, "gate_acc_quant": None}),
]


def replica_of(layer: nn.Module) -> nn.Module:
    """As ``torch.nn.parallel.replicate`` puts it together, but on the same device."""
    made = {module: module._replicate_for_data_parallel() for module in layer.modules()}
    for module, replica in made.items():
        for name, part in module._modules.items():
            replica._modules[name] = None if part is None else made[part]
        for name, parameter in module._parameters.items():
            setattr(replica, name, None if parameter is None else parameter.detach().clone())
    return made[layer]


@pytest.mark.parametrize("kind", range(len(LAYERS)))
def test_a_replica_computes_with_parameters_of_its_own(kind: int) -> None:
    torch.manual_seed(0)
    layer_type, options = LAYERS[kind]
    layer, x = layer_type(3, 4, **options), torch.randn(5, 2, 3)
    layer(x)
    layer.eval()
    negative, out = copy.deepcopy(layer), layer(x)[0]
    replica = replica_of(layer)
    with torch.no_grad():
        for one in (negative, replica):
            for parameter in (parameter for parameters in one.all_weights for parameter in parameters):
                parameter.neg_()
    found = replica(x)[0]
    assert torch.equal(found, negative(x)[0])
    assert not torch.equal(found, out)
    assert torch.equal(layer(x)[0], out)
