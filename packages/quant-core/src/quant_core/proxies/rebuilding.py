"""What outlives the quantizer that it was part of, when another is built in its place."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from quant_core.inject import Injector
from quant_core.inject.attributes import find, names_of


def given_instances(injector: type[Injector], modules: Iterable[nn.Module]) -> dict[str, nn.Module]:
    """The components that were given as instances, to be shared by several quantizers.

    A proxy remembers them, because its copies build again with the copies of them and not with what the injector holds.
    """
    used = {id(module) for module in modules}
    found = {name: find(injector, name) for name in names_of(injector)}
    return {name: hit[1] for name, hit in found.items() if hit is not None and id(hit[1]) in used}


def keep_identity(old: nn.Module, new: nn.Module) -> None:
    """Let the parameters of ``old`` live on in ``new`` where name and shape agree, with the values of ``new``."""
    known = dict(old.named_parameters(remove_duplicate=False))
    for name, parameter in list(new.named_parameters(remove_duplicate=False)):  # tied parameters stay tied
        kept = known.get(name)
        if kept is None or kept.shape != parameter.shape:
            continue
        with torch.no_grad():
            kept.copy_(parameter)
        owner, _, leaf = name.rpartition(".")
        setattr(new.get_submodule(owner), leaf, kept)
