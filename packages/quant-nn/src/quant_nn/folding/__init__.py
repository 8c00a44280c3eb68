"""Batch normalizations: folded into the layers beside them, before or while a model is trained."""

from quant_nn.folding.fold import Folded, Folding, fold_batch_norms
from quant_nn.folding.pairs import Alone
from quant_nn.folding.training import finish_folding, fold_while_training, freeze_statistics

__all__ = [
    "Alone",
    "Folded",
    "Folding",
    "finish_folding",
    "fold_batch_norms",
    "fold_while_training",
    "freeze_statistics",
]
