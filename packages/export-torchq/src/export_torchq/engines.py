"""The engines of torch's quantized operators: which there are, which this build of torch has, and computing with one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from quant_core.errors import ConfigurationError

ENGINES: Final = ("x86", "fbgemm", "onednn", "qnnpack")
_NOTICES: Final = (
    r"torch\.quantize_per_tensor, torch\.quantize_per_channel and other quantized tensor creation",
    r"`torch\.jit\.load` is deprecated",
)
"""How torch's notices begin that say of each call what the target says once."""


def engine_of(name: object) -> str:
    """The engine of that name; for ``None`` the one that torch computes with now.

    Raises:
        ConfigurationError: for a name that there is not, or an engine that this build of torch lacks.
    """
    current: str = torch.backends.quantized.engine
    if name is None and current in ENGINES:
        return current
    present: list[str] = [engine for engine in ENGINES if engine in torch.backends.quantized.supported_engines]
    if name not in ENGINES:
        raise ConfigurationError(
            f"engine={name!r} is not known",
            why=f"the engines of torch's quantized operators are {', '.join(ENGINES)}",
            fix=_remedy(present),
        )
    if name not in present:
        raise ConfigurationError(
            f"engine={name!r} is not part of this build of torch {torch.__version__}",
            why=f"it was built with {', '.join(present) or 'none of them'}",
            fix=_remedy(present),
        )
    return str(name)


def _remedy(present: list[str]) -> str:
    if not present:
        return "Use a build of torch for CPUs with quantized operators, or the target pt2e."
    return f"Use one that this build has: {', '.join(present)}."


@contextmanager
def computing_with(engine: str) -> Iterator[None]:
    """Pack and compute with an engine for the length of a block, without torch's notices about quantized tensors.

    >>> with computing_with(engine_of(None)):
    ...     torch.quantize_per_tensor(torch.tensor([0.5]), 0.5, 128, torch.quint8).int_repr()
    tensor([129], dtype=torch.uint8)
    """
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        for notice in _NOTICES:
            warnings.filterwarnings("ignore", message=notice)
        torch.backends.quantized.engine = engine
        try:
            yield
        finally:
            torch.backends.quantized.engine = before
