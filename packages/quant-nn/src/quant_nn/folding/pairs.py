"""Which normalization stands beside which layer, as the captured program has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from quant_core.export import Program
from quant_core.export.products import CONVOLUTIONS
from quant_core.export.products import TRANSPOSED as TRANSPOSED_CONVOLUTIONS
from quant_core.proxies import QuantProxy
from quant_nn.folding.arithmetic import TRANSPOSED, Linear, Norm

_NORM: Final = torch.ops.aten.batch_norm.default
_PRODUCTS: Final = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, torch.ops.aten.linear.default)
Side = Literal["behind", "before"]
_SIDES: Final[tuple[Side, ...]] = get_args(Side)
_MISSING: Final = {
    "behind": "what it normalizes is used elsewhere as well, or comes from no layer",
    "before": "what it gives is used by several operations, or by none of a layer",
}
_Place = Callable[[fx.Node], str]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A normalization, and the layer that can take it over.

    Attributes:
        norm: the path of the normalization.
        layer: the path of the layer.
        side: where the normalization stands: ``"behind"`` or ``"before"`` the layer.
    """

    norm: str
    layer: str
    side: Side


@dataclass(frozen=True, kw_only=True)
class Alone:
    """A normalization that no layer can take over, and why."""

    norm: str
    reason: str


def pairs(model: nn.Module, program: Program) -> Iterator[Pair | Alone]:
    """Each normalization of the program with its layer, or the reason why there is none."""
    place = _places(model, program)
    calls: dict[str, list[fx.Node]] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            calls.setdefault(place(node), []).append(node)
    for path, nodes in calls.items():
        if any(node.target is _NORM for node in nodes):
            yield _pair(model, path, calls, place)


def _places(model: nn.Module, program: Program) -> _Place:
    """The path of the module that computes a node; the first one of a module with several."""
    first: dict[int, str] = {}
    same = {path: first.setdefault(id(one), path) for path, one in model.named_modules(remove_duplicate=False)}
    return lambda node: same[program.where(node).path]


def _pair(model: nn.Module, path: str, calls: dict[str, list[fx.Node]], place: _Place) -> Pair | Alone:
    norm, nodes = model.get_submodule(path), calls[path]
    if type(norm) not in get_args(Norm) or any(node.target is not _NORM for node in nodes):
        return Alone(norm=path, reason="it is no layer of its own, but a call in one")
    if norm.running_mean is None:
        return Alone(norm=path, reason="it has no running statistics: it normalizes by those of each batch")
    if norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks:
        return Alone(norm=path, reason="it has hooks, which nothing would call any more")
    if _is_shared(model, norm):
        return Alone(norm=path, reason="its parameters are shared with another module")
    reasons = []
    for side in _SIDES:
        others = [_other(node, side) for node in nodes]
        found = {place(other) for other in others if other is not None}
        if None in others or len(found) != 1:
            reasons.append(_MISSING[side])
            continue
        layer = found.pop()
        reason = _unfit(model, layer, nodes[0], side)
        if reason is None and sum(node.target in _PRODUCTS for node in calls[layer]) != len(nodes):
            reason = f"{layer} computes more than what this normalization is for"
        if reason is None:
            return Pair(norm=path, layer=layer, side=side)
        reasons.append(reason)
    return Alone(norm=path, reason="; ".join(reasons))


def _other(node: fx.Node, side: str) -> fx.Node | None:
    """The one operation before or behind a normalization; ``None`` where its tensor goes to several."""
    if side == "behind":
        previous: Any = node.args[0]
        return previous if previous.op == "call_function" and list(previous.users) == [node] else None
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" and users[0].args[0] is node else None


def _unfit(model: nn.Module, path: str, norm: fx.Node, side: str) -> str | None:
    """Why a layer cannot take the normalization over; ``None`` where it can."""
    layer: Any = model.get_submodule(path)
    name = f"{path or 'the model'} ({type(layer).__name__})"
    if side == "behind" and isinstance(layer, QuantProxy):
        return f"what it normalizes is rounded already, by {path}; fold before that quantizer is there"
    if not isinstance(layer, get_args(Linear)):
        return f"{side} {name}, which has no weight that could take it"
    if parametrize.is_parametrized(layer, "weight") or "weight" not in layer._parameters:
        return f"the weight of {name} is computed, so that it cannot be changed"
    if _is_shared(model, layer):
        return f"the parameters of {name} are shared with another module"
    if isinstance(layer, nn.Linear) and norm.meta["val"].dim() != 2:
        return f"the channels of {name} are on the last axis, and those of the normalization on axis 1"
    if side == "before" and isinstance(layer, TRANSPOSED):
        return f"{name} cuts or adds elements at its edges, where the offset of the normalization is missing"
    if side == "before" and _pads(layer):
        return f"{name} pads with zeros, which the normalization would have changed"
    return None


def _pads(layer: Any) -> bool:
    """Whether some output elements are sums over fewer inputs than others."""
    if isinstance(layer, nn.Linear) or layer.padding_mode != "zeros":
        return False
    return layer.padding == "same" or (layer.padding != "valid" and any(layer.padding))


def _is_shared(model: nn.Module, module: nn.Module) -> bool:
    """Whether another module holds one of its parameters."""
    own = {id(parameter) for parameter in module._parameters.values() if parameter is not None}
    others = (other for other in model.modules() if other is not module)
    return any(id(parameter) in own for other in others for parameter in other._parameters.values())
