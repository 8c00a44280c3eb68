"""What every target that writes ONNX files asks of a program and of its options."""

from __future__ import annotations

from typing import Final

import torch

from quant_core.errors import ConfigurationError, UnsupportedError
from quant_core.export.program import Program, is_quantizer

OPSETS: Final = range(18, 22)
"""The versions of the standard operators that can be written."""


def check_opset(version: object) -> None:
    """Refuse a version of the standard operators that cannot be written.

    Raises:
        ConfigurationError: names the versions that can.
    """
    if version not in OPSETS:
        raise ConfigurationError(
            f"opset_version={version!r} cannot be written",
            why=f"torch's exporter writes {OPSETS[0]} and later, and this target knows up to {OPSETS[-1]}",
            fix=f"Use {OPSETS[0]}, which every current runtime reads.",
        )


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
