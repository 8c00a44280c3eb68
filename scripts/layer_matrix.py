"""The matrix of layers and targets: each layer alone in a network, lowered to each target and run there.

    python scripts/layer_matrix.py [--check]

It is written between its two marks in docs/layers.md; with --check nothing is written, and a matrix that is out of date is an
error. The packages and the runtimes of the targets must be installed.
"""

from __future__ import annotations

from typing import Any

import torch
from projects import ROOT, packages
from sections import write_or_check

from quant_core.export import capture, check, compare, lower
from quant_core.plugins import registry
from quant_nn.samples import SAMPLES, SampleNet

BEGIN = "<!-- what becomes of each layer, written by scripts/layer_matrix.py -->"
END = "<!-- end of what becomes of each layer -->"
EXACT = "exact"


def targets() -> list[str]:
    """The targets of this repository."""
    own = packages()
    return [name for name, registered in registry().targets.items() if registered.distribution in own]


def trained(name: str, *, quantized: bool) -> SampleNet:
    """A sample that has learned its scales, in eval mode."""
    torch.manual_seed(0)
    net = SampleNet(SAMPLES[name], quantized=quantized)
    for seed in range(3):
        net(*SAMPLES[name].inputs(seed))
    return net.eval()


def outcomes(name: str, *, quantized: bool) -> dict[str, str]:
    """What each target makes of a layer: it is exact, or is refused with the words of the report.

    Raises:
        VerificationError: when a target computes something else than the model.
    """
    net, inputs = trained(name, quantized=quantized), SAMPLES[name].inputs(5)
    program = capture(net, inputs)
    found: dict[str, str] = {}
    for target in targets():
        report = check(program, target)
        if report.ok:
            compare(net, program, lower(program, target), inputs).raise_if_different()
            found[target] = EXACT
        else:
            reasons = dict.fromkeys(f"`{refusal.op}` with {refusal.actual}" for refusal in report.refusals)
            found[target] = f"refused: {', '.join(reasons)}"
    return found


def row(name: str) -> str:
    """A line of the table: what all targets make of a layer, on plain and on quantized inputs."""
    plain, quantized = (outcomes(name, quantized=on) for on in (False, True))
    return " | ".join([f"| {_shown(name)}", *(_cell(plain[target], quantized[target]) for target in plain)]) + " |"


def _cell(plain: str, quantized: str) -> str:
    return plain if plain == quantized else f"quantized {quantized}; plain {plain}"


def _shown(name: str) -> str:
    layer, comma, words = name.partition(",")
    return f"`{layer}`{comma}{words}"


def matrix() -> str:
    """One line for each row of the table of samples."""
    names: list[Any] = ["layer", *(f"`{target}`" for target in targets())]
    return "\n".join([f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}", *map(row, SAMPLES)])


if __name__ == "__main__":
    write_or_check(ROOT / "docs" / "layers.md", BEGIN, END, matrix, "The matrix of layers")
