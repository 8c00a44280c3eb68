"""What torch.export found to hold while it traced a model, and left in the program."""

from __future__ import annotations

from typing import Final

import torch

ASSERTIONS: Final = (torch.ops.aten._assert_tensor_metadata.default, torch.ops.aten._assert_scalar.default)
"""Ops that compute nothing, and need not be lowered."""
