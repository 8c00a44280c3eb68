"""Sequences that activation checkpointing computes again, in the middle of which quantizers have collected all statistics."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from quant_core.components import StepCounter
from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

SOON = {"io_collect_stats_steps": 9, "gate_acc_collect_stats_steps": 7}
LAYERS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "plain": (QuantRNN, {}),
    "with a bias apart": (QuantGRU, {"sigmoid_collect_stats_steps": 8}),
    "several calls in a step": (QuantLSTM, {"cell_state_collect_stats_steps": 10, "tanh_collect_stats_steps": 6}),
    "several directions": (
        QuantLSTM,
        {"num_layers": 2, "bidirectional": True, "shared_intra_layer_gate_acc_quant": True},
    ),
    "step by step": (QuantLSTM, {"gate_acc_high_percentile_q": 60.0}),
    "float at first": (QuantGRU, {"io_quant_delay_steps": 6, "gate_acc_quant_delay_steps": 3}),
}


def results_of(layer: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Side by side: the reentrant form gives gradients to no tuple within a tuple."""
    return tuple(tree_leaves(layer(x)))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_sequence_in_which_collecting_ends_has_the_same_gradients(kind: str, reentrant: bool) -> None:
    torch.manual_seed(0)
    layer_type, options = LAYERS[kind]
    layer = layer_type(3, 4, **SOON, **options)
    other = copy.deepcopy(layer)
    for number in range(4):
        x = torch.randn(4, 2, 3, requires_grad=True)
        if number == 2:
            layer.load_state_dict(layer.state_dict())
        results = []
        for one, again in ((layer, True), (other, False)):
            one.zero_grad()
            run = partial(results_of, one)
            found = checkpoint(run, x, use_reentrant=reentrant) if again else run(x)
            sum(part.square().sum() for part in found).backward()
            results.append([*found, *(p.grad for p in one.parameters() if p.grad is not None)])
            results[-1] += [value.clone() for value in one.state_dict().values()]
        assert len(results[0]) == len(results[1])
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(*results, strict=True))
    counters = [module for module in layer.modules() if isinstance(module, StepCounter)]
    assert any(counter.steps in (7, 9) and not counter.running for counter in counters)  # 4 does not divide these


@pytest.mark.parametrize("reentrant", [False, True])
def test_packed_sequences_are_computed_again_alike(reentrant: bool) -> None:
    torch.manual_seed(0)
    layer = QuantLSTM(3, 4, io_collect_stats_steps=8, cell_state_collect_stats_steps=5)
    other = copy.deepcopy(layer)
    for _ in range(3):
        parts = [torch.randn(length, 3, requires_grad=True) for length in (5, 3)]
        found = []
        for one, again in ((layer, True), (other, False)):
            one.zero_grad()

            def run(*parts: torch.Tensor, one: nn.Module = one) -> torch.Tensor:
                return one(pack_sequence(list(parts)))[0].data

            out = checkpoint(run, *parts, use_reentrant=reentrant) if again else run(*parts)
            out.square().sum().backward()
            found.append([p.grad for p in one.parameters() if p.grad is not None])
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))
