"""What a check answers: what a target cannot take, and what those who use it should know of."""

from __future__ import annotations

from dataclasses import dataclass

from quant_core.errors import UnsupportedError


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One thing that a target cannot take.

    Attributes:
        where: its place in the model.
        op: the op concerned.
        actual: what the model has.
        constraint: what the target takes.
        fix: what the user can do.
    """

    where: str
    op: str
    actual: str
    constraint: str
    fix: str

    def __str__(self) -> str:
        return f"{self.op} with {self.actual}\n  at {self.where}\n  {self.constraint}\n  {self.fix}"


@dataclass(frozen=True, kw_only=True)
class Note:
    """One thing that a target takes, and that its users should know of.

    Attributes:
        where: its place in the model.
        what: what to know.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.what}\n  at {self.where}"


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The answer of :func:`~quant_core.export.check`.

    Attributes:
        target: the name of the target.
        refusals: everything that it cannot take: what its capabilities say in the order of the program, then what its rules say.
        notes: what it takes, and its users should know of.
    """

    target: str
    refusals: tuple[Refusal, ...]
    notes: tuple[Note, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the target takes the program."""
        return not self.refusals

    def __str__(self) -> str:
        count = len(self.refusals)
        head = f"target {self.target!r} cannot take this model: {count} {'refusal' if count == 1 else 'refusals'}"
        if self.ok:
            head = f"target {self.target!r} takes this model"
        return "\n".join([head, *map(str, self.refusals), *(f"note: {note}" for note in self.notes)])

    def raise_if_refused(self) -> None:
        """Raise what stands in the report.

        Raises:
            UnsupportedError: when there is a refusal; its ``refusals`` attribute holds all of them.
        """
        if self.ok:
            return
        first = self.refusals[0]
        rest = "\n".join(str(refusal) for refusal in self.refusals[1:])
        error = UnsupportedError(
            f"target {self.target!r} cannot lower {first.op} with {first.actual}",
            where=first.where,
            why=first.constraint,
            fix=first.fix + (f"\nand {len(self.refusals) - 1} more:\n{rest}" if rest else ""),
        )
        error.refusals = self.refusals
        raise error
