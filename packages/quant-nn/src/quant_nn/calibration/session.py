"""Calibration in steps: collect, perhaps in several runs or processes, and then set all ranges at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components.step_counter import StepCounter
from quant_core.errors import ConfigurationError, StateError
from quant_core.export.eval_mode import in_eval_mode
from quant_nn.calibration.batches import Forward, eager, no_data, progressing, run
from quant_nn.calibration.calibrators import Calibrator, Rule
from quant_nn.calibration.levels import Levels
from quant_nn.calibration.methods import STATISTICS, method_of
from quant_nn.calibration.observing import Observer, quantizers
from quant_nn.calibration.own_statistics import OwnStatistics
from quant_nn.calibration.places import Place, places, threshold_of
from quant_nn.calibration.reduction import check_all_well, process_count, reduce, share_failure
from quant_nn.calibration.report import Calibrated, CalibrationReport


class Calibration:
    """Finds the ranges of all quantizers that take them from data.

    While :meth:`collecting`, the model computes in eval mode and in full precision. Nothing about it changes before
    :meth:`finish`, which sets all ranges, or none if one cannot be found.

    Args:
        model: any model.
        method: one of ``METHODS``, or a rule of one's own.
        bins: of histograms.
        only: the paths of the quantizers to calibrate; all by default.
        again: whether those that are calibrated already are taken too.
        options: options of the method, such as ``percentile``.

    Attributes:
        batches: how many batches were collected by :meth:`collect`; what to skip after an interruption.
        calibrators: what was collected, by the path of the quantizer.

    Raises:
        UnknownNameError: when the method or a name in ``only`` is unknown.
        ConfigurationError: when there is nothing to calibrate, or the method cannot calibrate a quantizer.
        StateError: when a quantizer is calibrated already.

    >>> import quant_nn as qnn
    >>> act = qnn.QuantReLU()
    >>> calibration = Calibration(act, "max")
    >>> with calibration.collecting():
    ...     _ = act(torch.tensor([1.0, 2.55]))
    >>> calibration.finish().thresholds["act_quant"].item(), act.act_quant.scale().item()
    (2.549999952316284, 0.009999999776482582)
    """

    def __init__(
        self,
        model: nn.Module,
        method: str | Rule = "auto",
        *,
        bins: int | None = None,
        only: Iterable[str] | None = None,
        again: bool = False,
        **options: Any,
    ) -> None:
        self.model = model = eager(model)
        self.method = method_of(method, bins, **options)
        self.batches = 0
        self.calibrators: dict[str, Calibrator] = {}
        self._places = places(model, only, again=again)
        left = [place for place in self._places if self.method.leaves(Levels.of_quant(place.quant))]
        self._left = {place.name for place in left}
        self._own = OwnStatistics(left)
        for place in self._places:
            if place.name not in self._left:
                self._check(place)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Look at all tensors that reach the quantizers, for the length of a block in which the model is run."""
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(in_eval_mode(self.model))
            self._own.begin()  # leaving eval mode brings back the modes of all modules
            collectors = {id(proxy): place for place in self._places for proxy in place.proxies}
            for proxy in quantizers(self.model).values():
                place = collectors.get(id(proxy))
                stack.enter_context(self._observer(place).on(proxy))
            yield

    def collect(self, data: Iterable[Any], *, progress: bool | None = None, forward: Forward = run) -> None:
        """Run the model on all batches.

        Args:
            data: any iterable of tensors, of tuples of arguments, or of mappings of keywords.
            progress: whether there is a progress bar; by default where standard error is a terminal.
            forward: ``forward(model, batch)`` runs the model, where batches are of another form.

        Raises:
            InputError: when a tensor holds infinities or NaN, or there is no data.
        """
        before = self.batches
        with share_failure(), self._undone_when_it_fails(), self.collecting():
            for batch in progressing(data, "calibrating", progress):
                forward(self.model, batch)
                self.batches += 1
            if self.batches == before and process_count() == 1:
                raise no_data(type(self.model).__name__)

    def finish(self) -> CalibrationReport:
        """Set all ranges; with several processes those of all data of all of them, on each.

        Raises:
            StateError: when a quantizer has seen no data; names it.
        """
        check_all_well()
        batches = reduce(self.calibrators, self._empty_calibrator, self.batches)
        with self._undone_when_it_fails(), torch.no_grad():
            self._check_seen()
            thresholds = {
                place.name: self.calibrators[place.name].threshold(Levels.of_quant(place.quant))
                for place in self._places
                if place.name not in self._left
            }
        self._own.finish()
        rows = []
        for place in self._places:
            if place.name in self._left:
                found = threshold_of(place.scaling).detach().clone()
                rows.append(Calibrated(name=place.name, threshold=found, largest=None, elements=None))
                continue
            calibrator = self.calibrators[place.name]
            place.scaling.take_threshold(thresholds[place.name])
            rows.append(
                Calibrated(
                    name=place.name,
                    threshold=thresholds[place.name],
                    largest=calibrator.largest.reshape(calibrator.scale_shape),
                    elements=int(calibrator.elements),
                )
            )
        return CalibrationReport(method=self.method.name, batches=batches, quantizers=tuple(rows))

    def state_dict(self) -> dict[str, Any]:
        """What was collected, to go on later; made of tensors and numbers, so that ``torch.load(weights_only=True)`` reads it."""
        kept = {
            name: {"scale_shape": list(calibrator.scale_shape), "state": dict(calibrator.state_dict())}
            for name, calibrator in self.calibrators.items()
        }
        own = self._own.state_dict()
        return {"method": self.method.name, "batches": self.batches, "calibrators": kept, "own": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what another calibration of the same model collected, with the same method.

        Raises:
            StateError: when it was another method or model.
        """
        unknown = set(state["calibrators"]) - {place.name for place in self._places}
        if state["method"] != self.method.name or unknown:
            raise StateError(
                "this state is of another calibration",
                where=", ".join(sorted(unknown)) or None,
                why=f"it was collected for {state['method']!r}"
                + (
                    " and for quantizers that are not calibrated here" if unknown else f", and not {self.method.name!r}"
                ),
                fix="Make the Calibration with the model, the method and the options that it was saved with.",
            )
        self.batches = int(state["batches"])
        self._own.load_state_dict(state["own"])
        for name, kept in state["calibrators"].items():
            self.calibrators[name] = self._empty_calibrator(name, tuple(kept["scale_shape"]))
            self.calibrators[name].load_state_dict(kept["state"])

    def _observer(self, place: Place | None) -> Observer:
        if place is None or place.name in self._left:
            return Observer()
        return Observer(lambda x: self._collect(place, x))

    def _collect(self, place: Place, x: Tensor) -> None:
        calibrator = self.calibrators.get(place.name)
        if calibrator is None:
            shape = tuple(threshold_of(place.scaling, x).shape)
            calibrator = self.calibrators[place.name] = self._empty_calibrator(place.name, shape).to(x.device)
        calibrator.collect(x)

    def _empty_calibrator(self, name: str, shape: tuple[int, ...]) -> Calibrator:
        place = next(place for place in self._places if place.name == name)
        return self.method.calibrator(shape, signed=place.signed)

    def _check(self, place: Place) -> None:
        """A named method finds one threshold; what has a zero-point to be found as well collects its own statistics."""
        self.method.check_levels(Levels.of_quant(place.quant), place.name)
        zero_point = getattr(place.quant, "zero_point_impl", None)
        if isinstance(getattr(zero_point, "collected", None), StepCounter):
            raise ConfigurationError(
                f"the method {self.method.name!r} cannot calibrate this quantizer",
                where=place.name,
                why="it has a zero-point that is to be found in data as well, and the method finds a threshold only",
                fix=f"Use method={STATISTICS!r}, which collects what the quantizer itself asks for.",
            )

    @contextmanager
    def _undone_when_it_fails(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._own.undo()
            raise

    def _has_seen(self, place: Place) -> bool:
        if place.name in self._left:
            return not place.scaling.awaits_data
        return place.name in self.calibrators and not self.calibrators[place.name].empty

    def _check_seen(self) -> None:
        missing = [place.name for place in self._places if not self._has_seen(place)]
        if missing:
            raise StateError(
                "quantizers have seen no data",
                where=", ".join(missing),
                why=f"no tensor reached them in {self.batches} batches; nothing has been calibrated",
                fix="Give data that takes every path through the model, or name the others as only=[…].",
            )
