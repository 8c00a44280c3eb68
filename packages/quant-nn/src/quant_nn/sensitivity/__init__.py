"""Which layer suffers most from being quantized."""

from quant_nn.sensitivity.analysis import Loss, sensitivity
from quant_nn.sensitivity.report import LayerSensitivity, SensitivityReport

__all__ = ["LayerSensitivity", "Loss", "SensitivityReport", "sensitivity"]
