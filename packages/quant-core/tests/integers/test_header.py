"""The C header: it compiles without a warning, and its numbers and its rounding are those of the plan."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from quant_core.integers import Plan, Step
from quant_core.integers.header import c_header, c_name, smallest_type
from quant_core.integers.rescaling import rescaling
from quant_core.ops import ROUNDING_MODES

COMPILER = shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="gcc is not installed")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
ARRAYS = {
    "features.0.weight": torch.tensor([[-128, 127], [0, 1]]),
    "features_0.weight": torch.tensor([200]),
    "0.weight": torch.tensor([[[40_000]]]),
    "int": torch.tensor(-(2**31)),
    "wide": torch.tensor([-(2**61), 2**61]),
    "scale */": torch.tensor([0.1, 3.0]),
    "unit": torch.tensor([1e-30, 2.0], dtype=torch.float64),
    "none": torch.empty(0),
}


def every_mode() -> list[Step]:
    return [
        Step(name=mode, op="rescale", module="", arguments={"rounding_mode": mode}, result={})
        for mode in ROUNDING_MODES
    ]


def test_names_and_smallest_types() -> None:
    text = c_header(Plan(arrays=ARRAYS), "my net")
    declared = [line for line in text.splitlines() if line.startswith("static const")]
    assert declared == [
        "static const int8_t features_0_weight[4] = {",
        "static const uint8_t features_0_weight_1[1] = {",
        "static const int32_t m_0_weight[1] = {",
        "static const int32_t int_ = (-2147483647 - 1);",
        "static const int64_t wide[2] = {",
        "static const float scale___[2] = {",
        "static const double unit[2] = {",
    ]
    assert text.startswith("#ifndef MY_NET_H\n#define MY_NET_H\n")
    assert "/* features.0.weight, 2x2 */" in text


def test_c_names() -> None:
    names = [c_name(name) for name in ("a.b", "_a", "1x", "for", "über")]
    assert names == ["a_b", "m__a", "m_1x", "for_", "m__ber"]


def test_the_smallest_type_holds_the_ends() -> None:
    ends = {torch.uint8: 255, torch.int8: -128, torch.int16: 32767, torch.int32: -(2**31), torch.int64: 2**31}
    assert all(smallest_type(torch.tensor([0, end])) == dtype for dtype, end in ends.items())


@needs_compiler
def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "model.h").write_text(c_header(Plan(arrays=ARRAYS, steps=every_mode()), "model"))
    (tmp_path / "main.c").write_text('#include "model.h"\n#include "model.h"\nint main(void) { return 0; }\n')
    assert COMPILER is not None
    command = [COMPILER, *STRICT, "-fsyntax-only", "main.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_compiler
def test_its_rounding_is_exact(tmp_path: Path) -> None:
    """Every mode, with ties, with a float ratio, below and above zero."""
    tenth, seventh = Fraction(13421773, 2**27), Fraction(11744051, 2**24)  # 0.1 and 0.7 in float32
    ratios = [(Fraction(1, 4), Fraction(-1, 2)), (tenth, Fraction(3)), (seventh / tenth, Fraction(0))]
    found = [rescaling([factor], [offset], [(-300, 300)]) for factor, offset in ratios]
    calls, expected = [], []
    q = torch.arange(-40, 41)
    for mode in ROUNDING_MODES:
        for one in found:
            numbers = ", ".join(f"{int(part)}LL" for part in (one.multiplier, one.offset, one.divisor))
            calls.append(f"for (q = -40; q <= 40; q++) show(quant_{mode.lower()}(q, {numbers}));")
            expected += one.rounded(q, mode).tolist()
    (tmp_path / "model.h").write_text(c_header(Plan(steps=every_mode()), "model"))
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "model.h"\n'
        'static void show(int64_t q) { printf("%ld\\n", (long)q); }\n'
        "int main(void) { int64_t q;\n" + "\n".join(calls) + "\nreturn 0; }\n"
    )
    assert COMPILER is not None
    command = [COMPILER, "-std=c99", "-Wall", "-Wextra", "-Werror", "main.c", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == expected
