"""Dependency injection by name: a quantizer as a flat list of attributes that wire themselves.

>>> class Scale:
...     def __init__(self, start): self.start = start
>>> class Quantizer(Injector):
...     scale = Scale
...     @value
...     def start(bits):
...         return 1 / 2**bits
>>> Quantizer.let(bits=3).scale.start
0.125
"""

from quant_core.inject.assembly import assemble
from quant_core.inject.injector import Injector
from quant_core.inject.this import this
from quant_core.inject.value import value

__all__ = ["Injector", "assemble", "this", "value"]
