"""What all proxies share: a quantizer, built for the layers that own it, and built again when their weights are replaced.

A proxy stands between a layer and a tensor quantizer. It builds the quantizer from an injector, hands it the owning layer as
``module`` (a tuple when several layers share the proxy), turns its result into a :class:`~quant_core.tensor.QuantTensor`, and
rebuilds it on ``load_state_dict``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components import TensorQuant
from quant_core.errors import ConfigurationError
from quant_core.inject import Injector, assemble
from quant_core.inject.attributes import find, names_of, overrides_of, own_attributes, title, written
from quant_core.inject.words import set_by
from quant_core.proxies.loading import current_load
from quant_core.tensor import GridOrigin, QuantTensor

_ROOTS: Mapping[str, bool] = {"tensor_quant": True, "signed": False, "narrow_range": False}
_READS = ("module", "proxy_class")


class QuantProxy(nn.Module):
    """Base of the proxies.

    Args:
        quant_layer: the layer that owns the tensor to quantize.
        quant_injector: the quantizer, an :class:`~quant_core.inject.Injector` subclass.
        prefix: what stands before the quantizer's options when they are given to the layer, for messages.

    Attributes:
        disable_quant: set it to pass tensors through unquantized.
        kind: what it quantizes, ``"weight"``, ``"bias"`` or ``"activation"``; layers refuse a proxy of another kind.
        quant_injector: the quantizer that it was built from.
        tensor_quant: the module that quantizes.
    """

    tensor_quant: Any
    roots: Mapping[str, bool] = _ROOTS
    rebuilds_on_load = False
    kind = ""

    def __init__(self, quant_layer: nn.Module, quant_injector: type[Injector], prefix: str = "") -> None:
        super().__init__()
        self.quant_injector = quant_injector
        self.prefix = prefix
        self.disable_quant = False
        self._owners: list[nn.Module] = [quant_layer]
        self._origin = GridOrigin()
        self._given: dict[str, nn.Module] = {}
        self.init_tensor_quant()

    @property
    def owners(self) -> tuple[nn.Module, ...]:
        """The layers that share this proxy, in the order in which they joined."""
        return tuple(self._owners)

    @property
    def is_quant_enabled(self) -> bool:
        """Whether tensors are quantized: unless ``disable_quant`` is set, or ``tensor_quant`` is ``None``."""
        return not self.disable_quant and self._modules.get("tensor_quant") is not None

    @property
    def learns_bit_width(self) -> bool:
        """Whether training changes the bit width: ``bit_width_impl`` has a parameter that is not frozen."""
        return bool(getattr(getattr(self.tensor_quant, "bit_width_impl", None), "learns", False))

    def add_owner(self, quant_layer: nn.Module) -> None:
        """Share this proxy with one more layer, and build the quantizer again for all of them.

        When that fails the layer does not become an owner, and the quantizer stays as it is.
        """
        if any(owner is quant_layer for owner in self._owners):
            return
        self._owners.append(quant_layer)
        if not self.rebuilds_on_load:
            return  # nothing of it depends on the layer, and what it has learned is kept
        try:
            self.init_tensor_quant()
        except BaseException:
            self._owners.pop()
            raise

    def init_tensor_quant(self) -> None:
        """Build the quantizer again from the injector and the layers as they are now.

        Parameters keep their identity where their shape did not change, so that an optimizer goes on training them. What is
        new stands on the device of the first owner, in the mode of what it replaces.

        Raises:
            InjectionError: when the quantizer cannot be wired, or has an attribute that nothing reads.
            ConfigurationError: when its options contradict each other, or nothing says whether it is signed.
        """
        module = self._owners[0] if len(self._owners) == 1 else tuple(self._owners)
        built = assemble(
            self.quant_injector.let(**self._given, module=module),
            self.roots,
            prefix=self.prefix,
            where=type(self._owners[0]).__name__,
            reads=_READS,
        )
        self._read_kind(built)
        self._install("tensor_quant", built["tensor_quant"])
        self._given = self._given or _given(self.quant_injector, self.modules())
        self._take(built)

    def _read_kind(self, built: Mapping[str, Any]) -> None:
        """What kind of integers it gives."""
        quant = built["tensor_quant"]
        if quant is None:
            return
        signed, narrow_range = self._stated(built, "signed"), self._stated(built, "narrow_range")
        if signed is None:
            raise ConfigurationError(
                f"nothing says whether {type(quant).__name__} is signed",
                where=type(self._owners[0]).__name__,
                why="neither the quantizer nor its tensor_quant has an attribute signed",
                fix=f"Set {self.prefix}signed to True or False.",
            )
        self.signed = bool(signed)
        self.narrow_range = bool(narrow_range)
        self.symmetric = bool(getattr(quant, "symmetric", False))
        self.zero_on_grid = bool(getattr(quant, "zero_on_grid", False))
        self.float_format = getattr(quant, "float_format", None)

    @property
    def reads_input(self) -> bool:
        """Whether the next grid is computed from the tensor, so that two calls may have two grids."""
        return _reads_input(self.tensor_quant)

    def _take(self, built: Mapping[str, Any]) -> None:
        """Keep what a subclass asked for in ``roots``."""

    def _install(self, name: str, module: nn.Module | None) -> None:
        """Put a module that was just built in the place of the one before it."""
        previous = self._modules.get(name)
        if module is not None:
            tensors = chain(self._owners[0].parameters(), self._owners[0].buffers())
            device = next((tensor.device for tensor in tensors), None)
            if device is not None and device.type != "meta":  # there are no constants on the meta device
                module.to(device)
            if previous is not None:
                _keep_identity(previous, module)
                module.train(previous.training)
        setattr(self, name, module)

    def _stated(self, built: Mapping[str, Any], name: str) -> Any:
        """What the injector says about the integers, or else the tensor quantizer; they must not contradict each other."""
        option, own = built.get(name), getattr(built["tensor_quant"], name, None)
        if option is not None and own is not None and option != own:
            if not self._insists_on(name):
                return own
            kind = type(built["tensor_quant"]).__name__
            raise ConfigurationError(
                f"{self.prefix}{name}={option!r} has no effect on {kind}",
                where=type(self._owners[0]).__name__,
                why=f"{kind} does not take {name}; it is {own!r} there",
                fix=f"Leave {self.prefix}{name} out, or choose a tensor_quant that takes it.",
            )
        return own if option is None else option

    def _insists_on(self, name: str) -> bool:
        """Whether an option was set for this ``tensor_quant``, and not left over from the one that it replaces."""
        options, body = overrides_of(self.quant_injector), own_attributes(written(self.quant_injector))
        replaced = "tensor_quant" in (*options, *set_by(self.quant_injector, options))
        return name in options or (name in body and not replaced)

    def _quantize(self, *tensors: Any, **options: Any) -> QuantTensor:
        """What ``tensor_quant`` makes of them."""
        quant = self._modules["tensor_quant"]
        assert quant is not None
        reads_input = _reads_input(quant)  # asked before: the last step that collects statistics still does
        value, scale, zero_point, bit_width = quant(*tensors, **options)
        return QuantTensor(
            value,
            scale,
            zero_point,
            bit_width,
            signed=self.signed,
            narrow_range=self.narrow_range,
            training=self.training,
            symmetric=self.symmetric,
            zero_on_grid=self.zero_on_grid,
            origin=None if reads_input else self._origin,
            float_format=self.float_format,
        )

    def _eval_grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The grid that eval mode would use now; asking for it collects nothing."""
        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            return self._grid(x)
        finally:
            for module, training in modes:
                module.training = training

    def _grid(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.tensor_quant is None:
            raise ConfigurationError(
                f"{title(self.quant_injector)} has no grid",
                where=type(self._owners[0]).__name__,
                why="its tensor_quant is None, so that nothing is quantized",
                fix=f"Ask only where is_quant_enabled is true, or pass another quantizer as {self.prefix}quant.",
            )
        if not isinstance(self.tensor_quant, TensorQuant):
            raise ConfigurationError(
                f"{type(self.tensor_quant).__name__} cannot tell its grid without quantizing a tensor",
                where=type(self._owners[0]).__name__,
                why="only subclasses of quant_core.components.TensorQuant define grid(x)",
                fix="Derive the tensor quantizer from TensorQuant, or read the scale from the quantized tensor.",
            )
        return self.tensor_quant.grid(x)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Build the quantizer again for the weights just loaded; a float checkpoint holds none."""
        if self.rebuilds_on_load:
            for key in [key for key in state_dict if key.startswith(prefix)]:
                state_dict[key] = state_dict[key].clone()  # it may be our own tensor, which building again overwrites
            self.init_tensor_quant()
        own = self.state_dict(prefix=prefix)
        if own:
            load = current_load(missing_keys)
            if any(key.startswith(prefix) for key in state_dict):
                load.found_quantizer()
            elif load.may_leave_out(list(own)):
                state_dict.update(own)  # the children find their present values instead of reporting missing keys
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _reads_input(quant: nn.Module | None) -> bool:
    parts = {} if quant is None else quant._modules
    scaling, zero_point = parts.get("scaling_impl"), parts.get("zero_point_impl")
    return bool(getattr(scaling, "reads_input", True) or getattr(zero_point, "reads_input", False))


def _given(injector: type[Injector], modules: Iterable[nn.Module]) -> dict[str, nn.Module]:
    """The components that were given as instances, to be shared by several quantizers.

    A proxy remembers them, because its copies build again with the copies of them and not with what the injector holds.
    """
    used = {id(module) for module in modules}
    found = {name: find(injector, name) for name in names_of(injector)}
    return {name: hit[1] for name, hit in found.items() if hit is not None and id(hit[1]) in used}


def _keep_identity(old: nn.Module, new: nn.Module) -> None:
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
