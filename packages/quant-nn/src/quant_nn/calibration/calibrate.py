"""Calibration in one call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from quant_nn.calibration.batches import Forward, run
from quant_nn.calibration.calibrators import Rule
from quant_nn.calibration.report import CalibrationReport
from quant_nn.calibration.session import Calibration


def calibrate(
    model: nn.Module,
    data: Iterable[Any],
    method: str | Rule = "auto",
    *,
    bins: int | None = None,
    only: Iterable[str] | None = None,
    again: bool = False,
    progress: bool | None = None,
    forward: Forward = run,
    **options: Any,
) -> CalibrationReport:
    """Run a model on data in full precision, and set the ranges of all quantizers that take them from data.

    ========================  =====================================================================================
    method                    threshold
    ========================  =====================================================================================
    ``"max"``                 the largest magnitude
    ``"percentile"``          the magnitude that ``percentile`` (99.99) percent of the elements do not exceed
    ``"entropy"``             where the distribution loses least information (TensorRT)
    ``"mse"``                 where the squared error of quantization is smallest
    ``"statistics"``          what the quantizer itself collects in training, such as a zero-point with its scale
    ``"auto"``                ``"mse"`` for integers with the zero-point 0, and ``"statistics"`` for all others
    ========================  =====================================================================================

    Afterwards the quantizers are as if they had collected statistics in training: what is learned goes on from there. It is set
    for all of them or, when something fails, for none. The model stays in the modes that it was in.

    With an initialized ``torch.distributed`` process group each process calibrates on its own part of the data, and all of them
    end with the ranges of one process on all of it, to the bit.

    Args:
        model: any model with quantizers, of quant_nn, quant_rnn, or others that are built on quant_core.
        data: any iterable of batches: tensors, tuples of arguments, or mappings of keywords.
        method: one of the names, or a function ``rule(histogram, levels, **options)`` that gives thresholds.
        bins: how many bins histograms have; 2048 by default.
        only: the paths of the quantizers to calibrate; all by default.
        again: whether those that are calibrated already are calibrated anew.
        progress: whether there is a progress bar; by default where standard error is a terminal.
        forward: ``forward(model, batch)`` runs the model, where batches are of another form.
        options: options of the method.

    Raises:
        InputError: when there is no data, a tensor holds infinities or NaN (names the layer), or devices are mixed.
        StateError: when a quantizer has seen no data, or is calibrated already; names it.
        UnknownNameError: for an unknown method.
        UnusedAttributeError: for an option that the method does not read.
        ConfigurationError: when there is nothing to calibrate, or the method cannot calibrate a quantizer.

    >>> import torch, quant_nn as qnn
    >>> net = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(4, 2), qnn.QuantReLU())
    >>> report = calibrate(net, [torch.ones(8, 4)], method="max")
    >>> net[0].act_quant.scale().item() == 1 / 128
    True
    """
    calibration = Calibration(model, method, bins=bins, only=only, again=again, **options)
    calibration.collect(data, progress=progress, forward=forward)
    return calibration.finish()
