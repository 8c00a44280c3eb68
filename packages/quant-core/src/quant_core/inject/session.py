"""One build: every name is made at most once, and the path that led to it is known when something is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quant_core.errors import InjectionError, MissingDependencyError, QuantError, did_you_mean
from quant_core.inject.attributes import find, inside, is_injector, names_of, outer_session
from quant_core.inject.signature import describe, needs
from quant_core.inject.this import This, levels_of, steps_of
from quant_core.inject.value import value


class Session:
    """The state of one build of an injector.

    Attributes:
        consumed: the names that something asked for.
    """

    def __init__(self, injector: type) -> None:
        self.injector = injector
        self.consumed: set[str] = set()
        self._made: dict[str, Any] = {}
        self._path: list[tuple[str, str]] = []  # (name being made, who makes it)

    def get(self, name: str) -> Any:
        """The finished value of an attribute.

        Raises:
            MissingDependencyError: when nothing defines it; holds the whole chain that asked.
            InjectionError: when it depends on itself.
        """
        self.consumed.add(name)
        if name in self._made:
            return self._made[name]
        found = find(self.injector, name)
        if found is None:
            raise self._missing(name)
        if any(name == made for made, _ in self._path):
            raise self._cycle(name)
        self._path.append((name, ""))
        try:
            self._made[name] = self._finish(name, found[1])
        finally:
            self._path.pop()
        return self._made[name]

    def _finish(self, name: str, raw: Any) -> Any:
        if isinstance(raw, value):
            raw = self._call(raw.function)
        if isinstance(raw, This):
            return self._follow(raw)
        if is_injector(raw):
            return inside(raw, self)
        if isinstance(raw, type) and not name.endswith("_class"):
            return self._call(raw)
        return raw

    def _call(self, component: Callable[..., Any]) -> Any:
        name = self._path[-1][0]
        self._path[-1] = (name, describe(component))
        arguments = {
            need.name: self.get(need.name)
            for need in needs(component)
            if not need.optional or find(self.injector, need.name) is not None
        }
        try:
            return component(**arguments)
        except QuantError:
            raise
        except Exception as failure:
            failure.add_note(f"while building {self._chain(name)} of {self.injector.__name__}")
            raise

    def _follow(self, expression: This) -> Any:
        session: Session | None = self
        for _ in range(levels_of(expression)):
            session = outer_session(session.injector) if session is not None else None
        if session is None:
            raise InjectionError(
                f"{expression!r} leads out of {self.injector.__name__}",
                why="each << 1 stands for the injector around this one, and there are fewer",
                fix="Remove one << 1, or nest the injector.",
            )
        found: Any = session
        for step in steps_of(expression):
            if step.is_item:
                found = found[step.name]
            else:
                found = found.get(step.name) if isinstance(found, Session) else getattr(found, step.name)
        return found

    def _chain(self, name: str) -> str:
        """``name is needed by A.__init__, for a, needed by B.__init__, for b``."""
        parts = [f"{maker}, for {made}" for made, maker in reversed(self._path) if made != name]
        return f"{name} is needed by " + ", needed by ".join(parts) if parts else name

    def _missing(self, name: str) -> MissingDependencyError:
        chain = self._chain(name)
        return MissingDependencyError(
            f"{self.injector.__name__} has no attribute {name!r}",
            where=self.injector.__name__,
            why=chain if chain != name else f"nothing in {self.injector.__name__} or its bases defines it",
            fix=f"Define {name} in the quantizer or pass it as an option. {did_you_mean(name, names_of(self.injector))}",
        )

    def _cycle(self, name: str) -> InjectionError:
        made = [step for step, _ in self._path]
        circle = " → ".join([*made[made.index(name) :], name])
        return InjectionError(
            f"{self.injector.__name__}.{name} depends on itself",
            where=self.injector.__name__,
            why=circle,
            fix="Break the circle by giving one of them a value of its own.",
        )
