"""Which thresholds of a model calibration is to find."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quant_core.components import Scaling
from quant_core.errors import ConfigurationError, StateError, UnknownNameError, did_you_mean
from quant_core.proxies import QuantProxy
from quant_nn.calibration.observing import quantizers

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Place:
    """A threshold to be found.

    Attributes:
        name: the path of its quantizer, the first one where several share the threshold.
        scaling: what holds it.
        proxies: the quantizers that share it.
    """

    name: str
    scaling: Scaling
    proxies: list[QuantProxy] = field(default_factory=list)

    @property
    def quant(self) -> nn.Module:
        """What quantizes with it."""
        found = self.proxies[0].tensor_quant
        assert isinstance(found, nn.Module)
        return found

    @property
    def signed(self) -> bool:
        """Whether negative elements have magnitudes of their own; those of an accumulator do."""
        return bool(getattr(self.proxies[0], "signed", True))


def places(model: nn.Module, only: Iterable[str] | None = None, *, again: bool = False) -> list[Place]:
    """The thresholds that come from data.

    Args:
        model: any model.
        only: the paths of the quantizers to take; all by default.
        again: whether those that are calibrated already are taken too.

    Raises:
        ConfigurationError: when there is none, or ``only`` is empty or no list.
        StateError: when one is calibrated already.
        UnknownNameError: when ``only`` names none.

    >>> import quant_nn as qnn
    >>> [place.name for place in places(nn.Sequential(qnn.QuantLinear(3, 2), qnn.QuantReLU()))]
    ['1.act_quant']
    """
    found: dict[int, Place] = {}
    for path, proxy in quantizers(model).items():
        for part in proxy.tensor_quant.modules():
            if isinstance(part, Scaling) and part.calibratable:
                found.setdefault(id(part), Place(name=path, scaling=part)).proxies.append(proxy)
    named = {place.name: place for place in found.values()}
    if not named:
        raise ConfigurationError(
            "there is nothing to calibrate",
            where=type(model).__name__,
            why="no quantizer that is on takes its scale from data; those of weights take it from the weight",
            fix="Give layers an activation quantizer such as Int8ActPerTensorFloat, or a QuantDescriptor without amax.",
        )
    chosen = list(named.values()) if only is None else _chosen(only, named)
    done = [place.name for place in chosen if place.scaling.calibrated]
    if done and not again:
        raise StateError(
            "the model is calibrated already",
            where=_listed(done),
            why=f"{len(done)} of {len(chosen)} quantizers have seen data, and what they may have learned since would be lost",
            fix="Pass again=True to calibrate them anew, or the names of the others as only=[…].",
        )
    return chosen


def threshold_of(scaling: Scaling, x: Tensor | None = None) -> Tensor:
    """The threshold that a scaling has in eval mode; asking for it collects nothing.

    Args:
        scaling: any scaling.
        x: the tensor that it is for, where it has none of its own yet.

    >>> from quant_core.components import ConstScaling
    >>> threshold_of(ConstScaling(0.5))
    tensor(0.5000)
    """
    modes = [(part, part.training) for part in scaling.modules()]
    scaling.eval()
    try:
        found: Tensor = scaling(torch.zeros(()) if x is None else x)
        return found
    finally:
        for part, training in modes:
            part.training = training


def _chosen(only: Iterable[str], known: dict[str, Place]) -> list[Place]:
    names = [only] if isinstance(only, str) else list(dict.fromkeys(only))
    if not names or isinstance(only, str):
        raise ConfigurationError(
            f"only={only!r} names no quantizers",
            why="it is a list of the paths of those that are to be calibrated",
            fix=f"Write only=[{(names or list(known))[0]!r}], or leave it out for all.",
        )
    return [_named(name, known) for name in names]


def _named(name: str, known: dict[str, Place]) -> Place:
    if name not in known:
        raise UnknownNameError(
            f"the model has no quantizer {name!r} to calibrate",
            why=f"those that take their scale from data are {_listed(list(known))}",
            fix=did_you_mean(name, known),
        )
    return known[name]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
