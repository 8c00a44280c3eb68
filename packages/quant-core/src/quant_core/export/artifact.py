"""What a lowering returns: something that can be saved and, where the target's runtime is installed, run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

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
        return self.signature.nest(self.trace(self.signature.flatten(args, kwargs)).outputs)

    @property
    def size(self) -> int:
        """The size of its file in bytes."""
        return len(self.content())

    def save(self, path: str | Path) -> Path:
        """Write it to ``path`` in one step, and return the path.

        Raises:
            ArtifactError: when the file cannot be written; a file that was there before is unchanged.
        """
        place = Path(path)
        write_atomically(place, self.content())
        return place
