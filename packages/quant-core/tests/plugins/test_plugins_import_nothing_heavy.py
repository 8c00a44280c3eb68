"""What is not imported, proven in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy")


@pytest.mark.parametrize(
    "code",
    [
        "import quant_core.plugins",
        "from quant_core.plugins import registry; registry().quantizers",
        "import quant_core.plugin",
    ],
)
def test_listing_plugins_imports_nothing_heavy(code: str) -> None:
    program = f"import sys\n{code}\nprint(sorted(set({(*HEAVY, 'click', 'rich')!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
