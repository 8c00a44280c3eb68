"""What ``quant export`` is asked to do, and doing it. Importing this module imports no torch; doing it does."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quant_core.cli.inputs import InputSpec, draw_inputs
from quant_core.cli.model_reference import ModelReference, load_model
from quant_core.cli.output import print_json, print_table, readable_size
from quant_core.cli.weights import load_weights
from quant_core.plugins import Target

if TYPE_CHECKING:
    from torch import nn

    from quant_core.export import CheckReport, Exported


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What the command line asks for, read and checked before torch is imported.

    Attributes:
        target: where the model goes.
        model: where the model is defined.
        weights: the file with its weights, if any.
        inputs: the example inputs.
        seed: the seed that they are drawn with.
        dynamic_batch: whether axis 0 of every input varies.
        options: options of the target.
    """

    target: Target
    model: ModelReference
    weights: Path | None
    inputs: tuple[InputSpec, ...]
    seed: int
    dynamic_batch: bool
    options: dict[str, Any]

    @property
    def dynamic_shapes(self) -> str | None:
        """As ``quant_core.export`` takes it."""
        return "batch" if self.dynamic_batch else None

    def load(self) -> nn.Module:
        """The model in eval mode, with its weights.

        Raises:
            LoadError: when the model or its weights cannot be loaded.
        """
        model = load_model(self.model)
        if self.weights is not None:
            load_weights(model, self.weights)
        return model.eval()


def run_check(request: ExportRequest) -> CheckReport:
    """What the target cannot take. Nothing is lowered, nothing is written.

    Raises:
        LoadError: when the model or its weights cannot be loaded.
        CaptureError: when ``torch.export`` cannot capture the model.
    """
    with _only_results_on_stdout():
        from quant_core.export import capture, check

        args, kwargs = draw_inputs(request.inputs, seed=request.seed)
        program = capture(request.load(), args, kwargs, dynamic_shapes=request.dynamic_shapes)
        return check(program, request.target.name, options=request.options)


def run_export(request: ExportRequest, output: Path, *, verify: bool) -> Exported:
    """Export the model, compare the artifact with it, and write the file.

    Raises:
        ArtifactError: when the file cannot be written; found out before the model is loaded.
        LoadError: when the model or its weights cannot be loaded.
        ExportError: as :func:`quant_core.export.export`.
    """
    with _only_results_on_stdout():
        from quant_core.export import export
        from quant_core.export.files import check_writable

        check_writable(output)
        args, kwargs = draw_inputs(request.inputs, seed=request.seed)
        return export(
            request.load(),
            args,
            kwargs,
            target=request.target.name,
            path=output,
            verify=verify,
            dynamic_shapes=request.dynamic_shapes,
            options=request.options,
        )


def print_check(report: CheckReport, *, as_json: bool) -> None:
    """Print what the target cannot take."""
    if as_json:
        refusals = [asdict(refusal) for refusal in report.refusals]
        notes = [asdict(note) for note in report.notes]
        print_json({"target": report.target, "ok": report.ok, "refusals": refusals, "notes": notes})
    else:
        click.echo(str(report))


def print_exported(done: Exported, request: ExportRequest, output: Path, *, verify: bool, as_json: bool) -> None:
    """Print what was written, and how near it comes to the model."""
    verification = done.verification
    if not as_json:
        uncalibrated = [_note(done.program.uncalibrated)] if done.program.uncalibrated else []
        for note in (*uncalibrated, *done.artifact.notes):
            click.echo(f"Note: {note}", err=True)
    verdict = "yes" if verification is not None else f"no: {_why_not_verified(request.target, verify=verify)}"
    difference = None if verification is None else verification.max_difference
    steps = None if verification is None else verification.max_steps
    if as_json:
        print_json(
            {
                "target": request.target.name,
                "file": str(output),
                "size": done.artifact.size,
                "verified": verification is not None,
                "reason": None if verification is not None else _why_not_verified(request.target, verify=verify),
                "largest_difference": difference,
                "largest_difference_in_steps": steps,
                "uncalibrated": list(done.program.uncalibrated),
                "notes": [asdict(note) for note in done.artifact.notes],
                "seconds": done.seconds,
            }
        )
        return
    shown = "" if difference is None else f"{difference:.3g}" + ("" if steps is None else f" ({steps:.3g} steps)")
    print_table(
        ("target", "file", "size", "largest difference", "seconds", "verified"),
        [
            (
                request.target.name,
                str(output),
                readable_size(done.artifact.size),
                shown,
                f"{done.seconds:.1f}",
                verdict,
            )
        ],
    )


def _why_not_verified(target: Target, *, verify: bool) -> str:
    if not verify:
        return "--no-verify"
    if target.runtime is None:
        return "nothing runs its artifacts"
    assert not target.has_runtime  # export compares wherever the runtime is installed
    return f"{target.runtime} is not installed"


@contextlib.contextmanager
def _only_results_on_stdout() -> Any:
    """What a model's own code prints goes to standard error, so that standard output is the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _note(uncalibrated: tuple[str, ...]) -> str:
    """What a scale that was never set means."""
    return (
        f"these activation quantizers have seen no data, so that their scales are the ones they start from: "
        f"{', '.join(uncalibrated)}. Train, or load weights that hold scales (--weights)."
    )
