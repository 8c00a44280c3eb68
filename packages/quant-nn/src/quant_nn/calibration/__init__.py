"""Finding the ranges of quantizers in data: calibrators, and one call that calibrates a model."""

from quant_nn.calibration.batches import run
from quant_nn.calibration.calibrate import calibrate
from quant_nn.calibration.calibrators import Calibrator, HistogramCalibrator, Rule
from quant_nn.calibration.histogram import Histogram
from quant_nn.calibration.levels import Levels
from quant_nn.calibration.methods import METHODS
from quant_nn.calibration.observing import Observer, passing, quantizers
from quant_nn.calibration.relative_entropy import entropy
from quant_nn.calibration.report import Calibrated, CalibrationReport
from quant_nn.calibration.rules import mse, percentile
from quant_nn.calibration.session import Calibration

__all__ = [
    "METHODS",
    "Calibrated",
    "Calibration",
    "CalibrationReport",
    "Calibrator",
    "Histogram",
    "HistogramCalibrator",
    "Levels",
    "Observer",
    "Rule",
    "calibrate",
    "entropy",
    "mse",
    "passing",
    "percentile",
    "quantizers",
    "run",
]
