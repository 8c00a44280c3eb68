"""Bias correction: what rounding adds to the mean of a layer's output is taken off its bias.

Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, section 4.2, with means from
data (appendix D).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_core.export.eval_mode import in_eval_mode
from quant_nn.calibration.batches import Forward, eager, no_data, progressing, run
from quant_nn.calibration.observing import passing, quantizers
from quant_nn.calibration.report import table_text
from quant_nn.correction.data import check_calibrated, repeatable
from quant_nn.layer import value_of
from quant_nn.weight_layer import QuantWeightLayer


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """What was corrected; prints as a table.

    Attributes:
        shifts: by the path of the layer, what was added to its bias, ``(O,)``.
        left: layers without a bias that could be changed.
    """

    shifts: dict[str, Tensor]
    left: tuple[str, ...]

    def __str__(self) -> str:
        rows = [
            (path, f"{s.abs().mean().item():.3g}", f"{s.abs().max().item():.3g}") for path, s in self.shifts.items()
        ]
        head = f"biases corrected: {len(self.shifts)}"
        left = f"\nleft, without a bias: {', '.join(self.left)}" if self.left else ""
        return f"{head}\n{table_text(('layer', 'mean shift', 'largest shift'), rows)}{left}"


class _Means:
    """The mean of each output channel of a layer."""

    def __init__(self) -> None:
        self.sum: Tensor = torch.zeros(())
        self.count = 0

    def add(self, layer: QuantWeightLayer, out: Tensor) -> None:
        shape = layer._channel_shape(out)
        axis = next((axis for axis in range(-len(shape), 0) if shape[axis] != 1), None)
        rows = out.reshape(1, -1) if axis is None else out.movedim(axis, 0).flatten(1)  # (O, n)
        self.sum = self.sum.to(out.device) + rows.detach().to(torch.float64).sum(1)
        self.count += rows.shape[1]

    @property
    def mean(self) -> Tensor:
        return self.sum / self.count


def correct_bias(
    model: nn.Module, data: Iterable[Any], *, progress: bool | None = None, forward: Forward = run
) -> BiasCorrection:
    """Add ``E[y] − E[Q(y)]`` to the bias of each layer, in the order in which they run.

    ``E`` are means over the data for each output channel, ``y`` the output of the layer where nothing in the model is quantized
    and ``Q(y)`` where everything is, with the layers before it corrected already. The data is gone through once more than there
    are layers. Do it once: the mean in full precision is that with the biases as they are. Layers of quant_nn with a weight and a
    bias are corrected; biases of recurrent layers stay as they are.

    Args:
        model: a calibrated model; its biases are changed in place, all of them or, when something fails, none.
        data: batches, as for :func:`quant_nn.calibrate`.
        progress: whether there is a progress bar; by default where standard error is a terminal.
        forward: ``forward(model, batch)`` runs the model, where batches are of another form.

    Raises:
        StateError: when the model is not calibrated.
        ConfigurationError: when no layer has a bias.
        InputError: when there is no data.

    >>> import quant_nn as qnn
    >>> layer = qnn.QuantLinear(2, 1, weight_bit_width=2)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.3]]))
    >>> x = torch.ones(4, 2)
    >>> exact = layer.weight.sum() + layer.bias
    >>> _ = correct_bias(layer, [x])
    >>> torch.allclose(layer(x), exact.expand(4, 1))
    True
    """
    model = eager(model)
    check_calibrated(model, "bias correction")
    batches = repeatable(data, model)
    named = {path: layer for path, layer in model.named_modules() if isinstance(layer, QuantWeightLayer)}
    layers = {path: layer for path, layer in named.items() if isinstance(layer.bias, nn.Parameter)}
    if not layers:
        raise ConfigurationError(
            "there is no bias to correct",
            where=type(model).__name__,
            why="no layer of quant_nn in it has both a weight and a bias",
            fix="Build the layers with bias=True.",
        )
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(_restored_when_it_fails(list(layers.values())))
        with passing(quantizers(model).values()):
            exact = _means(model, layers, batches, forward, progress, "means in full precision")
        shifts = {}
        for path in exact:  # in the order in which they have run
            found = _means(model, {path: layers[path]}, batches, forward, progress, f"correcting {path}")
            bias = _bias(layers[path])
            shift = (exact[path].mean - found[path].mean).to(bias)
            bias.add_(shift)
            shifts[path] = shift
    return BiasCorrection(shifts=shifts, left=tuple(path for path in named if path not in layers))


def _means(
    model: nn.Module,
    layers: dict[str, QuantWeightLayer],
    data: Iterable[Any],
    forward: Forward,
    progress: bool | None,
    what: str,
) -> dict[str, _Means]:
    found: dict[str, _Means] = {}
    with ExitStack() as stack:
        for path, layer in layers.items():
            handle = layer.register_forward_hook(
                lambda module, args, out, path=path: found.setdefault(path, _Means()).add(module, value_of(out))
            )
            stack.callback(handle.remove)
        count = 0
        for batch in progressing(data, what, progress):
            forward(model, batch)
            count += 1
    if not count:
        raise no_data(type(model).__name__)
    return found


@contextmanager
def _restored_when_it_fails(layers: list[QuantWeightLayer]) -> Iterator[None]:
    before = [_bias(layer).clone() for layer in layers]
    try:
        yield
    except BaseException:
        for layer, bias in zip(layers, before, strict=True):
            _bias(layer).copy_(bias)
        raise


def _bias(layer: QuantWeightLayer) -> Tensor:
    bias = layer.bias
    assert isinstance(bias, nn.Parameter)
    return bias
