"""The options of the targets, validated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from quant_core.errors import ConfigurationError
from quant_core.export.onnx import check_opset

OPSETS: Final = range(13, 26)
"""The versions of the standard operators that both targets write."""
WIDE: Final = 21
"""The version from which integers of 16 and of 4 bits, and scales of blocks, can be written."""
NARROWEST: Final = 25
"""The version from which integers of 2 bits can be written."""


@dataclass(frozen=True, kw_only=True)
class QcdqOptions:
    """How a file of the target ``qcdq`` is written.

    Attributes:
        opset_version: the version of the standard operators, 13 to 25.
        packed: store weights of up to 4 bits two in a byte, and of up to 2 bits four in a byte from opset 25 on. Needs opset 21.
        exact_ties: round activations with a zero-point other than 0 by an explicit sequence. It is exact also halfway between two
            levels, and runtimes do not fuse it.
        tensorrt: keep to what TensorRT reads: signed integers of 8 bits without ``Clip``, biases as floats.
        fill_channels: give convolutions input channels of zeros up to a multiple of four, for which onnxruntime is faster.

    Raises:
        ConfigurationError: for a version that there is not, options that exclude each other, or a value that is no truth value.
    """

    opset_version: int = 18
    packed: bool = False
    exact_ties: bool = False
    tensorrt: bool = False
    fill_channels: bool = False

    def __post_init__(self) -> None:
        check_opset(self.opset_version, OPSETS)
        for name in ("packed", "exact_ties", "tensorrt", "fill_channels"):
            _check_truth(name, getattr(self, name))
        if self.packed and self.opset_version < WIDE:
            raise ConfigurationError(
                f"packed=True cannot be written with opset_version={self.opset_version}",
                why=f"integers of 4 bits came with opset {WIDE}",
                fix=f"Set opset_version={WIDE}, or leave packed out.",
            )
        for name in ("packed", "exact_ties"):
            if self.tensorrt and getattr(self, name):
                raise ConfigurationError(
                    f"tensorrt=True and {name}=True exclude each other",
                    why="TensorRT reads signed integers of 8 bits, rounded by QuantizeLinear",
                    fix="Leave one of them out.",
                )

    def described(self) -> dict[str, Any]:
        """Each option with its value."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class QopOptions:
    """How a file of the target ``qop`` is written.

    Attributes:
        opset_version: the version of the standard operators, 13 to 25.
        unsigned_weights: write weights as uint8 also where they are signed, with the zero-point moved by 128. On x86 processors
            without int8 dot products, sums of products of uint8 and int8 may saturate; those of uint8 and uint8 do not.
        fill_channels: give convolutions input channels of zeros up to a multiple of four, for which onnxruntime is faster.

    Raises:
        ConfigurationError: for a version that there is not, or a value that is no truth value.
    """

    opset_version: int = 18
    unsigned_weights: bool = False
    fill_channels: bool = False

    def __post_init__(self) -> None:
        check_opset(self.opset_version, OPSETS)
        for name in ("unsigned_weights", "fill_channels"):
            _check_truth(name, getattr(self, name))

    def described(self) -> dict[str, Any]:
        """Each option with its value."""
        return asdict(self)


def _check_truth(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(
            f"{name}={value!r} is not a truth value",
            why=f"it is True or False, got a {type(value).__name__}",
            fix=f"Write {name}=True or {name}=False.",
        )
