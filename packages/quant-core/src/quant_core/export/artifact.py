"""What a lowering returns: something that can be saved and, where the target's runtime is installed, run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from quant_core.errors import ArtifactError, QuantError
from quant_core.export.check_report import Note
from quant_core.export.files import write_atomically
from quant_core.export.program import Program
from quant_core.export.signature import CallSignature
from quant_core.export.trace import Trace


class Artifact(ABC):
    """Base of all artifacts.

    Attributes:
        target: the target that it was lowered to.
        signature: how the program that it was lowered from is called.
        program: that program, so that a trace can show both side by side; :func:`~quant_core.export.lower` notes it.
        notes: what users of the file should know, as the target's check said; :func:`~quant_core.export.lower` notes it too.
    """

    program: Program | None = None
    notes: tuple[Note, ...] = ()

    def __init__(self, target: str, signature: CallSignature) -> None:
        self.target = target
        self.signature = signature

    @abstractmethod
    def content(self) -> bytes:
        """The bytes of its file. Law: equal programs and options give equal bytes."""

    @abstractmethod
    def trace(self, inputs: list[Any]) -> Trace:
        """Run it in the target's own runtime on flat inputs, noting what it gives on the way.

        Law: the same inputs give the same trace.

        Raises:
            ArtifactError: when the runtime is not installed or refuses the file.
        """

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run it in the target's own runtime; inputs and outputs as the model takes and returns them.

        Raises:
            ArtifactError: when the runtime is not installed or refuses the file.
            InputError: when the inputs do not have the structure that the model was captured with.
        """
        return self.signature.nest(traced(self, self.signature.flatten(args, kwargs)).outputs)

    @property
    def size(self) -> int:
        """The size of its file in bytes."""
        return len(content_of(self))

    def save(self, path: str | Path) -> Path:
        """Write it to ``path`` in one step, and return the path.

        Raises:
            ArtifactError: when the file cannot be written, or the artifact does not give its bytes; a file that was there before
                is unchanged.
        """
        place = Path(path)
        write_atomically(place, content_of(self))
        return place


def content_of(artifact: Artifact) -> bytes:
    """The bytes of the file of an artifact.

    Raises:
        ArtifactError: when :meth:`Artifact.content` fails, or gives something else.
    """
    try:
        content: object = artifact.content()
    except QuantError:
        raise
    except Exception as failure:
        raise ArtifactError(
            f"the {artifact.target} artifact does not give its bytes",
            why=f"{type(failure).__name__}: {failure}",
            fix="This is a defect of the target; report it with the cause of this error. Nothing was written.",
        ) from failure
    if not isinstance(content, bytes):
        raise ArtifactError(
            f"the {artifact.target} artifact does not give its bytes",
            why=f"{type(artifact).__qualname__}.content returned a {type(content).__name__}, not bytes",
            fix="This is a defect of the target; report it to the authors of that package. Nothing was written.",
        )
    return content


def traced(artifact: Artifact, inputs: list[Any]) -> Trace:
    """What :meth:`Artifact.trace` gives.

    Raises:
        ArtifactError: when that is no trace.
    """
    trace: object = artifact.trace(inputs)
    if not isinstance(trace, Trace):
        raise ArtifactError(
            f"the {artifact.target} artifact gives no trace when it is run",
            why=f"{type(artifact).__qualname__}.trace returned a {type(trace).__name__}, not a quant_core.export.Trace",
            fix="This is a defect of the target; report it to the authors of that package. Nothing was written.",
        )
    return trace
