"""Things by name: built in, registered by somebody's call, or brought by an installed package."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from functools import partial
from types import FunctionType, ModuleType
from typing import Any, TypeVar

from invlearn.errors import OptionError, PackageWarning, unknown_name

Entry = TypeVar("Entry")
Register = TypeVar("Register", bound=Callable[..., None])

WORKER_CALLS: list[Callable[[], None]] = []
"""What every worker process calls before its first item."""

_NAME = re.compile(r"[A-Za-z0-9][\w-]*", re.ASCII)


class Registry(MutableMapping[str, Entry]):
    """Things of one kind by name.

    Where a name is not known, and where all of them are listed, installed packages are asked: each
    entry point of the group ``invlearn.<kind>s`` is loaded, once. It names a module in which
    something is registered, or what is to be registered by its name. One that fails is a
    `PackageWarning` and left out.

    Parameters
    ----------
    kind : str
        In the singular: 'objective'.
    entries : {name: entry}
        Those built in.
    made_of : callable
        From an entry to what somebody wrote of it, by which the same one is recognized.
    beside : Registry, optional
        Another one that may not have the same names.
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Entry],
        *,
        made_of: Callable[[Entry], Any] = lambda entry: entry,
        beside: Registry[Any] | None = None,
    ) -> None:
        self.kind, self._made_of = kind, made_of
        self._entries = dict(entries)
        self._calls: dict[str, Callable[[], None]] = {}
        self._register: Callable[[str, Any], None] | None = None
        self._searched = False
        self._others: list[Registry[Any]] = []
        if beside is not None:
            self._others.append(beside)
            beside._others.append(self)

    def registrar(self, function: Register) -> Register:
        """Decorate the function ``register(name, what)`` that checks and calls `add`."""
        self._register = function
        _REGISTRIES[self.kind] = self
        return function

    def add(self, name: str, entry: Entry) -> None:
        """Make an entry known, here and in the worker processes of a comparison.

        Raises
        ------
        OptionError
            A name of other characters, or one that means something else.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise OptionError(
                f"Expected the name of a {self.kind} made of letters, digits, '-' and '_', got "
                f"{name!r}. It is typed on the command line and names files."
            )
        for registry in (self, *self._others):
            known = registry._entries.get(name)
            if known is None or (registry is self and self._same(known, entry)):
                continue
            what = getattr(known, "title", None) or f"a {registry.kind} already"
            raise OptionError(
                f"Expected a name that no {registry.kind} has, '{name}' is {what}. Choose another."
            )
        if name in self._entries and name not in self._calls:
            return  # Built in, and every process has it.
        if name in self._entries:
            del self[name]
        self._entries[name] = entry
        self._calls[name] = partial(_know, self.kind, name, entry)
        WORKER_CALLS.append(self._calls[name])

    def find(self, name: str) -> Entry:
        """The entry of a name; UnknownNameError with the nearest one that is known."""
        if name not in self:
            raise unknown_name(self.kind, name, self)
        return self[name]

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            self._search()
        return self._entries[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]
        with suppress(ValueError, KeyError):
            WORKER_CALLS.remove(self._calls.pop(name))

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        self._search()
        return len(self._entries)

    def __repr__(self) -> str:
        return f"{self.kind}s: {', '.join(self)}"

    def _search(self) -> None:
        """Load the entry points, if nobody has."""
        from importlib.metadata import entry_points

        if self._register is None or self._searched:
            return
        self._searched = True
        for point in entry_points(group=f"invlearn.{self.kind}s"):
            try:
                found = point.load()
                if not isinstance(found, ModuleType):
                    self._register(point.name, found)
            except Exception as error:  # Whatever a stranger's module raises.
                package = point.dist.name if point.dist is not None else "unknown"
                said = f"{type(error).__name__}: {str(error).rstrip('.')}"
                warnings.warn(
                    f"The {self.kind} '{point.name}' of the package '{package}' ({point.value}) is "
                    f"left out. {said}. Update the package, or remove it.",
                    PackageWarning,
                    stacklevel=3,
                )

    def _same(self, known: Entry, entry: Entry) -> bool:
        """Whether an entry is made of the same thing, perhaps defined anew, as another."""
        old, new = self._made_of(known), self._made_of(entry)
        if isinstance(new, FunctionType | type):
            return old is new or (_place(old) == _place(new) and "<lambda>" not in _place(new)[1])
        if type(old) is not type(new):
            return _place(type(old)) == _place(type(new))
        return old is new or repr(old) == repr(new)


_REGISTRIES: dict[str, Registry[Any]] = {}
"""Those of this process, by kind; see `names_from_outside`."""


def names_from_outside() -> dict[str, list[str]]:
    """What is not built in, {kind: names}, as far as can be told without loading anything."""
    from importlib.metadata import entry_points

    found, points = {}, entry_points()
    for kind in ("dataset", "method", "objective"):
        names = {point.name for point in points.select(group=f"invlearn.{kind}s")}
        if kind in _REGISTRIES:
            names |= _REGISTRIES[kind]._calls.keys()
        if names:
            found[kind] = sorted(names)
    return found


def _know(kind: str, name: str, entry: Any) -> None:
    """In a worker: what the main process says goes, whatever the main script registers there."""
    _REGISTRIES[kind][name] = entry


def _place(defined: Any) -> tuple[str, str]:
    """Where a function or class was defined; a worker knows the main script by another name."""
    module = str(getattr(defined, "__module__", ""))
    name = str(getattr(defined, "__qualname__", repr(defined)))
    return "__main__" if module == "__mp_main__" else module, name
