"""What hangs on a layer besides its tensors, and moves to the one in its place: hooks, and attributes that users have set."""

from __future__ import annotations

import weakref
from typing import Final

from torch import nn

_HOOKS: Final = (
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_load_state_dict_post_hooks",
    "_load_state_dict_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
)
_OF_RECURRENT: Final = frozenset({"_all_weights", "_flat_weight_refs", "_flat_weights", "_flat_weights_names"})
"""What torch's recurrent layers note of their own parameters; the weak references among it cannot be pickled."""


def carry_over(layer: nn.Module, built: nn.Module) -> None:
    """Move hooks and further attributes of a float layer to the quantized one in its place.

    The tables of hooks are the same objects, so that the handles of the float layer remove them from the quantized one.

    >>> float_layer, quantized = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> handle = float_layer.register_forward_hook(lambda *call: print("called"))
    >>> carry_over(float_layer, quantized)
    >>> handle.remove()
    >>> len(quantized._forward_hooks)
    0
    """
    for name in _HOOKS:
        hooks, own = getattr(layer, name), getattr(built, name)
        for hook in hooks.values():
            if isinstance(getattr(hook, "module", None), weakref.ref):  # it calls back with its module
                hook.module = weakref.ref(built)
        hooks.update(own)
        setattr(built, name, hooks)
    built._is_full_backward_hook = layer._is_full_backward_hook
    for name, attribute in vars(layer).items():
        if name not in vars(built) and not hasattr(type(built), name) and name not in _OF_RECURRENT:
            setattr(built, name, attribute)
