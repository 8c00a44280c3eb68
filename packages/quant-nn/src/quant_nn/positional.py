"""What a model is called with, of inputs that are one or a tuple of several."""

from __future__ import annotations

from typing import Any

from torch.nn.utils.rnn import PackedSequence


def positional(inputs: Any) -> tuple[Any, ...]:
    """The elements of a tuple, or one input: packed sequences are one, though their type is a tuple.

    >>> import torch
    >>> positional(("x", "state")), positional("x")
    (('x', 'state'), ('x',))
    >>> packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2, 3), torch.ones(1, 3)])
    >>> len(positional(packed)), len(positional((packed, "state")))
    (1, 2)
    """
    return inputs if isinstance(inputs, tuple) and not isinstance(inputs, PackedSequence) else (inputs,)
