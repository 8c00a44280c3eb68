"""From float models to quantized ones: rules, what they replace, and what they cannot reach."""

from quant_nn.convert.calls import Call, functional_calls
from quant_nn.convert.conversion import Conversion, Left, Replaced
from quant_nn.convert.quantize import quantize
from quant_nn.convert.recipes import RECIPES, Recipe, recipe
from quant_nn.convert.rule import Rule
from quant_nn.convert.rule_file import read_rules, write_rules

__all__ = [
    "RECIPES",
    "Call",
    "Conversion",
    "Left",
    "Recipe",
    "Replaced",
    "Rule",
    "functional_calls",
    "quantize",
    "read_rules",
    "recipe",
    "write_rules",
]
