"""What the comparison of an artifact with its model says."""

from __future__ import annotations

from dataclasses import dataclass

from quant_core.errors import VerificationError


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The first place where an artifact computes something else.

    Attributes:
        where: its place in the model, or the number of an output.
        difference: the largest difference there, in units.
        steps: the same in steps of the scale there; ``None`` where the value is not quantized.
    """

    where: str
    difference: float
    steps: float | None

    def __str__(self) -> str:
        steps = "" if self.steps is None else f" ({self.steps:g} steps)"
        return f"{self.where}: largest difference {self.difference:g}{steps}"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The answer of :func:`~quant_core.export.verify`.

    Attributes:
        target: the target of the artifact.
        max_difference: the largest difference of an output, in units, from the inputs to the end.
        max_steps: the same in steps of the output's scale; ``None`` where no output is quantized.
        ties: how many values lay on the border between two levels and were rounded to different sides.
        compared: how many activation quantizers were compared one by one.
        first_divergence: the first difference that is not a tie; ``None`` when there is none.
    """

    target: str
    max_difference: float
    max_steps: float | None
    ties: int
    compared: int
    first_divergence: Divergence | None

    @property
    def equal(self) -> bool:
        """Whether the artifact computes what the model computes."""
        return self.first_divergence is None

    def __str__(self) -> str:
        verdict = "equals the model" if self.equal else f"differs, first at {self.first_divergence}"
        steps = "" if self.max_steps is None else f", {self.max_steps:g} steps"
        return (
            f"{self.target} {verdict}; largest difference {self.max_difference:g}{steps}; "
            f"{self.ties} ties in {self.compared} quantizers"
        )

    def raise_if_different(self) -> None:
        """Raise what stands in the report.

        Raises:
            VerificationError: when the artifact computes something else.
        """
        if self.first_divergence is not None:
            raise VerificationError(
                f"the {self.target} artifact computes something else than the model",
                where=self.first_divergence.where,
                why=f"the first difference is {self.first_divergence.difference:g}"
                + (
                    ""
                    if self.first_divergence.steps is None
                    else f", {self.first_divergence.steps:g} steps of the scale"
                ),
                fix="This is a defect of the target; report it with the model. Nothing was written.",
            )
