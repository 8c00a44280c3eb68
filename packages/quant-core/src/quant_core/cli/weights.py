"""Loading a weights file into a model, strictly and without running code from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quant_core.errors import LoadError

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 5


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a ``state_dict`` saved with ``torch.save``, also one under the key ``state_dict`` of a checkpoint.

    Raises:
        LoadError: when the file does not exist, is not a weights file, or does not fit the model.
    """
    import torch

    if not path.is_file():
        raise LoadError(
            f"{path} does not exist",
            where=str(path),
            why="the weights are loaded from that file",
            fix="Check the path; it is relative to the current directory.",
        )
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as failure:
        raise LoadError(
            f"{path} is not a weights file",
            where=str(path),
            why=f"torch.load(weights_only=True) raised {type(failure).__name__}",
            fix="Save the weights alone: torch.save(model.state_dict(), path).",
        ) from failure
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise LoadError(
            f"{path} holds no state_dict",
            where=str(path),
            why=f"it holds a {type(state).__name__} that is not a mapping from names to tensors",
            fix="Save the weights alone: torch.save(model.state_dict(), path).",
        )
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as failure:
        problems = [line.strip() for line in str(failure).splitlines()[1:]]
        raise LoadError(
            f"{path} does not fit {type(model).__name__}",
            where=str(path),
            why="\n".join(problems[:_SHOWN]),
            fix="Load the weights that belong to this model.",
        ) from failure
