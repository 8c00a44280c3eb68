"""Remembering in a model how its biases were before they were corrected, so that they are not corrected twice.

What is remembered goes with copies and pickles of the model, but it is no part of a ``state_dict``. It holds as long as a bias is
what correction has made of it: trained or loaded biases are new ones.
"""

from __future__ import annotations

from torch import Tensor, nn

_ATTRIBUTE = "_uncorrected_biases"


def remember(layer: nn.Module, name: str, before: Tensor, corrected: Tensor) -> None:
    """Note that a bias of a layer was corrected.

    >>> import torch
    >>> layer = nn.Linear(1, 2)
    >>> remember(layer, "bias", torch.zeros(2), layer.bias)
    >>> uncorrected(layer, "bias", layer.bias)
    tensor([0., 0.])
    >>> uncorrected(layer, "bias", torch.ones(2))
    tensor([1., 1.])
    """
    known = dict(getattr(layer, _ATTRIBUTE, {}))
    known[name] = (before.detach().clone(), corrected.detach().clone())
    setattr(layer, _ATTRIBUTE, known)


def uncorrected(layer: nn.Module, name: str, bias: Tensor) -> Tensor:
    """The bias as it was before it was corrected; as it is where it was not, or was changed since."""
    found = getattr(layer, _ATTRIBUTE, {}).get(name)
    if found is None:
        return bias.detach().clone()
    before, corrected = (tensor.to(bias) for tensor in found)
    same = before.shape == bias.shape and bool((corrected == bias).all())
    return before.clone() if same else bias.detach().clone()
