"""A network in integers: steps in order, and the arrays that they read. What the files hold, and what the interpreter runs.

Every argument of a step is a number, a word, a list of them, or a reference: ``{"value": name}`` to the result of an earlier step
or an input, ``{"array": name}`` to an array.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from torch import Tensor

FORMAT: Final = "quant integers"
VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation.

    Attributes:
        name: the name of its result.
        op: what is done: one of :mod:`quant_core.integers.operations`.
        module: the path of the module that it comes from.
        arguments: by name.
        result: what is known of the result: ``shape``, ``low``, ``high``, ``bits`` and ``signed`` of the integers.
    """

    name: str
    op: str
    module: str
    arguments: dict[str, Any]
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output: ``clamp((q − zero_point) · scale + offset, low, high)`` as float.

    Attributes:
        value: a reference to its integers.
        scale: a reference to an array; ``None`` for what is handed on as it is.
        zero_point: the same.
        offset: the same.
        low: the smallest float, ``None`` for none.
        high: the largest one.
    """

    value: Any
    scale: Any = None
    zero_point: Any = None
    offset: Any = None
    low: float | None = None
    high: float | None = None


@dataclass(kw_only=True)
class Plan:
    """A network in integers.

    Attributes:
        inputs: name, shape and dtype of each input.
        steps: in order.
        outputs: in order.
        arrays: by the qualified name of what they belong to.
    """

    inputs: list[dict[str, Any]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    arrays: dict[str, Tensor] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON takes it."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "inputs": self.inputs,
            "steps": [asdict(step) for step in self.steps],
            "outputs": [asdict(output) for output in self.outputs],
        }


def from_description(described: dict[str, Any], arrays: dict[str, Tensor]) -> Plan:
    """The plan that :meth:`Plan.described` describes.

    >>> plan = Plan(inputs=[{"name": "x"}], outputs=[Output(value={"value": "x"})])
    >>> from_description(plan.described(), {}) == plan
    True
    """
    return Plan(
        inputs=described["inputs"],
        steps=[Step(**step) for step in described["steps"]],
        outputs=[Output(**output) for output in described["outputs"]],
        arrays=arrays,
    )
