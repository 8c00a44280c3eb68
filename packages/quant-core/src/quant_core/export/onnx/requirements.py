"""What every target that writes ONNX files asks of a program and of its options."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import torch

from quant_core.errors import ConfigurationError, UnsupportedError
from quant_core.export.program import Program, is_quantizer

OPSETS: Final = range(18, 22)
"""The versions of the standard operators that every target can write."""
DEFAULT_OPSET: Final = 18
_IR_VERSIONS: Final = {13: 7, 15: 8, 19: 9, 21: 10, 23: 11, 24: 12, 25: 13}
"""From which version of the operators on a file needs which version of the format: that of the release that had both."""


def check_opset(version: object, known: Collection[int] = OPSETS) -> None:
    """Refuse a version of the standard operators that a target cannot write.

    Raises:
        ConfigurationError: names the versions that it can.
    """
    if isinstance(version, bool) or version not in known:
        raise ConfigurationError(
            f"opset_version={version!r} cannot be written",
            why=f"this target writes {min(known)} to {max(known)}",
            fix=f"Use {DEFAULT_OPSET}, which every current runtime reads.",
        )


def ir_version(opset: int) -> int:
    """The version of the format in which a version of the standard operators appeared: a reader of one knows the other.

    >>> ir_version(13), ir_version(18), ir_version(21), ir_version(25)
    (7, 8, 10, 13)
    """
    return max(version for first, version in _IR_VERSIONS.items() if first <= opset)


def check_precision(program: Program, target: str) -> None:
    """Refuse a program that quantizes tensors of another dtype than float32, in which files compute: none is converted silently.

    Raises:
        UnsupportedError: names the dtypes, the first place and the number of quantizers concerned.
    """
    dtypes = {node.name: node.meta["val"].dtype for node in program.graph.nodes if is_quantizer(node)}
    others = [quantizer for quantizer in program.quantizers if dtypes[quantizer.name] != torch.float32]
    if not others:
        return
    names = sorted({str(dtypes[quantizer.name]).removeprefix("torch.") for quantizer in others})
    raise UnsupportedError(
        f"target {target!r} cannot lower quantizers of {' and '.join(names)}",
        where=str(others[0].where),
        why=f"{target} writes float32, and {len(others)} of the model's {len(dtypes)} quantizers compute in another dtype; "
        "converting them would move values across rounding borders",
        fix="Convert the model and its inputs first: model.float(), x.float().",
    )
