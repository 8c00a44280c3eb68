"""Which numbers a minifloat has: a sign, a few exponent bits, a few mantissa bits.

Micikevicius et al., "FP8 formats for deep learning", arXiv:2209.05433, table 1; Open Compute Project, "8-bit floating point
specification (OFP8)", revision 1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quant_core.errors import ConfigurationError

_MOST_EXPONENT_BITS, _MOST_MANTISSA_BITS = 8, 10
_LEAST_POWER, _LARGEST_POWER = -126, 127  # of float32, which it is computed in


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """Numbers ``±(1 + k/2^m) · 2^e`` and, below the smallest of them, ``±k/2^m · 2^(1 − exponent_bias)``.

    ``m`` is the number of mantissa bits, ``k`` goes from 0 to ``2^m − 1``, and ``e`` from ``1 − exponent_bias`` up to where
    ``max_value`` lies.

    Attributes:
        exponent_bit_width: bits of the exponent, 1 to 8.
        mantissa_bit_width: bits of the mantissa, without the leading one, 0 to 10.
        exponent_bias: what is subtracted from the stored exponent.
        max_value: the largest number.
        has_inf: whether there are infinities.
        has_nan: whether there is a NaN.
        has_subnormal: whether there are numbers between 0 and the smallest normal one.
        saturating: whether what is too large becomes ``max_value``; else infinity, or NaN where there is none.

    Raises:
        ConfigurationError: when the fields contradict each other, or float32 does not hold all the numbers.

    >>> FloatFormat(exponent_bit_width=4, mantissa_bit_width=3, exponent_bias=7, max_value=448.0).bit_width
    8
    """

    exponent_bit_width: int
    mantissa_bit_width: int
    exponent_bias: int
    max_value: float
    has_inf: bool = False
    has_nan: bool = False
    has_subnormal: bool = True
    saturating: bool = True

    def __post_init__(self) -> None:
        _check_whole("exponent_bit_width", self.exponent_bit_width, 1, _MOST_EXPONENT_BITS)
        _check_whole("mantissa_bit_width", self.mantissa_bit_width, 0, _MOST_MANTISSA_BITS)
        _check_whole("exponent_bias", self.exponent_bias, -_LARGEST_POWER, _LARGEST_POWER)
        top = 2**self.exponent_bit_width - 1 - self.exponent_bias
        if 1 - self.exponent_bias - self.mantissa_bit_width < _LEAST_POWER or top > _LARGEST_POWER:
            raise ConfigurationError(
                f"exponent_bias={self.exponent_bias} with {self.exponent_bit_width} exponent bits goes beyond float32",
                why=f"the numbers must lie between 2^{_LEAST_POWER} and 2^{_LARGEST_POWER}, in which they are computed",
                fix="Use fewer exponent bits, or another exponent_bias.",
            )
        if not 0 < self.max_value <= 2.0**top * (2 - 2.0**-self.mantissa_bit_width):
            raise ConfigurationError(
                f"max_value={self.max_value!r} is none of the numbers of the format",
                why=f"the largest one that the bits can hold is {2.0**top * (2 - 2.0**-self.mantissa_bit_width):g}",
                fix="Leave it to FloatFormat.of_bits, which computes it.",
            )
        if not (self.saturating or self.has_inf or self.has_nan):
            raise ConfigurationError(
                "saturating=False has no effect here",
                why="what is too large becomes an infinity or NaN then, and the format has neither",
                fix="Set saturating=True, or name the codes: inf_values=('00',) or nan_values=('11',).",
            )

    @classmethod
    def of_bits(
        cls,
        exponent_bit_width: int,
        mantissa_bit_width: int,
        exponent_bias: int | None = None,
        *,
        inf_values: Sequence[str] | None = None,
        nan_values: Sequence[str] | None = None,
        has_subnormal: bool = True,
        saturating: bool = True,
    ) -> FloatFormat:
        """The format of so many bits, in which some codes with the largest exponent are no numbers.

        Args:
            exponent_bit_width: bits of the exponent.
            mantissa_bit_width: bits of the mantissa.
            exponent_bias: ``2^(exponent_bit_width − 1) − 1`` by default.
            inf_values: the mantissas, as bits, that stand for infinity beside the largest exponent.
            nan_values: those that stand for NaN.
            has_subnormal: whether there are numbers between 0 and the smallest normal one.
            saturating: whether what is too large becomes the largest number.

        Raises:
            ConfigurationError: for codes that are not so many bits, and as the class does.

        >>> FloatFormat.of_bits(4, 3).max_value, FloatFormat.of_bits(4, 3, nan_values=("111",)).max_value
        (480.0, 448.0)
        """
        _check_whole("exponent_bit_width", exponent_bit_width, 1, _MOST_EXPONENT_BITS)
        _check_whole("mantissa_bit_width", mantissa_bit_width, 0, _MOST_MANTISSA_BITS)
        bias = default_exponent_bias(exponent_bit_width) if exponent_bias is None else exponent_bias
        taken = {
            _code(name, word, mantissa_bit_width)
            for name, words in (("inf_values", inf_values), ("nan_values", nan_values))
            for word in words or ()
        }
        _check_whole("exponent_bias", bias, -_LARGEST_POWER, _LARGEST_POWER)
        codes = 2**mantissa_bit_width
        largest = max((code for code in range(codes) if code not in taken), default=None)
        top = 2.0 ** (2**exponent_bit_width - 1 - bias)
        return cls(
            exponent_bit_width=exponent_bit_width,
            mantissa_bit_width=mantissa_bit_width,
            exponent_bias=bias,
            max_value=top * (1 + largest / codes) if largest is not None else top * (1 - 0.5 / codes),
            has_inf=bool(inf_values),
            has_nan=bool(nan_values),
            has_subnormal=has_subnormal,
            saturating=saturating,
        )

    @property
    def bit_width(self) -> int:
        """All bits, with the sign."""
        return 1 + self.exponent_bit_width + self.mantissa_bit_width

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number with a leading one."""
        return float(2.0 ** (1 - self.exponent_bias))

    @property
    def least_spacing(self) -> float:
        """The distance between 0 and the number after it."""
        return self.smallest_normal * (2.0**-self.mantissa_bit_width if self.has_subnormal else 1.0)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields by name, as the op ``quant::float`` takes them."""
        return asdict(self)

    def __str__(self) -> str:
        return f"e{self.exponent_bit_width}m{self.mantissa_bit_width} up to {self.max_value:g}"


def default_exponent_bias(exponent_bit_width: int) -> int:
    """``2^(exponent_bit_width − 1) − 1``, as in IEEE 754.

    >>> default_exponent_bias(5)
    15
    """
    return int(2 ** (exponent_bit_width - 1) - 1)


def _check_whole(name: str, given: object, least: int, most: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise ConfigurationError(
            f"{name}={given!r} is out of range",
            why=f"it is a whole number from {least} to {most}",
            fix="Use, for example, 4 exponent and 3 mantissa bits.",
        )


def _code(name: str, word: str, bits: int) -> int:
    if not isinstance(word, str) or len(word) != bits or set(word) - {"0", "1"}:
        raise ConfigurationError(
            f"{name} holds {word!r}",
            why=f"a code is the mantissa beside the largest exponent, {bits} characters that are 0 or 1",
            fix=f"Write, for example, {name}=({'1' * bits!r},).",
        )
    return int(word, 2) if word else 0
