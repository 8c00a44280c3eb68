"""What a target can take, declared as data, so that a model can be checked without lowering it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from quant_core.errors import ConfigurationError

GranularityName = Literal["per_tensor", "per_channel", "per_group"]
ZeroPointName = Literal["zero", "any"]
ScaleName = Literal["float", "power_of_two"]

ROLES: Final = ("weight", "activation", "bias")
_BOTH: Final = frozenset({True, False})


@dataclass(frozen=True, kw_only=True)
class QuantSupport:
    """The quantizers of one op and role that a target takes.

    Attributes:
        bit_widths: the numbers of bits, each 1 or more.
        signed: ``True`` for signed integers, ``False`` for unsigned ones.
        narrow_range: ``True`` for ranges that leave one level out, ``False`` for full ones.
        zero_point: ``"zero"`` when it must be 0.
        granularity: how fine the scale may be.
        rounding_modes: the rounding modes of values that are rounded at run time.
        scale: ``"power_of_two"`` when it must be one.

    Every collection is kept as a frozen set.

    Raises:
        ConfigurationError: for an empty collection, a bit width that is no positive integer, or an unknown word.

    >>> QuantSupport(bit_widths=range(2, 9)).bit_widths == frozenset({2, 3, 4, 5, 6, 7, 8})
    True
    """

    bit_widths: Collection[int]
    signed: Collection[bool] = _BOTH
    narrow_range: Collection[bool] = _BOTH
    zero_point: ZeroPointName = "zero"
    granularity: Collection[GranularityName] = frozenset({"per_tensor", "per_channel"})
    rounding_modes: Collection[str] = frozenset({"ROUND"})
    scale: ScaleName = "float"

    def __post_init__(self) -> None:
        for name in ("bit_widths", "signed", "narrow_range", "granularity", "rounding_modes"):
            object.__setattr__(self, name, _frozen(name, getattr(self, name)))
        _check_bit_widths(self.bit_widths)
        _check_words("signed", self.signed, (True, False))
        _check_words("narrow_range", self.narrow_range, (True, False))
        _check_words("granularity", self.granularity, get_args(GranularityName))
        _check_words("zero_point", {self.zero_point}, get_args(ZeroPointName))
        _check_words("scale", {self.scale}, get_args(ScaleName))


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Everything that a target takes.

    Attributes:
        quant: for each op and role, such as ``"quant::int weight"``, what it takes.
        aten: the aten operations by name, such as ``"conv2d.default"``; ``None`` for all that its tool chain knows.
        loops: whether it takes loops over a time axis of varying length.

    Raises:
        ConfigurationError: for a key that is not an op and a role, or a value that is not a :class:`QuantSupport`.

    >>> Capabilities(quant={"quant::int weight": QuantSupport(bit_widths={8})}).quant["quant::int weight"].zero_point
    'zero'
    """

    quant: Mapping[str, QuantSupport] = field(default_factory=dict)
    aten: Collection[str] | None = None
    loops: bool = False

    def __post_init__(self) -> None:
        for key, support in self.quant.items():
            op, _, role = key.partition(" ")
            if "::" not in op or role not in ROLES:
                raise ConfigurationError(
                    f"{key!r} is not an op and a role",
                    why=f"a key is an op of the dialect, a space, and one of {', '.join(ROLES)}",
                    fix="Write, for example, 'quant::int weight'.",
                )
            if not isinstance(support, QuantSupport):
                raise ConfigurationError(
                    f"{key!r} is mapped to {support!r}",
                    why="what a target takes of an op and role is a QuantSupport",
                    fix="Write, for example, QuantSupport(bit_widths=range(2, 9)).",
                )
        object.__setattr__(self, "quant", MappingProxyType(dict(self.quant)))
        if self.aten is not None:
            object.__setattr__(self, "aten", _frozen("aten", self.aten))


def _frozen(name: str, given: Any) -> frozenset[Any]:
    if isinstance(given, str) or not isinstance(given, Collection):
        raise ConfigurationError(
            f"{name}={given!r} is not a collection",
            why=f"it holds every value that the target takes, got a {type(given).__name__}",
            fix=f"Write {{{given!r}}} for this value alone.",
        )
    if not given:
        raise ConfigurationError(
            f"{name} is empty",
            why="a target that takes no value of it takes nothing at all",
            fix="Leave the op and role out of the capabilities.",
        )
    return frozenset(given)


def _check_bit_widths(widths: Collection[int]) -> None:
    for width in sorted(widths, key=repr):
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ConfigurationError(
                f"bit_widths holds {width!r}",
                why="a bit width is an integer of 1 or more",
                fix="Write, for example, range(2, 9) for 2 to 8 bits.",
            )


def _check_words(name: str, words: Collection[Any], known: Collection[Any]) -> None:
    for word in sorted(words, key=repr):
        if not any(word is one or (isinstance(word, str) and word == one) for one in known):
            raise ConfigurationError(
                f"{name}={word!r} is not known",
                why=f"it is one of {', '.join(map(str, known))}",
                fix="Choose one of these.",
            )
