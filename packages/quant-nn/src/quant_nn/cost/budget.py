"""A budget: bits, bytes or bit operations that a training shall come down to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import torch
from torch import Tensor, nn

from quant_core.components import ParameterBitWidth
from quant_core.errors import ConfigurationError
from quant_nn.cost.ledger import Multiplied, Stored, activations_of, products_of, weights_of
from quant_nn.cost.losses import check_learned, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a model costs now; ``None`` for what its budget does not hold.

    Attributes:
        weight_bits: mean bits of its weights, by size.
        activation_bits: mean bits of its activations, by size.
        bytes: of its weights.
        bit_operations: of its layers with weights, for one element of the batch.
    """

    weight_bits: float | None = None
    activation_bits: float | None = None
    bytes: float | None = None
    bit_operations: float | None = None


class Budget:
    """``strength · Σ max(0, spent / target − 1)``: a loss that is zero once every target is met.

    With ``exact=True`` it is ``strength · Σ |spent / target − 1|``, so that the targets are aimed at from below as well.
    Weights and activations with constant bits are counted as well; the learned ones have to make up for them.

    Args:
        model: any model with quantized layers, some of which learn their bits.
        inputs: an example input, or the tuple of them: for the targets of activations and of operations.
        weight_bits: mean bits of the weights.
        activation_bits: mean bits of the activations.
        bytes: of the weights.
        bit_operations: ``Σ products · bits · bits``, for one element of the batch, of linear layers and convolutions; not of
            recurrent layers.
        strength: how much it weighs against the loss of the task.
        exact: spend the targets, and no less.

    Returns by a call: a 0-dim tensor. Gradient: to the learned bits, ``strength / target`` times what one bit costs, while
    the target is not met; none afterwards, so that the task alone decides below it. With ``exact`` the sign turns below it.

    Raises:
        ConfigurationError: when there is no target, nothing learns what it is about, or it cannot be reached: with the smallest
            bits, or, with ``exact``, with the largest.
        InputError: when a target needs an example input.

    >>> import quant_nn as qnn
    >>> layer = qnn.QuantLinear(8, 4, bias=False, weight_bit_width=8, weight_bit_width_impl_type="parameter")
    >>> budget = Budget(layer, weight_bits=4)
    >>> budget().item(), budget.present().weight_bits, budget.met()
    (1.0, 8.0, False)
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any = (),
        *,
        weight_bits: float | None = None,
        activation_bits: float | None = None,
        bytes: float | None = None,
        bit_operations: float | None = None,
        strength: float = 1.0,
        exact: bool = False,
    ) -> None:
        given = {
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "bytes": bytes,
            "bit_operations": bit_operations,
        }
        self.targets: Mapping[str, float] = {name: target for name, target in given.items() if target is not None}
        self.strength = _positive("strength", strength)
        self.exact = exact
        if not self.targets:
            raise ConfigurationError(
                "the budget has no target",
                where=type(model).__name__,
                why=f"it holds at least one of {', '.join(given)}",
                fix="Write, for example, Budget(model, weight_bits=4).",
            )
        for name, target in self.targets.items():
            _positive(name, target)
        self._spent = {name: _MEASURES[name](model, inputs) for name in self.targets}
        for name, target in self.targets.items():
            self._check_reachable(model, name, target)

    def __call__(self) -> Tensor:
        """The loss."""
        excess = torch.stack([self._spent[name]() / target - 1 for name, target in self.targets.items()])
        return self.strength * (torch.abs(excess) if self.exact else torch.relu(excess)).sum()

    @torch.no_grad()
    def present(self) -> Spent:
        """What the model costs now, of what the budget holds."""
        return Spent(**{name: float(spent()) for name, spent in self._spent.items()})

    def met(self, tolerance: float = 0.0) -> bool:
        """Whether nothing is above its target by more than this share of it; with ``exact``, nothing below it either."""
        present = self.present()
        shares = [getattr(present, name) / target - 1 for name, target in self.targets.items()]
        return all(share <= tolerance and (share >= -tolerance or not self.exact) for share in shares)

    @torch.no_grad()
    def _check_reachable(self, model: nn.Module, name: str, target: float) -> None:
        with _bits_at_their(model, "smallest"):
            least = float(self._spent[name]())
        with _bits_at_their(model, "largest"):
            most = float(self._spent[name]())
        if self.exact and target > most * (1 + _ROUNDING):
            raise ConfigurationError(
                f"{name}={target:g} cannot be reached",
                where=type(model).__name__,
                why=f"with every learned bit width at its largest it is {most:g}",
                fix=f"Set {name} to {most:g} or less, let more layers learn their bits, or raise max_bit_width.",
            )
        if target < least * (1 - _ROUNDING):
            raise ConfigurationError(
                f"{name}={target:g} cannot be reached",
                where=type(model).__name__,
                why=f"with every learned bit width at its smallest it is {least:g}",
                fix=f"Set {name} to {least:g} or more, let more layers learn their bits, or lower min_bit_width.",
            )


_ROUNDING: Final = 1e-6
E = TypeVar("E", Stored, Multiplied)


def _of_weights(model: nn.Module, inputs: Any) -> Callable[[], Tensor]:
    entries = _some_learned(weights_of(model), model, "weight", "weight_bit_width_impl_type='parameter'")
    return lambda: weighted_mean([entry.bits() for entry in entries], [entry.size for entry in entries])


def _of_activations(model: nn.Module, inputs: Any) -> Callable[[], Tensor]:
    entries = _some_learned(activations_of(model, inputs), model, "activation", "bit_width_impl_type='parameter'")
    return lambda: weighted_mean([entry.bits() for entry in entries], [entry.size for entry in entries])


def _of_bytes(model: nn.Module, inputs: Any) -> Callable[[], Tensor]:
    entries = _some_learned(weights_of(model), model, "weight", "weight_bit_width_impl_type='parameter'")
    return lambda: torch.stack([entry.bits() * entry.size / 8 for entry in entries]).sum()


def _of_operations(model: nn.Module, inputs: Any) -> Callable[[], Tensor]:
    what, option = "layer with a quantized input", "weight_bit_width_impl_type='parameter'"
    entries = _some_learned(products_of(model, inputs), model, what, option)
    return lambda: torch.stack([entry.operations() for entry in entries]).sum()


_MEASURES: Final[Mapping[str, Callable[[nn.Module, Any], Callable[[], Tensor]]]] = {
    "weight_bits": _of_weights,
    "activation_bits": _of_activations,
    "bytes": _of_bytes,
    "bit_operations": _of_operations,
}


def _some_learned(entries: list[E], model: nn.Module, what: str, option: str) -> list[E]:
    """All entries, of which some learn."""
    check_learned([entry for entry in entries if entry.learns], model, what, option)
    return entries


@contextmanager
def _bits_at_their(model: nn.Module, end: Literal["smallest", "largest"]) -> Iterator[None]:
    """Every learned bit width at its smallest or largest for the length of a block."""
    learned = [module for module in model.modules() if isinstance(module, ParameterBitWidth) and module.learns]
    before = [module.bit_width_offset.detach().clone() for module in learned]
    try:
        for module in learned:
            module.bit_width_offset.fill_(0.0 if end == "smallest" else module.max_bit_width)
        yield
    finally:
        for module, offset in zip(learned, before, strict=True):
            module.bit_width_offset.copy_(offset)


def _positive(name: str, number: Any) -> float:
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < math.inf:
        return number
    raise ConfigurationError(
        f"{name}={number!r} is no {'weight of a loss' if name == 'strength' else 'target'}",
        where="Budget",
        why="it is a number above 0",
        fix="Write, for example, Budget(model, weight_bits=4, strength=1.0).",
    )
