"""The page on quantizers lists each keyword with all of its words, and each module that quantizes with what it asks for."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from quant_core import components
from quant_core.checkpoints.brevitas import RENAMED
from quant_core.components import AccumulatorQuant, TensorQuant
from quant_core.shorthand import SHORTHANDS

PAGE = (Path(__file__).parents[2] / "docs" / "quantizers.md").read_text(encoding="utf-8")
BASES = (TensorQuant, AccumulatorQuant)


def rows(header: str) -> list[tuple[str, str]]:
    """The two columns of the table with that header."""
    lines = PAGE.partition(f"{header}\n")[2].splitlines()
    table = lines[: next(index for index, line in enumerate(lines) if not line.startswith("|"))]
    return [(line.split("|")[1], line.split("|")[2]) for line in table[1:]]


def test_each_module_that_quantizes_is_listed_with_what_it_asks_for() -> None:
    listed: dict[str, set[str]] = {}
    for line in PAGE.partition("| `tensor_quant` | gives | asks for |\n")[2].partition("\n\n")[0].splitlines()[1:]:
        names, _, asks = line.strip("| ").split(" | ")
        listed |= {name: set(re.findall(r"`(\w+)`", asks)) for name in re.findall(r"`(\w+)`", names)}
    known = {name: getattr(components, name) for name in components.__all__}
    modules = {name: one for name, one in known.items() if isinstance(one, type) and issubclass(one, BASES)}
    wanted = {
        name: {
            parameter.name
            for parameter in inspect.signature(module).parameters.values()
            if parameter.default is inspect.Parameter.empty
        }
        for name, module in modules.items()
        if module not in BASES
    }
    assert {name: asks for name, asks in wanted.items() if listed.get(name) != asks} == {}
    assert set(listed) == set(wanted)


def test_each_keyword_is_listed_with_its_words() -> None:
    listed: set[str] = set()
    for keywords, words in rows("| keyword | words |"):
        for keyword in re.findall(r"`(\w+)`", keywords):
            known = [entry.word for entry in SHORTHANDS if entry.keyword == keyword and entry.word]
            listed |= {f"{keyword}={word}" for word in re.findall(r"`(\w+)`", words) if word in known}
            listed |= {entry.name for entry in SHORTHANDS if entry.name == keyword}
    assert {entry.name for entry in SHORTHANDS} - listed == set()


def test_the_key_map_is_listed() -> None:
    listed = {tuple(cell.strip(" `").strip("….") for cell in row) for row in rows("| there | here |")}
    shared = "tensor_quant."  # what both sides begin with is left out on the page
    wanted = {
        tuple(name.removeprefix(shared).strip(".") for name in pair)
        if all(name.startswith(shared) for name in pair)
        else tuple(name.strip(".") for name in pair)
        for pair in RENAMED
    }
    assert listed == wanted
