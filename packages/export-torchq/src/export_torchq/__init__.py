"""Export of quantized networks to torch's own integers: the targets ``torchq`` and ``pt2e``."""

from importlib.metadata import version as _version

__version__ = _version("export-torchq")
