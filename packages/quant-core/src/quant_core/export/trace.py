"""One run of an artifact beside the program that it was lowered from, tensor by tensor.

Each quantizer is computed by torch from the values that the *artifact* gave for the quantizers before it, so that a difference
shows where it arises and not in all that comes after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, fx

from quant_core.errors import ArtifactError
from quant_core.export.loops import LoopInterpreter
from quant_core.export.program import Program, is_quantizer
from quant_core.export.quantizer import Quantizer

_TIE_DISTANCE: Final = 1e-3
_TIE_RELATIVE: Final = 1e-5
_TO_NEAREST: Final = ("ROUND", "HALF_UP", "DPU")
_FLOAT_RELATIVE: Final = 1e-3  # of the largest value: a sum of terms that cancel is as exact as its terms


@dataclass(frozen=True, kw_only=True)
class TraceRow:
    """One intermediate tensor, from torch and from the artifact.

    Attributes:
        name: the name of its node in the program.
        where: the place in the model that it comes from.
        model: what torch gives, from the artifact's values of the quantizers before it.
        artifact: what the artifact gives.
        difference: the largest difference, in units; infinite where the two cannot be compared.
        steps: the same in steps of the scale, for the result of a quantizer.
        ties: how many values lay on the border between two levels and were rounded to different sides.
        equal: whether there is no difference but ties, or the order in which floats are added.
    """

    name: str
    where: str
    model: Tensor
    artifact: Tensor
    difference: float
    steps: float | None
    ties: int
    equal: bool


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One run of an artifact, with what it gave on the way.

    Attributes:
        outputs: the flat outputs, in the order of the program's.
        values: intermediate tensors by the name of the program's node: the dequantized result of each activation quantizer, and
            of other nodes as many as the runtime can show.
        program: the program that the artifact was lowered from; ``None`` where the artifact does not keep it.
        inputs: the flat inputs of this run.

    ``str`` of a trace is a table of its :attr:`rows` with the first divergence marked.
    """

    outputs: list[Tensor]
    values: Mapping[str, Tensor]
    program: Program | None = None
    inputs: list[Any] = field(default_factory=list)

    @cached_property
    def rows(self) -> tuple[TraceRow, ...]:
        """Each tensor of :attr:`values` beside what torch gives, in the order of the program.

        Raises:
            ArtifactError: when the artifact does not keep its program.
        """
        if self.program is None:
            raise ArtifactError(
                "this trace has nothing to stand beside",
                why="the artifact does not keep the program that it was lowered from",
                fix="Compare them with quant_core.export.verify(program, artifact, args).",
            )
        walk = Walk(self.program, self.values)
        with torch.no_grad():
            walk.outputs(self.inputs)
        return tuple(walk.rows)

    @property
    def first_divergence(self) -> TraceRow | None:
        """The first row that is not equal; ``None`` when there is none."""
        return next((row for row in self.rows if not row.equal), None)

    def __str__(self) -> str:
        first = self.first_divergence
        lines = [("", "tensor", "shape", "largest difference", "steps", "ties")]
        for row in self.rows:
            steps = "" if row.steps is None else f"{row.steps:.3g}"
            shape = "x".join(map(str, row.artifact.shape))
            mark = "!" if row is first else ""
            lines.append((mark, row.where, shape, f"{row.difference:.3g}", steps, str(row.ties) if row.ties else ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )


class Walk(LoopInterpreter):
    """Runs a program with the values of its quantizers replaced, one after the other, by those of an artifact.

    Attributes:
        rows: what was compared so far.
    """

    def __init__(self, program: Program, values: Mapping[str, Tensor]) -> None:
        super().__init__(program.exported.graph_module)
        self.program = program
        self.values = values
        self.quantizers = {quantizer.name: quantizer for quantizer in program.quantizers}
        self.rows: list[TraceRow] = []

    def outputs(self, inputs: list[Any]) -> list[Any]:
        """The flat outputs of the program, from the artifact's values of the last quantizers before them."""
        constants, given = self.program.constants, iter(inputs)
        names = [node.name for node in self.program.graph.find_nodes(op="placeholder")]
        return list(self.run(*(constants[name] if name in constants else next(given) for name in names)))

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node, and compare it where the artifact shows it."""
        ours = super().run_node(n)
        theirs = self.values.get(n.name)
        if theirs is None or not isinstance(ours, Tensor):
            return ours
        theirs = theirs.to(device=ours.device, dtype=ours.dtype)
        if theirs.shape == ours.shape:  # laid out in memory as ours, because a view may follow
            theirs = torch.empty_like(ours).copy_(theirs)
        if not is_quantizer(n):
            if theirs.shape == ours.shape:  # else the runtime has fused the node with what comes after it
                self._add(n, ours, theirs, equal=_near(ours, theirs))
            return ours
        if theirs.shape != ours.shape:
            self._add(n, ours, theirs, equal=False)
            return ours
        operands: Any = self.map_nodes_to_values(n.args, n)
        self._compare(n, operands[0], ours, theirs)
        return theirs

    def _compare(self, n: fx.Node, x: Tensor, ours: Tensor, theirs: Tensor) -> None:
        quantizer = self.quantizers[n.name]
        scale = quantizer.scale
        assert scale is not None  # a trace holds constant grids only
        step = scale if quantizer.float_format is None else quantizer.step_at(torch.maximum(ours.abs(), theirs.abs()))
        steps = (ours - theirs).abs() / step
        ties = torch.zeros_like(ours, dtype=torch.bool)
        if quantizer.role == "activation":
            neighbour = 2 if quantizer.op == "quant::binary" else 1  # −1 and 1 are two steps apart
            ties = (steps > 0.5) & (steps < neighbour + 0.5) & _on_border(quantizer, x, n)
        wrong = ~(steps <= 0.5) & ~ties  # NaN is never equal
        if bool(wrong.any()):
            difference = float((ours - theirs).abs()[wrong].max())
            self._add(n, ours, theirs, False, difference, float(steps[wrong].max()), int(ties.sum()))
        else:
            largest = float(steps.max()) if steps.numel() else 0.0
            self._add(n, ours, theirs, True, largest_difference(ours, theirs), largest, int(ties.sum()))

    def _add(
        self,
        n: fx.Node,
        ours: Tensor,
        theirs: Tensor,
        equal: bool,
        difference: float | None = None,
        steps: float | None = None,
        ties: int = 0,
    ) -> None:
        self.rows.append(
            TraceRow(
                name=n.name,
                where=str(self.program.where(n)),
                model=ours,
                artifact=theirs,
                difference=largest_difference(ours, theirs) if difference is None else difference,
                steps=steps,
                ties=ties,
                equal=equal,
            )
        )


def largest_difference(one: Any, other: Any) -> float:
    """The largest difference; infinite where two things cannot be compared.

    >>> largest_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
    0.5
    """
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return 0.0 if one == other else math.inf
    if one.shape != other.shape:
        return math.inf
    wide, other_wide = (tensor.detach().cpu().to(torch.float64) for tensor in (one, other))
    finite = torch.isfinite(wide)
    same = (wide == other_wide) | (torch.isnan(wide) & torch.isnan(other_wide))
    if not torch.equal(finite, torch.isfinite(other_wide)) or not bool(torch.all(finite | same)):
        return math.inf
    return float((wide - other_wide)[finite].abs().max()) if bool(finite.any()) else 0.0


def _near(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors, of floats or masks, differ by the order of additions only."""
    difference = largest_difference(ours, theirs)
    wide = ours.to(torch.float64)
    finite = wide[torch.isfinite(wide)]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    return difference <= _FLOAT_RELATIVE * size


def _on_border(quantizer: Quantizer, x: Tensor, n: fx.Node) -> Tensor:
    """Whether a value lies so near to the border between two levels that the order of additions decides its side."""
    assert quantizer.scale is not None  # as above
    assert quantizer.zero_point is not None
    if quantizer.op == "quant::binary":
        return x.abs() <= _TIE_DISTANCE * quantizer.scale
    if quantizer.op == "quant::ternary":
        threshold: Any = n.kwargs["threshold"]
        distance: Tensor = (x.abs() / quantizer.scale - threshold).abs()
        return distance <= _TIE_DISTANCE
    level = x / quantizer.step_at(x) if quantizer.float_format else x / quantizer.scale + quantizer.zero_point
    border = torch.floor(level) + 0.5 if quantizer.rounding_mode in _TO_NEAREST else torch.round(level)
    return (level - border).abs() <= _TIE_DISTANCE + _TIE_RELATIVE * level.abs()
