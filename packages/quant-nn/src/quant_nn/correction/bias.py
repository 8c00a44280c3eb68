"""Bias correction: what rounding adds to the mean of a layer's output is taken off its bias.

Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, section 4.2, with means from
data (appendix D).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_core.export.eval_mode import in_eval_mode
from quant_nn.calibration.batches import Forward, eager, run
from quant_nn.calibration.observing import passing, quantizers
from quant_nn.calibration.report import table_text
from quant_nn.correction.biases import Bias, biases_of, by_module, holding, means, restored_when_it_fails
from quant_nn.correction.data import check_calibrated, repeatable
from quant_nn.correction.uncorrected import remember, uncorrected


@dataclass(frozen=True, kw_only=True)
class BiasCorrection:
    """What was corrected; prints as a table.

    Attributes:
        shifts: by the path of the layer, what was added to its bias, ``(O,)``; of a layer with several biases, by their paths.
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


def correct_bias(
    model: nn.Module, data: Iterable[Any], *, progress: bool | None = None, forward: Forward = run
) -> BiasCorrection:
    """Add ``E[y] − E[Q(y)]`` to the bias of each layer, in the order in which they run.

    ``E`` are means over the data for each output channel, ``y`` the output of the layer where nothing in the model is quantized
    and ``Q(y)`` where everything is, with the layers before it corrected already.

    Recurrent layers, and others that are :class:`~quant_nn.correction.TellsBiasErrors`, tell what rounding their weights adds
    to the sums that a bias is a term of. ``−(Q(W) − W)·E[z]`` is added there, with ``z`` that the weights are multiplied with
    in the quantized model: for a gate, input and hidden state at all steps. That the hidden state has an error of its own is
    left as it is, because what is done against it in a bias comes back through that state at every step.

    The data is gone through once, and once more for each layer, or direction of a recurrent layer.

    A second call corrects towards the same means in full precision, so that it finds next to nothing to do: how the biases
    were before is remembered until they change, also in copies of the model, but not in a ``state_dict``. Corrected biases
    that were loaded are taken for those of full precision; do not correct them again.

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
    found = biases_of(model)
    biases = [bias for of_layer in found.values() for bias in of_layer]
    if not biases:
        raise ConfigurationError(
            "there is no bias to correct",
            where=type(model).__name__,
            why="no layer in it has both a quantized weight and a bias",
            fix="Build the layers with bias=True.",
        )
    before = {bias: uncorrected(bias.layer, bias.name, bias.parameter) for bias in biases}
    shifts: dict[Bias, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(in_eval_mode(model))
        stack.enter_context(restored_when_it_fails(biases))
        with passing(quantizers(model).values()), holding(biases, list(before.values())):
            exact = means(model, biases, batches, forward, progress, "means in full precision")
        for together in by_module(exact):  # in the order in which they have run
            rounded = means(model, together, batches, forward, progress, f"correcting {together[0].path}")
            for bias, mean in rounded.items():
                now = bias.parameter
                shift = before[bias] - now - mean if bias.is_error else exact[bias] - mean
                shifts[bias] = shift.to(now)
                now.add_(shifts[bias])
    for bias in shifts:
        remember(bias.layer, bias.name, before[bias], bias.parameter)
    return BiasCorrection(
        shifts={bias.path: shift for bias, shift in shifts.items()},
        left=tuple(path for path, of_layer in found.items() if not of_layer),
    )
