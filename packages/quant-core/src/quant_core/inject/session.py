"""One build: every name is made at most once, and the path that led to it is known when something goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quant_core.errors import InjectionError, MissingDependencyError, QuantError, nearest
from quant_core.inject.attributes import Enclosure, enclosure_of, inside, is_injector, names_of, title
from quant_core.inject.path import Frame, cycle_through, needed_by
from quant_core.inject.signature import Need, describe, needs
from quant_core.inject.this import This, levels_of, steps_of
from quant_core.inject.value import value
from quant_core.inject.words import Found, lookup


class MissingAttributeError(MissingDependencyError, AttributeError):
    """Raised where an attribute is read: ``hasattr``, ``getattr`` with a default and ``help`` expect it."""


class Session:
    """The state of one build of an injector; nothing of it is kept anywhere else.

    Attributes:
        injector: what is built.
        consumed: the names that something asked for.
    """

    def __init__(
        self,
        injector: type,
        *,
        prefix: str | None = None,
        outer: Session | None = None,
        path: list[Frame] | None = None,
    ) -> None:
        self.injector = injector
        self.consumed: set[str] = set()
        self._prefix = prefix
        self._outer = outer
        self._path = [] if path is None else path
        self._made: dict[str, Any] = {}
        self._nested: dict[str, Session] = {}

    def get(self, name: str) -> Any:
        """The finished value of an attribute.

        Raises:
            MissingDependencyError: when nothing defines it; holds the whole chain that asked.
            InjectionError: when it depends on itself, or cannot be wired.
        """
        self.consumed.add(name)
        if name in self._made:
            return self._made[name]
        found = self._lookup(name)
        if found is None:
            raise self._missing(name)
        if found.setting is not None and not found.setting.along:
            self.consumed.add(found.setting.keyword)
        if any(frame.injector is self.injector and frame.name == name for frame in self._path):
            raise self._cycle(name)
        frame = Frame(self.injector, name, self.label(name))
        self._path.append(frame)
        try:
            self._made[name] = self._finish(frame, found.raw)
        finally:
            self._path.pop()
        return self._made[name]

    def _lookup(self, name: str) -> Found | None:
        return lookup(self.injector, name, self._prefix or "")

    def label(self, name: str) -> str:
        """How messages call an attribute: with the prefix of the layer's options, or the nested injector in front."""
        enclosure = enclosure_of(self.injector)
        if self._outer is None or enclosure is None:
            return (self._prefix or "") + name
        return f"{self._outer.label(enclosure.name)}.{name}"

    def _finish(self, frame: Frame, raw: Any) -> Any:
        origin = ""
        if isinstance(raw, value):
            origin = f", returned by {describe(raw.function)}"
            raw = self._call(frame, raw.function)
        if isinstance(raw, This):
            frame.maker = f"{raw!r}{origin}"
            return self._follow(raw)
        if is_injector(raw):
            return inside(raw, Enclosure(self, frame.name))
        if isinstance(raw, type) and not frame.name.endswith("_class"):
            return self._call(frame, raw, origin)
        return raw

    def _call(self, frame: Frame, component: Callable[..., Any], origin: str = "") -> Any:
        frame.maker = describe(component) + origin
        arguments = {need.name: self._argument(component, need) for need in needs(component) if self._wanted(need)}
        try:
            return component(**arguments)
        except QuantError as error:
            error.at(f"{frame.label} of {title(self.injector)}")
            raise
        except Exception as failure:
            failure.add_note(f"raised by {needed_by(self._path)}, in {title(self.injector)}")
            raise

    def _wanted(self, need: Need) -> bool:
        return not need.optional or self._lookup(need.name) is not None

    def _argument(self, component: Callable[..., Any], need: Need) -> Any:
        if need.obstacle:
            raise InjectionError(
                f"{describe(component)} cannot be wired",
                why=f"its parameter {need.name!r} {need.obstacle}",
                fix="Change its signature, or put a @value function around it.",
            )
        return self.get(need.name)

    def _follow(self, expression: This) -> Any:
        session = self._outwards(expression)
        found: Any = session.injector
        for step in steps_of(expression):
            if is_injector(found) and isinstance(step.name, str):
                session = session if found is session.injector else session._enter(found)
                found = session.get(step.name)
                continue
            try:
                found = found[step.name] if step.is_item else getattr(found, step.name)
            except (AttributeError, LookupError, TypeError) as failure:
                raise InjectionError(
                    f"{expression!r} cannot be followed in {title(self.injector)}",
                    why=f"{type(failure).__name__}: {failure}\nit is {needed_by(self._path)}",
                    fix="Refer to something that exists.",
                ) from failure
        return found

    def _outwards(self, expression: This) -> Session:
        session: Session | None = self
        for level in range(levels_of(expression)):
            session = session._outer if session is not None else None
            if session is None:
                raise InjectionError(
                    f"{expression!r} leads out of {title(self.injector)}",
                    why=f"injectors around it: {level}, asked for by <<: {levels_of(expression)}",
                    fix="Shift by less, or read it through the injector in which it is nested, as Outer.Inner.",
                )
        return session if session is not None else self

    def _enter(self, nested: type) -> Session:
        """The session of a nested injector; within one build there is one for each."""
        enclosure = enclosure_of(nested)
        if enclosure is None or enclosure.session._path is not self._path:
            return open_session(nested)
        within: Session = enclosure.session
        return within._nested.setdefault(enclosure.name, Session(nested, outer=within, path=self._path))

    def afresh(self) -> Session:
        """A session that builds anew, for reading a nested injector by itself; its reads count in this one."""
        outer = self._outer.afresh() if self._outer is not None else None
        path = outer._path if outer is not None else list(self._path)
        session = Session(self.injector, prefix=self._prefix, outer=outer, path=path)
        session.consumed = self.consumed
        return session

    def _outermost(self) -> Session:
        return self if self._outer is None else self._outer._outermost()

    def _missing(self, name: str) -> MissingDependencyError:
        label, owner = self.label(name), title(self.injector)
        near = nearest(name, names_of(self.injector), most=1)
        hint = f" The nearest name there is {near[0]!r}." if near else ""
        # Only a read is an AttributeError: where a layer is built, a property around it would swallow one.
        kind = MissingAttributeError if self._outermost()._prefix is None else MissingDependencyError
        derive = f"use {owner}.let({name}=...)" if self._prefix is None else f"pass {label}=... as an option"
        return kind(
            f"{owner} has no attribute {name!r}",
            why=f"{label} is needed by {needed_by(self._path)}" if self._path else f"nothing in {owner} defines it",
            fix=f"Define {name} in {owner}, or {derive}.{hint}" if self._outer is None else f"Define {label}.{hint}",
        )

    def _cycle(self, name: str) -> InjectionError:
        return InjectionError(
            f"{self.label(name)} of {title(self.injector)} depends on itself",
            why=cycle_through(self._path, self.injector, name),
            fix="Give one of them a value of its own.",
        )


def open_session(injector: type, *, prefix: str | None = None) -> Session:
    """A new build of an injector, with the injectors around it when it is nested.

    Args:
        injector: what to build.
        prefix: what stands before its attributes where they are options of a layer; ``None`` when they are not.
    """
    enclosure = enclosure_of(injector)
    if enclosure is None:
        return Session(injector, prefix=prefix)
    outer = enclosure.session.afresh()
    return Session(injector, prefix=prefix, outer=outer, path=outer._path)
