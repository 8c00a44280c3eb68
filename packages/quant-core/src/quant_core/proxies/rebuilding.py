"""What outlives the quantizer that it was part of, when another is built in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import Any

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
        if kept is None or kept.shape != parameter.shape or (kept.is_meta and not parameter.is_meta):
            continue  # what stands on the meta device keeps no values
        with torch.no_grad():
            kept.copy_(parameter)
        owner, _, leaf = name.rpartition(".")
        setattr(new.get_submodule(owner), leaf, kept)


def build_for(proxy: Any, state_dict: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any]) -> None:
    """Build a quantizer again for the checkpoint that is being loaded, where it depends on a weight or has no numbers yet.

    It has none on the meta device, which it leaves with ``load_state_dict(…, assign=True)``. That assigns what the checkpoint
    holds; constants, which are never saved, and all that the checkpoint of a float model lacks, come from building. They stand
    where the tensors of the checkpoint do, or else on the default device.
    """
    assigns = local_metadata.get("assign_to_params_buffers", False)
    wakes = assigns and any(tensor.is_meta for tensor in chain(proxy.parameters(), proxy.buffers()))
    if not (proxy.rebuilds_on_load or wakes):
        return
    held = [key for key in state_dict if key.startswith(prefix)]
    for key in held:
        state_dict[key] = state_dict[key].clone()  # it may be our own tensor, which building again overwrites
    device = state_dict[held[0]].device if held else torch.get_default_device()
    with torch.device("cpu" if device.type == "meta" else device) if wakes else nullcontext():
        proxy.init_tensor_quant()
