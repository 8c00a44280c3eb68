"""Recipes: what they say of themselves, and what they leave to the user."""

from __future__ import annotations

import pytest
from torch import nn

from quant_core.errors import UnknownNameError
from quant_nn import RECIPES, Rule, quantize, read_rules, recipe, write_rules


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_any_model_and_gives_way(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    rules = recipe(name)
    assert RECIPES[name].name == name
    assert all(rule.optional for rule in rules)
    quantize(nn.Sequential(nn.Flatten()), rules)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    quantize(model, [*rules, Rule(names="*", options={"weight_bit_width": 2})])
    assert [int(layer.quant_weight().bit_width) for layer in model] == [2, 2]
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    write_rules(rules, path)
    assert read_rules(path) == rules


def test_an_unknown_recipe() -> None:
    with pytest.raises(UnknownNameError) as caught:
        recipe("w4a4_fin")
    assert str(caught.value).splitlines() == [
        "unknown recipe 'w4a4_fin'",
        "  the recipes are weight_only, w8a8_integer_cpu, w4a4_finn, fixed_point_dpu, torch_native",
        "  Did you mean 'w4a4_finn'?",
    ]
