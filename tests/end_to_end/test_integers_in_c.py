"""A network in C: the header and the steps of ``graph.json`` are all that a program needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import export
from quant_core.integers import load
from quant_core.quant import Int32Bias

PROGRAM = r"""
#include <math.h>
#include <stdio.h>
#include "model.h"

/* entry: round(x / scale), clamped */
static int64_t entry(float x)
{
    float level = rintf(x / entry_act_quant_scale);
    return (int64_t)(level < -8 ? -8 : level > 7 ? 7 : level);
}

/* conv: 4 filters of 3x3, with bias, over 8x8 */
static int64_t conv(int64_t x[8][8], int filter, int row, int column)
{
    int64_t sum = conv_bias[filter];
    for (int i = 0; i < 9; i++)
        sum += x[row + i / 3][column + i % 3] * conv_weight[9 * filter + i];
    return sum;
}

/* relu: one multiplier for each filter */
static int64_t relu(int64_t sum, int filter)
{
    int64_t level = quant_round(sum, relu_act_quant_multiplier[filter], relu_act_quant_offset[filter],
                                relu_act_quant_divisor[filter]);
    return level < 0 ? 0 : level > 15 ? 15 : level;
}

int main(void)
{
    float pixel;
    int64_t x[8][8], pooled[36];
    for (int count = 0; scanf("%f", &pixel) == 1;) {
        x[count / 8][count % 8] = entry(pixel);
        if (++count < 64)
            continue;
        count = 0;
        for (int i = 0; i < 36; i++) { /* max pool, 2x2 */
            int filter = i / 9, row = i % 9 / 3 * 2, column = i % 3 * 2;
            pooled[i] = 0;
            for (int k = 0; k < 4; k++) {
                int64_t level = relu(conv(x, filter, row + k / 2, column + k % 2), filter);
                pooled[i] = level > pooled[i] ? level : pooled[i];
            }
        }
        for (int label = 0; label < 10; label++) {
            int64_t sum = fc_bias[label];
            for (int i = 0; i < 36; i++)
                sum += pooled[i] * fc_weight[36 * label + i];
            printf("%ld ", (long)sum);
        }
    }
    return 0;
}
"""


class Net(nn.Module):
    """Weights of 3 bits, of the convolution per channel, activations of 4."""

    def __init__(self) -> None:
        super().__init__()
        options: dict[str, Any] = {"weight_bit_width": 3, "bias_quant": Int32Bias}
        self.entry = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(1, 4, 3, weight_scaling_per_output_channel=True, **options)
        self.relu = qnn.QuantReLU(bit_width=4, return_quant_tensor=True)
        self.fc = qnn.QuantLinear(36, 10, **options)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.conv(self.entry(x))), 2)
        return self.fc(torch.flatten(x, 1))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_program_in_c_gives_the_integers_of_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.tensor(load_digits().data, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    net = Net()
    for part in images.split(256)[:4]:
        net(part)
    export(net, (images[:2],), target="integers", path=tmp_path / "net.npz", dynamic_shapes="batch")
    network = load(tmp_path / "net.npz")
    (tmp_path / "model.h").write_text(network.header)
    (tmp_path / "main.c").write_text(PROGRAM)
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wno-unused-const-variable", "-Werror", "-O2"]
    subprocess.run(["gcc", *strict, "main.c", "-o", "main", "-lm"], cwd=tmp_path, check=True)
    pixels = " ".join(f"{pixel:.9g}" for pixel in images.flatten().tolist())
    done = subprocess.run([str(tmp_path / "main")], input=pixels, capture_output=True, text=True, check=True)
    sums = torch.tensor([int(word) for word in done.stdout.split()]).reshape(-1, 10)
    assert torch.equal(sums, network.integers(images)["fc_linear"])
    with torch.no_grad():
        scores = net.eval()(images)
    step = network.plan.arrays["fc.accumulator_scale"]
    torch.testing.assert_close(sums * step, scores.to(step.dtype), rtol=1e-5, atol=1e-5)
