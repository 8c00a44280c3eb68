"""The float dtype of what is quantized: the file computes in float32, and no other dtype is converted silently."""

from __future__ import annotations

import torch

from quant_core.errors import UnsupportedError
from quant_core.export import Program, is_quantizer


def check_precision(program: Program) -> None:
    """Refuse a program that quantizes tensors of another dtype than float32.

    Raises:
        UnsupportedError: names the dtypes, the first place and the number of quantizers concerned.
    """
    dtypes = {node.name: node.meta["val"].dtype for node in program.graph.nodes if is_quantizer(node)}
    others = [quantizer for quantizer in program.quantizers if dtypes[quantizer.name] != torch.float32]
    if not others:
        return
    names = sorted({str(dtypes[quantizer.name]).removeprefix("torch.") for quantizer in others})
    raise UnsupportedError(
        f"target 'qcdq' cannot lower quantizers of {' and '.join(names)}",
        where=str(others[0].where),
        why=f"qcdq writes float32, and {len(others)} of the model's {len(dtypes)} quantizers compute in another dtype; "
        "converting them would move values across rounding borders",
        fix="Convert the model and its inputs first: model.float(), x.float().",
    )
