"""A distribution that adds words, installed for a test: a module, its metadata, and an entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from quant_core.errors import PluginError
from quant_core.plugins import registry
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat

PLUGIN = """
from quant_core.plugins import Shorthand, hookimpl

QUANT_API_VERSION = 1


@hookimpl
def quant_shorthands():
    yield Shorthand(
        name="{name}",
        summary="twice the largest absolute value",
        activation={{"scaling_stats_impl": "{module}:TwiceTheLargest"}},
    )


def __getattr__(name):
    if name != "TwiceTheLargest":
        raise AttributeError(name)
    from quant_core.components import Statistic

    class TwiceTheLargest(Statistic):
        def of_rows(self, rows):
            return 2 * rows.abs().amax(dim=1)

    return TwiceTheLargest
"""

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution that registers one shorthand."""
    monkeypatch.syspath_prepend(tmp_path)

    def _install(module: str, name: str) -> None:
        metadata = tmp_path / f"{module}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[quant]\n{module} = {module}\n")
        (tmp_path / f"{module}.py").write_text(PLUGIN.format(name=name, module=module))
        registry.cache_clear()

    yield _install
    registry.cache_clear()


def threshold(word: str) -> float:
    proxy = ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat.let(scaling_stats_op=word))
    return proxy(torch.tensor([0.5, -2.0])).scale.item() * 128


def test_a_word_of_a_plugin_is_as_good_as_one_of_ours(install: Install) -> None:
    install("twice_words", "scaling_stats_op=twice")
    assert (threshold("TWICE"), threshold("max")) == (4.0, 2.0)


def test_one_word_of_two_plugins_concerns_only_who_uses_words(install: Install) -> None:
    install("first_words", "scaling_stats_op=same")
    install("second_words", "scaling_stats_op=same")
    assert ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat).scale().item() == 1 / 128
    with pytest.raises(PluginError) as caught:
        threshold("same")
    assert str(caught.value).startswith(
        "the shorthand 'scaling_stats_op=same' is registered 2 times\n  at Identity: first_words 1.0 and second_words 1.0\n"
    )
