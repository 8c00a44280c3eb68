"""The injector wires any classes, and so needs no torch."""

import subprocess
import sys


def test_importing_the_injector_does_not_import_torch():
    code = "import sys, quant_core.inject; print([name for name in ('torch', 'numpy', 'onnx') if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
