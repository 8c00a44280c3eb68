"""Keyword shorthands: the words that stand for components, such as ``weight_quant_type="binary"``.

:mod:`quant_core.shorthand.table` is the whole list, as data; plugins add to it through the hook ``quant_shorthands``. Importing
this package imports nothing heavy.
"""

from quant_core.shorthand.table import SHORTHANDS

__all__ = ["SHORTHANDS"]
