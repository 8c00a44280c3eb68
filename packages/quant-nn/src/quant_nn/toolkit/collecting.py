"""What a quantizer with switches keeps between ``enable_calib`` and ``load_calib_amax``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant_core.components import Scaling
from quant_nn.calibration.calibrators import Calibrator
from quant_nn.calibration.methods import Method, method_of
from quant_nn.calibration.observing import Observer
from quant_nn.calibration.places import threshold_of


class ToolkitObserver(Observer):
    """An observer that keeps what it collects between the switches.

    Args:
        method: how to calibrate.
        scaling: what holds the threshold.
        signed: whether negative elements have magnitudes of their own.
        quantizes: whether values are quantized meanwhile.
    """

    def __init__(self, method: Method, scaling: Scaling, *, signed: bool, quantizes: bool) -> None:
        super().__init__(None, passes=not quantizes)
        self.method, self.scaling, self.signed = method, scaling, signed
        self.calibrator: Calibrator | None = None
        self.handles: list[Any] = []

    def take(self, x: Tensor) -> None:
        """Collect from one tensor."""
        if self.calibrator is None:
            with torch.no_grad():
                shape = tuple(threshold_of(self.scaling, x.detach()).shape)
            self.calibrator = self.method.calibrator(shape, signed=self.signed).to(x.device)
        self.calibrator.collect(x)


def toolkit_method(name: str, options: dict[str, Any]) -> Method:
    """``"histogram"`` leaves open what is found in it; ``"entropy"`` stands for it until something else is said."""
    return method_of("entropy" if name == "histogram" else name, **options)
