"""What all proxies share: a quantizer, built for the layers that own it, and built again when their weights are replaced.

A proxy stands between a layer and a tensor quantizer. It builds the quantizer from an injector, hands it the owning layer as
``module`` (a tuple when several layers share the proxy), turns its result into a :class:`~quant_core.tensor.QuantTensor`, and
rebuilds it on ``load_state_dict``.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from quant_core.components import TensorQuant
from quant_core.components.tensor_quant.base import Quantized
from quant_core.errors import ConfigurationError
from quant_core.inject import Injector, assemble
from quant_core.inject.attributes import title
from quant_core.proxies.loading import current_load
from quant_core.proxies.rebuilding import build_for, given_instances, keep_identity
from quant_core.proxies.stating import stated
from quant_core.tensor import GridOrigin, QuantTensor
from quant_core.tracing import is_composed

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

    _computes = False
    """Whether ``forward`` gives what ``_computed`` does."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls):
            cls._computes = "_computed" in vars(cls)

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
        self._given = self._given or given_instances(self.quant_injector, self.modules())
        self._take(built)

    def _read_kind(self, built: Mapping[str, Any]) -> None:
        """What kind of integers it gives."""
        quant = built["tensor_quant"]
        if quant is None:
            return
        place = {"prefix": self.prefix, "where": type(self._owners[0]).__name__}
        signed, narrow_range = (
            stated(name, built, self.quant_injector, **place) for name in ("signed", "narrow_range")
        )
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
        quant = self._modules.get("tensor_quant")
        parts = {} if quant is None else quant._modules
        scaling, zero_point = parts.get("scaling_impl"), parts.get("zero_point_impl")
        return bool(getattr(scaling, "reads_input", True) or getattr(zero_point, "reads_input", False))

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
                keep_identity(previous, module)
                module.train(previous.training)
        setattr(self, name, module)

    def values(self, *inputs: Any) -> Tensor:
        """The numbers that ``forward`` gives, without the grid around them, for layers that hand on no grid.

        ``forward`` is called as a module only where somebody would miss that: hooks, a compiler, or a ``forward`` of a subclass.
        """
        watched = self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks
        if watched or not self._computes or "forward" in vars(self) or _has_any_global_hook() or is_composed():
            found = self(*inputs)
            return found.value if isinstance(found, QuantTensor) else found
        numbers = self._computed(*inputs)
        return numbers[0] if isinstance(numbers, tuple) else numbers

    def _computed(self, *inputs: Any) -> Quantized | Tensor:
        """What ``tensor_quant`` makes of the inputs of ``forward``; a plain tensor where nothing is quantized."""
        raise NotImplementedError(f"{type(self).__name__} must define forward, or _computed")

    def _on_grid(self, *inputs: Any) -> QuantTensor | Tensor:
        """That as one tensor that knows its grid."""
        reads_input = self.reads_input  # asked before: the last step that collects statistics still does
        found = self._computed(*inputs)
        if not isinstance(found, tuple):
            return found
        value, scale, zero_point, bit_width = found
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
        build_for(self, state_dict, prefix, local_metadata)
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
