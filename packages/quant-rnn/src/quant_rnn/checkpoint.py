"""Checkpoints of another recurrent layer: of other sizes, with other layers or directions, or of another kind."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor, nn

from quant_core.checkpoints.differences import listed, missing, other_shapes, without_place
from quant_core.errors import StateError
from quant_rnn.parameters import Sizes, suffix

_NAME: Final = re.compile(r"(weight_(ih|hh|hr)|bias_(ih|hh))_l\d+(_reverse)?")


def check_checkpoint(state_dict: Mapping[str, Any], prefix: str, layer: nn.Module, sizes: Sizes, named: str) -> None:
    """The float parameters of a checkpoint are those of the layer.

    Names that are missing, or too many, count where the checkpoint is loaded with ``strict=True`` and holds some of the layer's.

    Args:
        state_dict: the checkpoint, which may hold more than this layer.
        prefix: what the names of the layer begin with there.
        layer: the layer.
        sizes: those of the layer.
        named: what the error calls the layer.

    Raises:
        StateError: when they are not; lists the differences.
    """
    given = {
        name: tensor
        for key, tensor in state_dict.items()
        if key.startswith(prefix) and _NAME.fullmatch(name := key.removeprefix(prefix)) and isinstance(tensor, Tensor)
    }
    own = {name: parameter for name, parameter in layer.named_parameters(recurse=False) if _NAME.fullmatch(name)}
    if not given.keys() & own.keys():
        return
    found = list(other_shapes(given, own))
    if _strict():
        found += [*missing(given, own), *without_place(given, own)]
    if found:
        raise StateError(
            "the checkpoint is that of another recurrent layer",
            where=f"{prefix.removesuffix('.')} ({named})" if prefix else named,
            why=listed(found),
            fix=_remedy(given, sizes),
        )


def _remedy(given: Mapping[str, Tensor], sizes: Sizes) -> str:
    """The options with which the layer would fit, as far as the checkpoint tells them."""
    kept = "nothing of this layer was loaded."
    rows, outputs = given["weight_hh_l0"].shape if "weight_hh_l0" in given else (0, 0)
    hidden = given["weight_hr_l0"].shape[1] if "weight_hr_l0" in given else outputs
    if not rows or rows % hidden:
        return f"Build the layer that the checkpoint was made with; {kept}"
    if rows != sizes.gates * hidden:
        counts = f"with {rows // hidden} gates, where this one has {sizes.gates}"
        return f"Build the kind of layer that the checkpoint was made with, {counts}; {kept}"
    layers = next(number for number in range(len(given)) if f"weight_hh{suffix(number, 0)}" not in given)
    found = {
        "input_size": (given["weight_ih_l0"].shape[1] if "weight_ih_l0" in given else sizes.inputs, sizes.inputs),
        "hidden_size": (hidden, sizes.hidden),
        "num_layers": (layers, sizes.layers),
        "bias": ("bias_ih_l0" in given, sizes.bias),
        "bidirectional": ("weight_hh_l0_reverse" in given, sizes.directions == 2),
        "proj_size": (outputs if outputs != hidden else 0, sizes.outputs if sizes.outputs != sizes.hidden else 0),
        "shared_input_hidden_weights": (
            "weight_hh_l0_reverse" in given and "weight_ih_l0_reverse" not in given,
            sizes.shared_input,
        ),
    }
    options = ", ".join(f"{name}={there}" for name, (there, here) in found.items() if there != here)
    return f"Build the layer with {options or 'the options that the checkpoint was made with'}; {kept}"


def _strict() -> bool:
    """Whether the innermost ``load_state_dict`` that is running is a strict one, which torch does not tell those who load."""
    code, frame = nn.Module.load_state_dict.__code__, sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is code:
            return bool(frame.f_locals["strict"])
    return False
