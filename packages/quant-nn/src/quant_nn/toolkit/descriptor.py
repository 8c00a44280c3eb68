"""How one tensor is quantized, in NVIDIA's words: a compact spelling of one of our quantizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Final

import torch
from torch import Tensor

from quant_core.errors import ConfigurationError, did_you_mean
from quant_nn.toolkit.functions import check_num_bits

CALIB_METHODS: Final = ("max", "histogram", "entropy", "percentile", "mse")


@dataclass(frozen=True, kw_only=True)
class QuantDescriptor:
    """How one tensor is quantized. It is a value: it can be compared, hashed, pickled, and written as YAML.

    Attributes:
        num_bits: number of bits, from 2 to 32.
        name: a name for the tensor, shown in errors.
        axis: the axis with a scale for each index; ``None`` for one scale. As ``amax`` it is what *remains*, and not what is
            reduced.
        amax: the largest magnitude, a number or, with an axis, one for each index; without it, calibration finds it, and until
            then each tensor has its own.
        learn_amax: whether training changes it.
        scale_amax: what it is multiplied by.
        calib_method: how ``load_calib_amax()`` finds it: ``"max"``, ``"entropy"``, ``"percentile"`` or ``"mse"``; or
            ``"histogram"``, which leaves the choice of the last three to that call.
        unsigned: whether the integers start at 0.
        narrow_range: leave out the smallest of signed integers.
        fake_quant: whether the result is a float, and not the integer that stands for it.

    Raises:
        ConfigurationError: when a field is not as said.

    >>> QuantDescriptor(num_bits=4, axis=(0,)).axis
    0
    """

    num_bits: int = 8
    name: str | None = None
    axis: int | None = None
    amax: float | tuple[float, ...] | None = None
    learn_amax: bool = False
    scale_amax: float | None = None
    calib_method: str = "max"
    unsigned: bool = False
    narrow_range: bool = False
    fake_quant: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_bits", check_num_bits(self.num_bits, where=self.place))
        object.__setattr__(self, "axis", self._checked_axis(self.axis))
        object.__setattr__(self, "amax", self._checked_amax(self.amax))
        for name in ("learn_amax", "unsigned", "narrow_range", "fake_quant"):
            if not isinstance(getattr(self, name), bool):
                raise self._wrong(name, "it is either on or off", "Set it to True or False.")
        if self.name is not None and not isinstance(self.name, str):
            raise self._wrong("name", "a name is a string", "Write the name of the tensor, or leave it out.")
        if self.calib_method not in CALIB_METHODS:
            known = ", ".join(CALIB_METHODS)
            raise self._wrong(
                "calib_method", f"the methods are {known}", did_you_mean(str(self.calib_method), CALIB_METHODS)
            )
        if self.scale_amax is not None:
            if not _is_positive(self.scale_amax):
                raise self._wrong("scale_amax", "a factor of amax is positive and finite", "Use a number such as 0.9.")
            object.__setattr__(self, "scale_amax", float(self.scale_amax))
        if self.unsigned and self.narrow_range:
            raise self._wrong(
                "narrow_range",
                "it makes signed integers symmetric, and unsigned=True",
                "Leave narrow_range or unsigned out.",
            )
        if self.learn_amax and not self.fake_quant:
            raise self._wrong("learn_amax", "integers carry no gradient to amax", "Set fake_quant=True.")

    @property
    def place(self) -> str:
        """What errors call it."""
        return "QuantDescriptor" if self.name is None else f"QuantDescriptor {self.name!r}"

    @property
    def threshold(self) -> float | tuple[float, ...] | None:
        """``amax · scale_amax``."""
        factor = 1.0 if self.scale_amax is None else self.scale_amax
        if self.amax is None:
            return None
        return tuple(one * factor for one in self.amax) if isinstance(self.amax, tuple) else self.amax * factor

    def to_yaml(self) -> str:
        """The fields that differ from their default, as YAML; ``{}`` when none does.

        Raises:
            ConfigurationError: when pyyaml is not installed.

        >>> print(QuantDescriptor(num_bits=4, axis=0, amax=[1.0, 2.0]).to_yaml(), end="")
        amax:
        - 1.0
        - 2.0
        axis: 0
        num_bits: 4
        """
        defaults = asdict(QuantDescriptor())
        written = {name: field for name, field in asdict(self).items() if field != defaults[name]}
        if isinstance(self.amax, tuple):
            written["amax"] = list(self.amax)
        return str(_yaml().safe_dump(written))

    @classmethod
    def from_yaml(cls, text: str) -> QuantDescriptor:
        """The descriptor that :meth:`to_yaml` wrote.

        Raises:
            ConfigurationError: when the text is not YAML, has another field, or pyyaml is not installed.

        >>> QuantDescriptor.from_yaml("num_bits: 4").num_bits
        4
        """
        yaml = _yaml()
        try:
            read = yaml.safe_load(text)
        except yaml.YAMLError as failure:
            raise _not_yaml(str(failure).splitlines()[0]) from failure
        if not isinstance(read, dict):
            raise _not_yaml(f"it holds a {type(read).__name__}, and a descriptor is a mapping")
        known = [field.name for field in fields(cls)]
        unknown = next((name for name in read if name not in known), None)
        if unknown is not None:
            raise ConfigurationError(
                f"a QuantDescriptor has no field {unknown!r}",
                why=f"its fields are {', '.join(known)}",
                fix=did_you_mean(str(unknown), known),
            )
        return cls(**read)

    def _checked_axis(self, axis: Any) -> int | None:
        if isinstance(axis, (tuple, list)) and len(axis) == 1:
            axis = axis[0]
        if axis is None:
            return None
        if isinstance(axis, bool) or not isinstance(axis, Integral):
            raise self._wrong(
                "axis", "one axis may have a scale for each index", "Give one axis, such as 0, or None for one scale."
            )
        return int(axis)

    def _checked_amax(self, amax: Any) -> float | tuple[float, ...] | None:
        if amax is None:
            return None
        if isinstance(amax, Tensor) or not isinstance(amax, (str, Sequence, Real)):
            amax = self._listed(amax)
        several = isinstance(amax, Sequence) and not isinstance(amax, str)
        if not (all(map(_is_positive, amax)) and len(amax) > 0 if several else _is_positive(amax)):
            why = "a largest magnitude is a positive and finite number"
            raise self._wrong("amax", why, "Leave it out to calibrate it.")
        if several and self.axis is None:
            raise self._wrong("amax", "without an axis there is one", "Give axis, or one number.")
        return tuple(float(one) for one in amax) if several else float(amax)

    def _listed(self, amax: Any) -> Any:
        """A tensor or an array as a number or a list of numbers."""
        try:
            found = torch.as_tensor(amax, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise self._wrong(
                "amax", "it is a number, or a list, tensor or array of them", "Write 1.0, for example."
            ) from None
        return found.flatten().tolist() if found.dim() else found.item()

    def _wrong(self, name: str, why: str, fix: str) -> ConfigurationError:
        return ConfigurationError(f"{name}={getattr(self, name)!r} is not possible", where=self.place, why=why, fix=fix)


def _is_positive(number: Any) -> bool:
    return isinstance(number, Real) and not isinstance(number, bool) and 0 < float(number) < math.inf


def _not_yaml(why: str) -> ConfigurationError:
    return ConfigurationError(
        "the text describes no quantizer", why=why, fix="Write it with QuantDescriptor.to_yaml(), or as 'num_bits: 8'."
    )


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as missing:
        raise ConfigurationError(
            "descriptors cannot be written as YAML",
            why="pyyaml is not installed",
            fix="Install it: pip install 'quant-nn[yaml]'.",
        ) from missing
    return yaml
