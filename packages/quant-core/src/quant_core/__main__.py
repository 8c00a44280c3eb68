"""``python -m quant_core`` is the ``quant`` command."""

from quant_core.cli import main

main()
