"""Weight equalization: channels that one layer makes large and the next one small again are made alike.

Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, section 4.1; and Meller et al.,
"Same, same but different: recovering neural network quantization error through weight factorization", ICML 2019.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_core.export import capture
from quant_core.proxies import QuantProxy
from quant_nn.calibration.batches import Forward, arguments, eager, no_data, run
from quant_nn.calibration.calibrate import calibrate
from quant_nn.calibration.calibrators import Rule
from quant_nn.calibration.noise import output_noise
from quant_nn.calibration.places import Place, places
from quant_nn.calibration.report import table_text
from quant_nn.correction.chains import Chain, chains
from quant_nn.correction.channels import along, ranges
from quant_nn.correction.data import check_calibrated, repeatable

STRENGTHS: Final = (0.25, 0.5, 0.75, 1.0)
"""What is tried."""
_SWEEPS = 20
_CLOSE = 1e-3
"""Of the logarithm of a factor."""


@dataclass(frozen=True, kw_only=True)
class Equalization:
    """What was equalized; prints as a table.

    Attributes:
        strength: the exponent of the factors: 1 for those of the paper, 0 where the model is best as it was.
        sqnr: by strength, that of the output of the model in decibels.
        factors: by the two layers of each pair, what each channel of the first was divided by, ``(C,)``.
        left: pairs that were left, each with the reason.
    """

    strength: float
    sqnr: dict[float, float]
    factors: dict[tuple[str, str], Tensor]
    left: dict[tuple[str, str], str]

    def __str__(self) -> str:
        rows = [
            (first, second, f"{s.min().item():.3g}", f"{s.max().item():.3g}")
            for (first, second), s in self.factors.items()
        ]
        table = table_text(("layer", "next layer", "smallest factor", "largest factor"), rows)
        left = [f"left: {first}, {second}: {reason}" for (first, second), reason in self.left.items()]
        gain = f"SQNR {self.sqnr[0.0]:.1f} dB before, {self.sqnr[self.strength]:.1f} dB after"
        head = f"equalized with strength {self.strength:g}; pairs of layers: {len(rows)}; {gain}"
        return "\n".join([head, table, *left])


def equalize(
    model: nn.Module,
    data: Iterable[Any],
    method: str | Rule = "auto",
    *,
    progress: bool | None = None,
    forward: Forward = run,
    **options: Any,
) -> Equalization:
    """Divide each channel ``i`` of a layer by ``s_i`` and multiply the weights that read it in the next one by ``s_i``:

        s_i = √(r1_i / r2_i)^strength,    r1_i = max|W1_i|,    r2_i = max|W2_:i|

    With strength 1 the range of both is ``√(r1_i · r2_i)``, so that no channel wastes levels of a scale that it shares, as in the
    paper. That ignores how much each channel matters, and can do harm where ranges are even already. Therefore several strengths
    are tried, 0 among them, and the one is kept with which the output of the model comes nearest to full precision on the data.

    Between the two layers there may be what keeps positive factors: ReLU, pools, flattening, quantizers whose range comes from
    data; convolutions may have groups, such as depthwise ones. In float the model computes the same. Pairs overlap, so that
    factors are found by going through them until nothing changes. Quantizers of activations are calibrated again. Which layer
    is read by which is read off a capture of the model.

    Args:
        model: a calibrated model; weights, biases and ranges are changed in place, or nothing when something fails.
        data: batches, as for :func:`quant_nn.calibrate`; the first one is the example for the capture.
        method: how to calibrate, and ``options`` of it.
        progress: whether there is a progress bar; by default where standard error is a terminal.
        forward: ``forward(model, batch)`` runs the model on batches of another form, for calibrating. The first batch must be of
            a form that needs none.

    Raises:
        StateError: when the model is not calibrated.
        ConfigurationError: when there is no pair of layers.
        CaptureError: when ``torch.export`` cannot capture the model.

    >>> import quant_nn as qnn
    >>> net = nn.Sequential(qnn.QuantLinear(2, 2), nn.ReLU(), qnn.QuantLinear(2, 1)).eval()
    >>> _ = net[0].weight.data.copy_(torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
    >>> _ = net[2].weight.data.copy_(torch.tensor([[1.0, 4.0]]))
    >>> equalize(net, [torch.tensor([[0.3, 0.7]])]).factors
    {('0', '2'): tensor([2.0000, 0.5000])}
    """
    model = eager(model)
    check_calibrated(model, "weight equalization")
    batches = repeatable(data, model)
    args, kwargs = _example(model, batches)
    calibratable = _places(model)
    known = {id(proxy): place for place in calibratable for proxy in place.proxies}
    found = list(chains(model, capture(model, args, kwargs)))
    left = {
        (chain.first, chain.second): reason for chain in found if (reason := _unfit(model, chain, known)) is not None
    }
    chosen = [chain for chain in found if (chain.first, chain.second) not in left]
    if not chosen:
        raise ConfigurationError(
            "there is nothing to equalize",
            where=type(model).__name__,
            why="; ".join(f"{first} and {second}: {reason}" for (first, second), reason in left.items())
            or "no layer of the model is read by one other layer only, with nothing but ReLU, pools and flattening between",
            fix="Fold batch normalizations first, with fold_batch_norms(), or use weight_scaling_per_output_channel=True.",
        )
    before = copy.deepcopy(model.state_dict())
    names = [place.name for place in calibratable]

    def applied(strength: float) -> float:
        """How far the output is from full precision with factors of this strength."""
        model.load_state_dict(before)
        if strength > 0:
            _apply(model, chosen, factors, strength)
            if names:
                calibrate(model, batches, method, only=names, again=True, progress=progress, forward=forward, **options)
        return output_noise(model, batches, forward).sqnr

    try:
        factors = _factors(model, chosen)
        sqnr = {strength: applied(strength) for strength in (0.0, *STRENGTHS)}
        best = max(sqnr, key=sqnr.__getitem__)
        applied(best)
    except BaseException:
        model.load_state_dict(before)
        raise
    return Equalization(strength=best, sqnr=sqnr, factors={key: s**best for key, s in factors.items()}, left=left)


@torch.no_grad()
def _factors(model: nn.Module, pairs: list[Chain]) -> dict[tuple[str, str], Tensor]:
    """The factors with which the channels of all pairs are alike, found on a copy of the weights."""
    layers: dict[str, Any] = {path: model.get_submodule(path) for pair in pairs for path in (pair.first, pair.second)}
    weights = {path: layer.weight.detach().clone() for path, layer in layers.items()}
    total: dict[tuple[str, str], Tensor] = {}
    for _ in range(_SWEEPS):
        largest = 0.0
        for pair in pairs:
            one, other = layers[pair.first], layers[pair.second]
            first, second = weights[pair.first], weights[pair.second]
            first_range = ranges(one, first, outputs=True)
            second_range = ranges(other, second, outputs=False).reshape(-1, pair.repeats).amax(1)
            factor = (first_range / second_range).sqrt()
            factor = torch.where(torch.isfinite(factor) & (factor > 0), factor, 1.0)  # a channel that is 0 stays
            first.div_(along(factor, one, first, outputs=True))
            second.mul_(along(factor.repeat_interleave(pair.repeats), other, second, outputs=False))
            key = (pair.first, pair.second)
            total[key] = factor * total[key] if key in total else factor
            largest = max(largest, float(factor.log().abs().max()))
        if largest < _CLOSE:
            break
    return total


@torch.no_grad()
def _apply(model: nn.Module, pairs: list[Chain], factors: dict[tuple[str, str], Tensor], strength: float) -> None:
    for pair in pairs:
        first: Any = model.get_submodule(pair.first)
        second: Any = model.get_submodule(pair.second)
        factor = factors[pair.first, pair.second] ** strength
        first.weight.div_(along(factor, first, first.weight, outputs=True))
        if first.bias is not None:
            first.bias.div_(factor)
        second.weight.mul_(along(factor.repeat_interleave(pair.repeats), second, second.weight, outputs=False))
    for path in dict.fromkeys(path for pair in pairs for path in (pair.first, pair.second)):
        weight_quant = getattr(model.get_submodule(path), "weight_quant", None)
        if isinstance(weight_quant, QuantProxy):
            weight_quant.init_tensor_quant()  # what is learned starts again from the new weight


def _unfit(model: nn.Module, chain: Chain, known: dict[int, Place]) -> str | None:
    """Why a pair is left as it is."""
    fixed = [path for path in chain.quantizers if id(model.get_submodule(path)) not in known]
    if fixed:
        return f"the range of {', '.join(fixed)} between them does not come from data"
    return None


def _places(model: nn.Module) -> list[Place]:
    """What is to be calibrated again; nothing where only weights are quantized."""
    try:
        return places(model, again=True)
    except ConfigurationError:
        return []


def _example(model: nn.Module, batches: Iterable[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for batch in batches:
        return arguments(model, batch)
    raise no_data(type(model).__name__)
