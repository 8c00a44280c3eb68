"""What is known of one quantizer of a captured program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from quant_core.export.provenance import Provenance
from quant_core.ops import FloatFormat
from quant_core.ops.minifloat import spacing
from quant_core.plugins.capabilities import GranularityName

Role = Literal["weight", "bias", "activation"]


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """One quantizer of a program.

    Attributes:
        name: the name of its node, unique in the program and made from the module path.
        op: the dialect op. A folded weight or bias is ``quant::binary`` with one bit and ``quant::int`` with more: ternary
            weights are integers of 2 bits and narrow range. A weight of minifloats is ``quant::float`` of the numbers that it was
            rounded to.
        role: what is quantized.
        where: its place in the model.
        scale: constant tensor, or ``None`` where it is computed at run time.
        zero_point: constant tensor, or ``None`` where it is computed at run time.
        bit_width: number of bits, or ``None`` where it is computed at run time.
        signed: whether the integers can be negative.
        narrow_range: whether one level is left out.
        rounding_mode: how it rounds.
        integers: the quantized values of a weight or bias; ``None`` for activations, and for minifloats.
        shape: the shape of the tensor that is quantized.
        float_format: of minifloats, which numbers there are; ``None`` for integers.
        values: the quantized values of a weight or bias of minifloats; ``None`` for everything else.
    """

    name: str
    op: str
    role: Role
    where: Provenance
    scale: Tensor | None
    zero_point: Tensor | None
    bit_width: float | None
    signed: bool
    narrow_range: bool
    rounding_mode: str
    integers: Tensor | None
    shape: tuple[Any, ...]
    float_format: FloatFormat | None = None
    values: Tensor | None = None

    def option(self, name: str) -> str:
        """How its layer calls an option of this quantizer: ``input_bit_width`` for ``bit_width``."""
        by_role = "" if self.role == "activation" else f"{self.role}_"
        return f"{self.where.prefix or by_role}{name}"

    def step_at(self, value: Tensor) -> Tensor:
        """The distance between two neighbouring levels around ``value``; the scale is constant."""
        assert self.scale is not None
        if self.float_format is None:
            return self.scale.expand(value.shape)
        return spacing(value / self.scale, self.float_format) * self.scale

    @property
    def axis(self) -> int | None:
        """The axis of the tensor along which the scale varies; ``None`` when it does not."""
        if self.scale is None or self.scale.numel() == 1:
            return None
        larger = [index for index, size in enumerate(self.scale.shape) if size != 1]
        return larger[0] + len(self.shape) - self.scale.dim() if len(larger) == 1 else None

    @property
    def granularity(self) -> GranularityName:
        """Told by the shape of the scale."""
        if self.scale is None or self.scale.numel() == 1:
            return "per_tensor"
        return "per_group" if self.axis is None else "per_channel"
