"""The model with a single layer quantized, against the model in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError, InputError
from quant_core.export.eval_mode import in_eval_mode
from quant_core.proxies import QuantProxy
from quant_nn.calibration.batches import Forward, eager, no_data, progressing, run
from quant_nn.calibration.noise import OutputNoise, plain
from quant_nn.calibration.observing import passing, quantizers
from quant_nn.correction.data import check_calibrated
from quant_nn.sensitivity.report import LayerSensitivity, SensitivityReport

Loss = Callable[[Any, Any], Tensor | float]
"""``loss(output, batch)``: the mean loss of a batch."""


def sensitivity(
    model: nn.Module,
    data: Iterable[Any],
    loss: Loss | None = None,
    *,
    progress: bool | None = None,
    forward: Forward = run,
) -> SensitivityReport:
    """For each layer with quantizers: what the output of the model loses when this layer is quantized, and nothing else.

    The model runs once in full precision and once for each layer, in eval mode, on every batch. Nothing about it changes.

    Args:
        model: a calibrated model.
        data: batches, as for :func:`quant_nn.calibrate`; gone through once.
        loss: ``loss(output, batch)``, whose mean over the batches is compared as well.
        progress: whether there is a progress bar; by default where standard error is a terminal.
        forward: ``forward(model, batch)`` runs the model, where batches are of another form.

    Returns:
        The layers, most sensitive first: by the change of loss where there is one, by SQNR otherwise.

    Raises:
        StateError: when the model is not calibrated.
        ConfigurationError: when nothing in it is quantized.
        InputError: when there is no data, or the loss is no finite number.

    >>> import quant_nn as qnn
    >>> torch.manual_seed(0) and None
    >>> net = nn.Sequential(qnn.QuantLinear(8, 8, weight_bit_width=2), qnn.QuantLinear(8, 8, weight_bit_width=8))
    >>> [row.name for row in sensitivity(net, [torch.randn(4, 8)]).layers]
    ['0', '1']
    """
    model = eager(model)
    check_calibrated(model, "the analysis of sensitivity")
    layers = _by_layer(model)
    if not layers:
        raise ConfigurationError(
            "there is no layer to analyse",
            where=type(model).__name__,
            why="no quantizer of the model is on",
            fix="Give the model quantized layers, with quant_nn.quantize(model, rules) for example.",
        )
    noise, losses = {name: OutputNoise() for name in layers}, dict.fromkeys(layers, 0.0)
    count, plain_loss = 0, 0.0
    with torch.no_grad(), in_eval_mode(model):
        for batch in progressing(data, "analysing", progress):
            exact = _run(model, batch, None, layers, forward)
            count += 1
            plain_loss += 0.0 if loss is None else _number(loss(exact, batch), "in full precision")
            for name in layers:
                found = _run(model, batch, name, layers, forward)
                noise[name].add(exact, found)
                losses[name] += 0.0 if loss is None else _number(loss(found, batch), f"with {name} quantized")
    if not count:
        raise no_data(type(model).__name__)
    changes = {name: None if loss is None else (losses[name] - plain_loss) / count for name in layers}
    rows = [LayerSensitivity(name=name, sqnr=noise[name].sqnr, loss_change=changes[name]) for name in layers]
    rows.sort(key=lambda row: row.sqnr if row.loss_change is None else -row.loss_change)
    return SensitivityReport(layers=tuple(rows), loss=None if loss is None else plain_loss / count)


def _number(loss: Tensor | float, where: str) -> float:
    number = torch.as_tensor(loss)
    if number.numel() != 1 or not bool(torch.isfinite(number)):
        shown = f"a tensor of shape {tuple(number.shape)}" if number.numel() != 1 else f"{number.item():g}"
        raise InputError(
            f"the loss is {shown}",
            where=where,
            why="losses are compared, so that it is one finite number for each batch",
            fix="Take the mean of the losses of a batch, and look for infinities and NaN in the data.",
        )
    return float(number)


def _by_layer(model: nn.Module) -> dict[str, list[QuantProxy]]:
    """The quantizers of each layer, by its path; those in a model that is one layer by its type."""
    found: dict[str, list[QuantProxy]] = {}
    for path, proxy in quantizers(model).items():
        found.setdefault(path.rpartition(".")[0] or type(model).__name__, []).append(proxy)
    return found


def _run(model: nn.Module, batch: Any, only: str | None, layers: dict[str, list[QuantProxy]], forward: Forward) -> Any:
    """The output with one layer quantized, or with none."""
    with ExitStack() as stack:
        for name, proxies in layers.items():
            if name != only:
                stack.enter_context(passing(proxies))
        return plain(forward(model, batch))
