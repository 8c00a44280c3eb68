"""The errors that a user can meet, each built from fields and printed in four parts.

Every error of this project derives from :class:`QuantError` and answers four questions, one line each: *what* happened,
*where* (a module path, a file, a node), *why* (the constraint and the actual value) and *what to do* about it.

Example:
    >>> print(ConfigurationError("bit_width=1 is too small for an integer quantizer", where="features.0.weight_quant",
    ...                          why="a signed integer needs at least 2 bits, got 1",
    ...                          fix="Use a binary quantizer for one bit, or set bit_width to 2 or more."))
    bit_width=1 is too small for an integer quantizer
      at features.0.weight_quant
      a signed integer needs at least 2 bits, got 1
      Use a binary quantizer for one bit, or set bit_width to 2 or more.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class QuantError(Exception):
    """Base of all errors that this project raises on bad input.

    Args:
        what: one sentence that states what went wrong, with the offending value.
        where: the module path, node, file or distribution concerned; ``None`` when there is only one place it can be.
        why: the constraint that was broken and the actual value.
        fix: what the user can do, as an instruction.
    """

    def __init__(self, what: str, *, where: str | None = None, why: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        place = [f"at {self.where}"] if self.where else []
        return "\n  ".join([self.what, *place, *self.why.splitlines(), *self.fix.splitlines()])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())

    def at(self, where: str) -> QuantError:
        """The same error with its place filled in; a place that is already known is kept and prefixed."""
        self.where = where if not self.where else f"{where}: {self.where}"
        return self


def _rebuild(kind: type[QuantError], fields: dict[str, Any]) -> QuantError:
    error = kind.__new__(kind)
    Exception.__init__(error, fields["what"])
    error.__dict__.update(fields)
    return error


class InjectionError(QuantError):
    """An injector cannot be wired: something is missing, unused, cyclic or of the wrong kind."""


class MissingDependencyError(InjectionError):
    """Nothing provides a name that a component asks for; the message holds the whole chain that asked."""


class UnusedAttributeError(InjectionError):
    """A keyword or an injector attribute that nothing consumes; the message holds the nearest known name."""


class ConfigurationError(QuantError, ValueError):
    """Values that contradict each other or lie outside what a quantizer or layer can do."""


class InputError(QuantError, ValueError):
    """A tensor that an operation cannot take: its shape, dtype, values or quantization metadata do not fit.

    Where a model is running, the place is the path of the layer in it, followed by the ``where`` that is given.
    """

    def __init__(self, what: str, *, where: str | None = None, why: str, fix: str) -> None:
        from quant_core.running import running_layer  # torch, which errors of other kinds do without

        super().__init__(what, where=running_layer(where), why=why, fix=fix)


class StateError(QuantError, RuntimeError):
    """A checkpoint that does not fit the quantizers of the model."""


class ExportError(QuantError):
    """Base of what can go wrong on the way from a model to an artifact."""


class CaptureError(ExportError):
    """``torch.export`` cannot capture the model."""


class SpecError(ExportError):
    """A captured program breaks a rule of the ``quant::`` dialect."""


class UnsupportedError(ExportError):
    """The target cannot take the program.

    Attributes:
        refusals: every refusal, not the first one only.
    """

    refusals: tuple[Any, ...] = ()


class LoweringError(ExportError):
    """A target accepted the program and then failed to write it; a defect of the target, never of the model."""


class VerificationError(ExportError):
    """The artifact computes something else than the model."""


class ArtifactError(ExportError, OSError):
    """An artifact cannot be written or run."""


class PluginError(QuantError):
    """A plugin is broken, incompatible or in conflict with another one."""


class UnknownNameError(QuantError, LookupError):
    """A target, quantizer, option or word that nobody registered; the message holds the nearest known one."""


class LoadError(QuantError):
    """A model or a weights file that cannot be loaded."""


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """The known names closest to ``name``, best first, else the few that start with it; empty when none is close.

    >>> nearest("weight_bit_widht", ["weight_bit_width", "bias_quant", "bit_width"])
    ['weight_bit_width', 'bit_width']
    >>> nearest("opset", ["opset_version", "packed"])
    ['opset_version']
    """
    names = sorted(set(known))
    longer = [word for word in names if len(name) > 2 and word.startswith(name)]
    return difflib.get_close_matches(name, names, n=most, cutoff=0.6) or (longer if len(longer) <= most else [])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """An instruction that offers the nearest names, or lists all of them when none is near.

    >>> did_you_mean("qdcq", ["qcdq", "finn"])
    "Did you mean 'qcdq'?"
    """
    names = sorted(set(known))
    close = nearest(name, names)
    if close:
        return "Did you mean " + " or ".join(repr(word) for word in close) + "?"
    return "Known names: " + (", ".join(names) or "none") + "."
