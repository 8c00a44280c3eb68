"""Batch normalizations that disappear into the layers beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.export import capture
from quant_core.export.eval_mode import in_eval_mode
from quant_core.proxies import QuantProxy
from quant_core.tensor import QuantTensor
from quant_nn.folding.arithmetic import Weights, affine_of, before, behind, weights_of
from quant_nn.folding.pairs import Alone, Pair, pairs


@dataclass(frozen=True, kw_only=True)
class Folded:
    """One normalization that was folded.

    Attributes:
        norm: the path of the normalization.
        layer: the path of the layer that does its work now.
        side: where the normalization stood: ``"behind"`` or ``"before"`` the layer.
        error: the largest difference between what both gave, and what the layer gives now for the same input.
        relative: the same, divided by the largest magnitude of what both gave.
    """

    norm: str
    layer: str
    side: str
    error: float
    relative: float


@dataclass(frozen=True, kw_only=True)
class Folding:
    """The result of :func:`quant_nn.fold_batch_norms`; ``str`` of it is a table.

    Attributes:
        folded: the normalizations that were folded, in the order of the model.
        left: those that were not, each with the reason.
    """

    folded: tuple[Folded, ...]
    left: tuple[Alone, ...]

    def __str__(self) -> str:
        head = f"{len(self.folded)} folded, {len(self.left)} left"
        done = [f"+  {one.norm} {one.side} {one.layer}: error {one.error:.3g}, {one.relative:.3g} of the largest value"
                for one in self.folded]  # fmt: skip
        return "\n".join([head, *done, *(f"   {one.norm or 'the model'}: {one.reason}" for one in self.left)])


def fold_batch_norms(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Folding:
    """Fold each batch normalization into the linear layer beside it, in place, and put ``nn.Identity`` in its place.

        f · (w ∗ x + b) + g = (f · w) ∗ x + (f · b + g),    f = weight / √(running_var + eps),  g = bias − running_mean · f

    Layers are ``Linear`` and convolutions, transposed ones too, in float or quantized; the normalization stands behind the layer,
    or before one that pads nothing. Which is which is read off a capture of the model. A float layer computes the same up to
    rounding; a quantized one has another weight to round, and its quantizer starts again from that. Parameters keep their
    identity; a layer without bias gets one.

    Args:
        model: the model; it is changed only when all went well.
        args: example inputs.
        kwargs: example keyword inputs.

    Returns:
        What was folded, with the error of each layer on the example inputs, and what was not, and why.

    Raises:
        CaptureError: when ``torch.export`` cannot capture the model.
        InputError: when the inputs do not fit the model.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    >>> folding = fold_batch_norms(net, (torch.randn(1, 1, 8, 8),))
    >>> [(one.norm, one.side, one.layer, one.relative < 1e-5) for one in folding.folded], net[1]
    ([('1', 'behind', '0', True)], Identity())
    """
    return fold_pairs(model, args, dict(kwargs or {}), lambda model, pair: None, _install_all)


def fold_pairs(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    reason: Callable[[nn.Module, Pair], str | None],
    install: Callable[[nn.Module, list[Pair]], None],
) -> Folding:
    """Fold in a way that is given.

    Args:
        model: the model.
        args: example inputs.
        kwargs: example keyword inputs.
        reason: why a pair is left as it is; ``None`` for one that is folded.
        install: changes the layers of all pairs, with nothing left that could fail.
    """
    found = list(pairs(model, capture(model, args, kwargs)))
    reasons = {one.norm: reason(model, one) for one in found if isinstance(one, Pair)}
    chosen = _one_norm_each([one for one in found if isinstance(one, Pair) and reasons[one.norm] is None])
    seen = _seen(model, chosen, args, kwargs)
    norms = [model.get_submodule(pair.norm) for pair in chosen]
    holders = [(parent, name, norm) for norm in norms for parent, name in _holders(model, norm)]
    install(model, chosen)
    for parent, name, norm in holders:
        parent._modules[name] = nn.Identity().train(norm.training)
    left = [Alone(norm=norm, reason=why) for norm, why in reasons.items() if why is not None]
    return Folding(
        folded=tuple(_measured(model, pair, *seen[pair.layer]) for pair in chosen),
        left=(*left, *(one for one in found if isinstance(one, Alone))),
    )


def _install_all(model: nn.Module, chosen: list[Pair]) -> None:
    weights: dict[str, Weights] = {}
    for pair in chosen:
        layer: Any = model.get_submodule(pair.layer)
        norm: Any = model.get_submodule(pair.norm)
        own = weights.get(pair.layer) or weights_of(layer)
        weights[pair.layer] = (behind if pair.side == "behind" else before)(layer, own, affine_of(norm))
    for path, folded in weights.items():
        _install(model.get_submodule(path), folded)


def _one_norm_each(found: list[Pair]) -> list[Pair]:
    """Normalizations before a layer come first: one behind it scales what they add."""
    return [pair for side in ("before", "behind") for pair in found if pair.side == side]


def _seen(
    model: nn.Module, chosen: list[Pair], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """By layer: what goes into it and its normalizations together, and what comes out, in the last call."""
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    handles = []
    for layer in dict.fromkeys(pair.layer for pair in chosen):
        beside = {pair.side: model.get_submodule(pair.norm) for pair in chosen if pair.layer == layer}
        own = model.get_submodule(layer)
        entry, exit_ = beside.get("before", own), beside.get("behind", own)
        handles.append(entry.register_forward_pre_hook(_keep_input(first, layer)))
        handles.append(exit_.register_forward_hook(_keep_output(last, layer)))
    try:
        with torch.no_grad(), in_eval_mode(model):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {layer: (first[layer], last[layer]) for layer in first}


def _keep_input(kept: dict[str, Any], layer: str) -> Any:
    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        kept[layer] = args[0].clone()

    return keep


def _keep_output(kept: dict[str, Any], layer: str) -> Any:
    def keep(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        kept[layer] = out.clone()

    return keep


def _install(layer: Any, folded: Weights) -> None:
    """Put the values into the parameters of a layer, and let its quantizers start from them."""
    with torch.no_grad():
        layer.weight.copy_(folded.weight)
        if layer.bias is None:
            bias = folded.bias.to(layer.weight.device, layer.weight.dtype)
            layer.bias = nn.Parameter(bias, requires_grad=layer.weight.requires_grad)
        else:
            layer.bias.copy_(folded.bias)
    for proxy in layer.modules():
        if isinstance(proxy, QuantProxy) and proxy.rebuilds_on_load:
            proxy.init_tensor_quant()


def _holders(model: nn.Module, norm: nn.Module) -> list[tuple[nn.Module, str]]:
    """The modules that hold a normalization, and its name in each."""
    return [(parent, name) for parent in model.modules() for name, child in parent._modules.items() if child is norm]


def _measured(model: nn.Module, pair: Pair, x: Any, expected: Any) -> Folded:
    layer = model.get_submodule(pair.layer)
    with torch.no_grad(), in_eval_mode(layer):
        got, wanted = (one.value if isinstance(one, QuantTensor) else one for one in (layer(x), expected))
    error = float((got - wanted).abs().max()) if wanted.numel() else 0.0
    largest = float(wanted.abs().max()) if wanted.numel() else 0.0
    relative = error / largest if largest else error
    return Folded(norm=pair.norm, layer=pair.layer, side=pair.side, error=error, relative=relative)
