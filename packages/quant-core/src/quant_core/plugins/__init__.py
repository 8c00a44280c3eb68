"""The plugin registry: targets, quantizers, layers, ops and commands of all installed packages. Imports no torch."""

from quant_core.plugins.capabilities import Capabilities, QuantSupport
from quant_core.plugins.conflicts import Conflict
from quant_core.plugins.hookspecs import API_VERSION, hookimpl
from quant_core.plugins.loading import PluginStatus
from quant_core.plugins.references import load_attribute
from quant_core.plugins.registry import Registered, Registry, registry
from quant_core.plugins.types import Command, Layer, Op, Quantizer, Shorthand, Target

__all__ = [
    "API_VERSION",
    "Capabilities",
    "Command",
    "Conflict",
    "Layer",
    "Op",
    "PluginStatus",
    "QuantSupport",
    "Quantizer",
    "Registered",
    "Registry",
    "Shorthand",
    "Target",
    "hookimpl",
    "load_attribute",
    "registry",
]
