"""The one call that most users make: capture, check, lower, verify, save."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from quant_core.export.artifact import Artifact
from quant_core.export.capture import capture
from quant_core.export.eval_mode import in_eval_mode
from quant_core.export.files import check_writable
from quant_core.export.lower import lower
from quant_core.export.options import check_options
from quant_core.export.program import Program
from quant_core.export.verification import Verification
from quant_core.export.verify import own_copy, verify
from quant_core.plugins import Registry, registry


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What :func:`export` returns.

    Attributes:
        artifact: what the target made of the model.
        program: the captured model.
        verification: the comparison with the model; ``None`` when it was switched off or the runtime is not installed.
        path: where it was saved; ``None`` when it was not.
        seconds: how long everything took.

    ``str`` of it is what to know of the export: whether the artifact equals the model, where it is, and every note.
    """

    artifact: Artifact
    program: Program
    verification: Verification | None
    path: Path | None
    seconds: float

    def __str__(self) -> str:
        verdict = self.verification or f"{self.artifact.target}, not compared with the model"
        place = [] if self.path is None else [f"saved as {self.path}"]
        unseen = ", ".join(self.program.uncalibrated)
        fresh = (
            [f"note: no data has been seen by {unseen}; the scale there is the one it starts from"] if unseen else []
        )
        return "\n".join([str(verdict), *place, *fresh, *(f"note: {note}" for note in self.artifact.notes)])


def export(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: str,
    path: str | Path | None = None,
    verify: bool = True,
    dynamic_shapes: Any = None,
    options: Mapping[str, Any] | None = None,
    plugins: Registry | None = None,
) -> Exported:
    """Export a model to a target, compare the result with the model, and save it.

    Nothing is written unless everything succeeded, and the model is unchanged in every case.

    Args:
        model: any module that ``torch.export`` can capture; it is exported as it computes in eval mode.
        args: example inputs; the comparison runs on them.
        kwargs: example keyword inputs.
        target: the name of a registered target; see ``quant export --list-targets``.
        path: where to save the artifact; ``None`` to keep it in memory.
        verify: compare the artifact with the model, where the target's runtime is installed.
        dynamic_shapes: which axes vary, as ``torch.export.export`` takes it; ``"batch"`` for axis 0 of every tensor.
        options: options of the target.
        plugins: the registry to look in; the process-wide one by default.

    Raises:
        UnknownNameError: for an unknown target or option.
        ArtifactError: when ``path`` cannot be written; found out before any work.
        CaptureError: when ``torch.export`` cannot capture the model.
        UnsupportedError: when the target cannot take the model; holds every refusal.
        VerificationError: when the artifact computes something else than the model.
    """
    start = time.perf_counter()
    known = plugins or registry()
    entry = known.target(target).item
    check_options(entry, options or ())
    if path is not None:
        check_writable(Path(path))
    program = capture(model, args, kwargs, dynamic_shapes=dynamic_shapes, plugins=known)
    artifact = lower(program, target, plugins=known, **dict(options or {}))
    verification = None
    if verify and entry.has_runtime:
        verification = compare(model, program, artifact, args, kwargs)
        verification.raise_if_different()
    saved = artifact.save(path) if path is not None else None
    return Exported(
        artifact=artifact,
        program=program,
        verification=verification,
        path=saved,
        seconds=time.perf_counter() - start,
    )


def compare(
    model: nn.Module,
    program: Program,
    artifact: Artifact,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
) -> Verification:
    """Compare an artifact with the model itself, on given inputs."""
    copies: Any = pytree.tree_map(own_copy, (args, dict(kwargs or {})))  # the model may work on its inputs in place
    with in_eval_mode(model), torch.no_grad(), torch.random.fork_rng(devices=()):
        reference = model(*copies[0], **copies[1])
    return verify(program, artifact, args, kwargs, reference=reference)
