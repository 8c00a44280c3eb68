"""What a conversion did: the layers that were replaced, those that were left alone, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from quant_nn.convert.calls import Call


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """One layer that became a quantized one.

    Attributes:
        path: its path in the model, empty for the model itself.
        also: further paths of the same layer.
        float_type: the type that it was, such as ``torch.nn.Conv2d``.
        quant_type: the type that it is, such as ``quant_nn.QuantConv2d``.
        options: the options that rules gave it, as they are written there.
        rules: the rules that are for it, by number or place in a file.
        layer: the quantized layer.
    """

    path: str
    also: tuple[str, ...]
    float_type: str
    quant_type: str
    options: Mapping[str, object]
    rules: tuple[str, ...]
    layer: nn.Module


@dataclass(frozen=True, kw_only=True)
class Left:
    """One layer that stays as it is.

    Attributes:
        path: its path in the model, empty for the model itself.
        float_type: its type.
        reason: why.
    """

    path: str
    float_type: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The result of :func:`quant_nn.quantize`; ``str`` of it is a table.

    Attributes:
        model: the quantized model: the one that was given, or the quantized layer where the model was a single one. After a dry
            run it is the float model, unchanged.
        replaced: the layers that were replaced, or would be in a dry run, in the order of the model.
        left: the layers that stay as they are, in the order of the model.
        calls: calls of functions that rules cannot reach, where example inputs were given.
        dry_run: whether nothing was changed.
    """

    model: nn.Module
    replaced: tuple[Replaced, ...]
    left: tuple[Left, ...]
    calls: tuple[Call, ...] = ()
    dry_run: bool = False

    def __str__(self) -> str:
        verb = "would be replaced" if self.dry_run else "replaced"
        head = (
            f"{_count(self.replaced)} {verb}, {len(self.left)} left as {'it is' if len(self.left) == 1 else 'they are'}"
        )
        rows = [*map(_replaced_row, self.replaced), *map(_left_row, self.left)]
        number = "1 call" if len(self.calls) == 1 else f"{len(self.calls)} calls"
        calls = [f"{number} that no rule reaches"] if self.calls else []
        return "\n".join([head, *_aligned(rows), *calls, *(f"   {call}" for call in self.calls)])


def _replaced_row(one: Replaced) -> tuple[str, ...]:
    options = ", ".join(f"{name}={_shown(found)}" for name, found in one.options.items())
    also = f" (also {', '.join(one.also)})" if one.also else ""
    kinds = f"{_short(one.float_type)} -> {_short(one.quant_type)}"
    return "+", f"{one.path or 'the model'}{also}", kinds, f"{', '.join(one.rules)}: {options or 'defaults'}"


def _left_row(one: Left) -> tuple[str, ...]:
    return "", one.path or "the model", _short(one.float_type), one.reason


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(found: object) -> str:
    return found.__name__ if isinstance(found, type) else str(found)


def _short(kind: str) -> str:
    return kind.rpartition(".")[2]


def _count(layers: Sequence[object]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
