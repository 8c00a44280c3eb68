"""Batch normalizations: folded into the layers beside them, before or while a model is trained."""

from quant_nn.folding.fold import Folded, Folding, fold_batch_norms
from quant_nn.folding.pairs import Alone

__all__ = ["Alone", "Folded", "Folding", "fold_batch_norms"]
