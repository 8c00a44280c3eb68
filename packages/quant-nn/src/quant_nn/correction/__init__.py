"""Making up for what rounding does to a trained network, without training: biases, and the ranges of weights."""

from quant_nn.correction.bias import BiasCorrection, correct_bias
from quant_nn.correction.bias_errors import BiasError, TellsBiasErrors
from quant_nn.correction.equalization import Equalization, equalize

__all__ = ["BiasCorrection", "BiasError", "Equalization", "TellsBiasErrors", "correct_bias", "equalize"]
