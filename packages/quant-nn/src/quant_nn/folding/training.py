"""Training with the weight that will be deployed: the batch normalization is folded at each step, and its statistics go on.

With the statistics of the batch, ``f = weight_n / √(variance_B + eps)``,

    y = op(Q_in(x), Q_w(f · w)) + f · (b − mean_B) + bias_n

which without quantizers is what layer and normalization compute in training mode. In eval mode the running statistics take the
place of those of the batch. (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", CVPR 2018, section 3.2.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from quant_core.errors import ConfigurationError
from quant_core.proxies import QuantProxy
from quant_nn.folding.arithmetic import TRANSPOSED, Norm
from quant_nn.folding.fold import Folding, fold_pairs
from quant_nn.folding.pairs import Pair
from quant_nn.layer import value_of
from quant_nn.weight_layer import QuantWeightLayer


class FoldedWeight(nn.Module):
    """The parametrization ``w ↦ f · w`` along the output channels, with the normalization that ``f`` comes from.

    Args:
        norm: the normalization, whose parameters and statistics are trained on.
        transposed: whether the output channels are on axis 1 of the weight, in groups.
        groups: the number of groups.

    Attributes:
        frozen: fold the running statistics in training mode as well, and leave them as they are.
        batch: mean and variance of the present batch, within a call of the layer in training mode.
    """

    def __init__(self, norm: Norm, *, transposed: bool, groups: int) -> None:
        super().__init__()
        self.norm = norm
        self.transposed = transposed
        self.groups = groups
        self.frozen = False
        self.batch: tuple[Tensor, Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The folded weight, in the shape of the weight."""
        factor = self.factor()
        spatial = [1] * (weight.dim() - 2)
        if not self.transposed:
            return weight * factor.reshape(-1, 1, *spatial)
        grouped: Tensor = weight.unflatten(0, (self.groups, -1)) * factor.reshape(self.groups, 1, -1, *spatial)
        return grouped.flatten(0, 1)

    def factor(self) -> Tensor:
        """``f``, one for each output channel."""
        factor = torch.rsqrt(self.statistics()[1] + self.norm.eps)
        return factor if self.norm.weight is None else factor * self.norm.weight

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output without bias: of the batch, or else the running ones."""
        if self.batch is not None:
            return self.batch
        assert self.norm.running_mean is not None  # others are not folded
        assert self.norm.running_var is not None
        return self.norm.running_mean, self.norm.running_var


class FoldedBias(nn.Module):
    """The parametrization ``b ↦ f · (b − mean) + bias_n`` that belongs to a folded weight."""

    def __init__(self, weight: FoldedWeight) -> None:
        super().__init__()
        self._weight = (weight,)  # in a tuple, so that it is a part of one module only

    def forward(self, bias: Tensor) -> Tensor:
        """The folded bias, ``(O,)``."""
        fold = self._weight[0]
        mean, factor, offset = fold.statistics()[0], fold.factor(), fold.norm.bias
        folded = (bias - mean) * factor
        return folded if offset is None else folded + offset


def fold_while_training(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Folding:
    """Fold batch normalizations behind quantized layers at each training step, in place, and go on with their statistics.

    What a quantizer of the weight sees is the folded weight. Each layer computes its float output once more in training mode, to
    take the statistics of the batch from it; where it has an ``input_quant``, from the input before that. The parameters of layer
    and normalization are trained on as they are; :func:`finish_folding` leaves plain layers with folded weights.

    Args:
        model: a model with quantized layers.
        args: example inputs.
        kwargs: example keyword inputs.

    Returns:
        As :func:`fold_batch_norms`; normalizations before a layer, and behind a float one, are left.

    Raises:
        CaptureError: when ``torch.export`` cannot capture the model.
        InputError: when the inputs do not fit the model.

    >>> import quant_nn as qnn
    >>> net = nn.Sequential(qnn.QuantConv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    >>> [one.norm for one in fold_while_training(net, (torch.randn(2, 1, 8, 8),)).folded], net[1]
    (['1'], Identity())
    >>> _ = net(torch.randn(2, 1, 8, 8))
    >>> finish_folding(net)
    ['0']
    """
    return fold_pairs(model, args, dict(kwargs or {}), _reason, _install)


def freeze_statistics(model: nn.Module, frozen: bool = True) -> None:
    """Fold the running statistics in training mode as well, as in eval mode, for the last part of a training.

    Args:
        model: a model after :func:`fold_while_training`.
        frozen: whether they are frozen.

    Raises:
        ConfigurationError: when the model has no such layer.
    """
    for layer in _folding(model, "whose statistics could be frozen"):
        layer.parametrizations.weight[0].frozen = frozen


def finish_folding(model: nn.Module) -> list[str]:
    """Leave plain layers, whose weight and bias are the folded ones; the model computes in eval mode what it computed before.

    Args:
        model: a model after :func:`fold_while_training`; it is changed in place.

    Returns:
        The paths of the layers.

    Raises:
        ConfigurationError: when the model has no such layer.
    """
    layers = _folding(model, "whose folding could be finished")
    paths = {id(layer): path for path, layer in model.named_modules()}
    for layer in layers:
        for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook in (_take_statistics, _forget_statistics)]:
                del hooks[key]
                layer._forward_hooks_always_called.pop(key, None)
        parametrize.remove_parametrizations(layer, "bias", leave_parametrized=True)  # which reads that of the weight
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        layer._parameters["bias"] = layer._parameters.pop("bias").requires_grad_(
            layer.weight.requires_grad
        )  # behind it
    return [paths[id(layer)] for layer in layers]


def _folding(model: nn.Module, wanted: str) -> list[Any]:
    found = [one for one in model.modules() if parametrize.is_parametrized(one, "weight")]
    found = [one for one in found if isinstance(one.parametrizations.weight[0], FoldedWeight)]  # type: ignore[union-attr, index]
    if not found:
        raise ConfigurationError(
            f"the model has no layer {wanted}",
            why="no layer folds a batch normalization while it is trained",
            fix="Call quant_nn.fold_while_training(model, inputs) first.",
        )
    return found


def _reason(model: nn.Module, pair: Pair) -> str | None:
    """Why a normalization is not folded while training; ``None`` when it is."""
    layer = model.get_submodule(pair.layer)
    if pair.side == "before":
        return f"it stands before {pair.layer}, whose output says nothing of its statistics"
    if not isinstance(layer, QuantWeightLayer):
        return f"{pair.layer} ({type(layer).__name__}) quantizes no weight"
    return None


def _install(model: nn.Module, pairs: list[Pair]) -> None:
    for pair in pairs:
        layer: Any = model.get_submodule(pair.layer)
        norm: Any = model.get_submodule(pair.norm)
        fold = FoldedWeight(norm, transposed=isinstance(layer, TRANSPOSED), groups=getattr(layer, "groups", 1))
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros_like(norm.running_mean), requires_grad=False)
        fold.train(layer.training)
        parametrize.register_parametrization(layer, "weight", fold, unsafe=True)
        parametrize.register_parametrization(layer, "bias", FoldedBias(fold), unsafe=True)
        norm.train(layer.training)
        layer.register_forward_pre_hook(_take_statistics)
        layer.register_forward_hook(_forget_statistics, always_call=True)
        for proxy in layer.modules():
            if isinstance(proxy, QuantProxy) and proxy.rebuilds_on_load:
                proxy.init_tensor_quant()


def _take_statistics(layer: Any, args: tuple[Any, ...]) -> None:
    """In training mode, the mean and variance of the float output, for this call and for the running statistics."""
    fold: FoldedWeight = layer.parametrizations.weight[0]
    if not layer.training or fold.frozen:
        return
    weight, bias = layer.parametrizations.weight.original, layer.parametrizations.bias.original
    out = layer._operation(value_of(args[0]), weight, None, output_size=None)
    axis = 1 if not isinstance(layer, nn.Linear) else out.dim() - 1
    axes = [other for other in range(out.dim()) if other != axis]
    mean, variance = out.mean(axes) + bias, out.var(axes, unbiased=False)
    fold.batch = (mean, variance)
    _track(fold.norm, mean.detach(), variance.detach(), out.numel() // mean.numel())


def _forget_statistics(layer: Any, args: tuple[Any, ...], out: Any) -> None:
    layer.parametrizations.weight[0].batch = None


def _track(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Let the running statistics take a step, as the normalization itself does."""
    with torch.no_grad():
        norm.num_batches_tracked += 1
        step = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, step)
        norm.running_var.lerp_(variance * (count / max(count - 1, 1)), step)
