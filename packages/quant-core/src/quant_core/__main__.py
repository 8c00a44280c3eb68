"""``python -m quant_core`` is ``quant``."""

from quant_core.cli import main

if __name__ == "__main__":
    main()
