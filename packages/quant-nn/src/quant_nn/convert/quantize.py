"""From a float model to a quantized one, layer by layer, without tracing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from quant_core.errors import ConfigurationError, QuantError
from quant_core.export.provenance import public_name
from quant_core.plugins import Registry, load_attribute, registry
from quant_nn.convert.admission import check_arguments, check_model
from quant_nn.convert.building import arguments_of, build
from quant_nn.convert.calls import functional_calls, with_places
from quant_nn.convert.carrying import carry_over
from quant_nn.convert.conversion import Conversion, Left, Replaced
from quant_nn.convert.graph_mode import with_modules
from quant_nn.convert.inference_kernels import call_parts
from quant_nn.convert.matching import Decision, decide
from quant_nn.convert.rule import Rule, label
from quant_nn.convert.rule_errors import check_effective, check_matched
from quant_nn.convert.rule_options import layer_named, resolved
from quant_nn.convert.sharing import share_quantizers
from quant_nn.convert.sites import check_held_once, float_types, sites


def quantize(
    model: nn.Module,
    rules: Rule | Iterable[Rule],
    *,
    inputs: tuple[Any, ...] | None = None,
    graph: bool = False,
    dry_run: bool = False,
    plugins: Registry | None = None,
) -> Conversion:
    """Replace float layers by quantized ones, in place.

    A layer is replaced if a rule is for it. The quantized layer holds the same parameter and buffer objects, so that an
    optimizer goes on training them and tied weights stay tied; it has the hooks, the mode, the device and the dtype of the float
    one, and its parametrizations. A module under several paths is replaced by one module. Values that a quantizer learns start
    from the weights as they are, and for activations from the data of the next training steps.

    The model is changed in place; use ``copy.deepcopy`` to keep it. When an error is raised, nothing has changed. No random
    numbers are drawn.

    Functions and operators in the code of the model are out of reach for rules. With example inputs they are found, and
    reported with their source lines. With ``graph=True`` as well, the model is traced, functions that there is a module for
    become such, and rules are for these modules too; ``result.model`` is then a new ``torch.fx.GraphModule`` and the model that
    was given stays as it is, but shares its parameters.

    Args:
        model: a model of float layers.
        rules: what to replace, and with what; see :class:`Rule`, :func:`recipe` and :func:`read_rules`.
        inputs: example inputs.
        graph: make modules of functions first; takes ``inputs``.
        dry_run: only say what would happen. Everything is checked, and built, but nothing is put in place.
        plugins: the registry whose layers and quantizers take part; the process-wide one by default.

    Raises:
        InputError: when the model is none, or the example inputs do not fit it.
        ConfigurationError: when the model is quantized already, is on the meta device, rules contradict each other, or a layer
            cannot be replaced.
        CaptureError: when there are example inputs, and the model cannot be captured or traced.
        UnknownNameError: when a rule is for no layer, or names a quantizer or layer that nobody registers.
        UnusedAttributeError: for an option that nothing reads.

    >>> import torch, quant_nn as qnn
    >>> net = nn.Sequential(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.ReLU())
    >>> print(quantize(net, [qnn.Rule(types=["Conv2d", "ReLU"]), qnn.Rule(types="ReLU", options={"bit_width": 4})]))
    2 layers replaced, 1 left as it is
    +  0  Conv2d -> QuantConv2d  rule 1: defaults
    +  2  ReLU -> QuantReLU      rule 1, rule 2: bit_width=4
       1  BatchNorm2d            no quantized layer is registered for its type
    """
    given = check_arguments(model, rules)
    check_model(model)
    known = plugins or registry()
    table = float_types(known)
    taken = with_modules(model, _given_inputs(inputs), table) if graph else model
    calls = () if inputs is None else functional_calls(taken, inputs)
    if graph and calls:
        calls = with_places(calls, functional_calls(model, _given_inputs(inputs)))
    decisions = decide(sites(taken, table), given, taken if isinstance(taken, fx.GraphModule) else None)
    check_matched(decisions, given, table)
    check_effective(decisions, given)
    reasons = {id(one.site.module): _reason_to_leave(one, given, table) for one in decisions}
    chosen = [one for one in decisions if reasons[id(one.site.module)] is None]
    check_held_once(taken, {id(one.site.module): one.site for one in chosen})
    device = next((parameter.device for parameter in taken.parameters()), None)
    built = {id(one.site.module): _build(one, given, known, device) for one in chosen}
    joins = _joins(chosen, given, taken)
    if not dry_run:
        model = _put_in_place(taken, chosen, built)
        if isinstance(model, fx.GraphModule):
            share_quantizers(model, joins)
    left = [(one, reasons[id(one.site.module)]) for one in decisions]
    return Conversion(
        model=model,
        replaced=tuple(_replaced(one, given, built[id(one.site.module)]) for one in chosen),
        left=tuple(
            Left(path=one.site.path, float_type=one.site.type_name, reason=reason)
            for one, reason in left
            if reason is not None
        ),
        calls=calls,
        dry_run=dry_run,
    )


def _given_inputs(inputs: tuple[Any, ...] | None) -> tuple[Any, ...]:
    if inputs is None:
        raise ConfigurationError(
            "graph=True needs example inputs",
            why="the graph is compared with the model on them",
            fix="Pass inputs=(x,) as well.",
        )
    return inputs


def _reason_to_leave(decision: Decision, rules: tuple[Rule, ...], table: Mapping[type, Any]) -> str | None:
    """Why a layer stays as it is; ``None`` when it is replaced."""
    site = decision.site
    if decision.excluded_by is not None:
        return f"excluded by {label(rules[decision.excluded_by], decision.excluded_by)}"
    if not site.entries and decision.layer is None:
        base = next((kind for kind in site.kind.__mro__[1:] if kind in table), None)
        if base is None:
            return "no quantized layer is registered for its type"
        return f"it may compute something else than {public_name(base)}, from which it is derived"
    if not decision.rules:
        return "no rule is for it"
    return None


def _build(decision: Decision, rules: tuple[Rule, ...], plugins: Registry, device: torch.device | None) -> nn.Module:
    """The quantized layer; an error says where, and which rule is to blame."""
    site = decision.site
    if "forward" in vars(site.module):
        raise ConfigurationError(
            "a layer has a forward of its own",
            where=site.place,
            why=f"an attribute 'forward' was set on this {site.type_name}, which a quantized layer would not call",
            fix="Exclude this layer with a rule, or remove the attribute.",
        )
    naming = decision.rules[-1] if decision.layer is None else decision.layer[1]
    with _at(site.place, rules, naming, "layer"):
        quant_type = _quant_type(decision, plugins)
    arguments = arguments_of(quant_type)
    options = {}
    for key in decision.read_by(arguments):
        found, number = decision.options[key]
        with _at(site.place, rules, number, key):
            options[key] = resolved(key, found, plugins)
    try:
        return build(site.module, site.kind, quant_type, options, device)
    except QuantError as error:
        at_fault = _option_in(error.what, options)
        number = decision.rules[-1] if at_fault is None else decision.options[at_fault][1]
        raise error.at(f"{site.place}, by {_blame(rules, number, at_fault)}") from None


def _option_in(what: str, options: Iterable[str]) -> str | None:
    """The option that a message is about: it names it, or the part of a quantizer that the option sets."""
    word = what.partition("=")[0].strip()
    named = [name for name in options if name in what] or [name for name in options if name.endswith(f"_{word}")]
    return named[0] if len(named) == 1 else None


@contextmanager
def _at(place: str, rules: tuple[Rule, ...], number: int, key: str) -> Iterator[None]:
    """An error says which layer it is about, and which rule."""
    try:
        yield
    except QuantError as error:
        raise error.at(f"{place}, by {_blame(rules, number, key)}") from None


def _blame(rules: tuple[Rule, ...], number: int, key: str | None) -> str:
    """The place of an option of a rule."""
    source = rules[number].source
    return label(rules[number], number) if source is None else source.of(key)


def _quant_type(decision: Decision, plugins: Registry) -> Any:
    """The one that a rule names, or else the one that is registered."""
    entries = decision.site.entries
    if decision.layer is not None:
        return layer_named(decision.layer[0], plugins)
    if len(entries) > 1:
        raise ConfigurationError(
            f"several quantized layers are registered for {decision.site.type_name}",
            why=", ".join(entry.name for entry in entries),
            fix=f"Choose one with layer={entries[0].name!r} in the rule.",
        )
    return load_attribute(entries[0].quant_type)


def _joins(chosen: list[Decision], rules: tuple[Rule, ...], model: nn.Module) -> set[str]:
    """The joins that share their quantizer with the layers before them."""
    found = set()
    for decision in chosen:
        number = next((number for number in decision.rules if rules[number].shared), None)
        if number is None:
            continue
        if not isinstance(model, fx.GraphModule) and not rules[number].optional:
            raise ConfigurationError(
                "a quantizer is shared with layers that are not known",
                where=f"{decision.site.place}, by {_blame(rules, number, 'shared')}",
                why="shared=True takes what comes before a layer from the graph of the model",
                fix="Pass graph=True and inputs=(x,), or leave shared out.",
            )
        found.update(decision.site.paths)
    return found


def _put_in_place(model: nn.Module, chosen: list[Decision], built: Mapping[int, nn.Module]) -> nn.Module:
    """Replace each layer in all modules that hold it; from here on nothing fails."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in built:
                parent._modules[name] = built[id(child)]
    for decision in chosen:
        carry_over(decision.site.module, built[id(decision.site.module)])
    call_parts(model)
    return built.get(id(model), model)


def _replaced(decision: Decision, rules: tuple[Rule, ...], layer: nn.Module) -> Replaced:
    return Replaced(
        path=decision.site.path,
        also=tuple(decision.site.paths[1:]),
        float_type=decision.site.type_name,
        quant_type=public_name(type(layer)),
        options={name: decision.options[name][0] for name in decision.read_by(arguments_of(type(layer)))},
        rules=tuple(label(rules[number], number) for number in decision.rules),
        layer=layer,
    )
