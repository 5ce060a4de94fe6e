"""Names from outside: whose they are, which is the same again, what installed packages bring."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass

import pytest

from invlearn.errors import OptionError, PackageWarning, UnknownNameError
from invlearn.ground import registry as module
from invlearn.ground.registry import WORKER_CALLS, Registry, names_from_outside


@pytest.fixture
def things(monkeypatch):
    """A registry of functions, into which 'here' and the names of packages are put."""
    monkeypatch.setattr(module, "WORKER_CALLS", [])
    monkeypatch.setattr(module, "_REGISTRIES", {})
    made = Registry("thing", {"here": len})

    @made.registrar
    def register(name, thing):
        if not callable(thing):
            raise OptionError(f"Expected a function, got {thing!r}.")
        made.add(name, thing)

    made.register = register
    return made


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write an installed package with entry points of things, and a module for each text."""

    def write(entries, **modules):
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        info = tmp_path / "their_things-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-things\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[invlearn.things]\n" + entries)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.startswith("their_")]:
        del sys.modules[name]


def first(seed):
    """Something."""


def second(seed):
    """Something else."""


def test_what_is_registered_is_found_listed_and_known_to_workers(things):
    things.register("mine", first)
    assert things.find("mine") is things["mine"] is first
    assert list(things) == ["here", "mine"]
    assert len(things) == 2
    assert repr(things) == "things: here, mine"
    (call,) = module.WORKER_CALLS
    del things["mine"]
    assert module.WORKER_CALLS == []
    call()
    assert things["mine"] is first


def test_a_misspelled_name_is_told_the_nearest(things):
    with pytest.raises(UnknownNameError, match=r"thing 'her'\. Did you mean 'here'\? Known: here"):
        things.find("her")


def test_a_name_that_means_something_else_is_refused(things):
    things.register("mine", first)
    for name in ("mine", "here"):
        with pytest.raises(OptionError) as caught:
            things.register(name, second)
        assert str(caught.value) == (
            f"Expected a name that no thing has, '{name}' is a thing already. Choose another."
        )
    assert things["mine"] is first
    things.register("a", lambda: 1)
    with pytest.raises(OptionError):
        things.register("a", lambda: 2)  # Of one place by name, but not the same.


def test_the_same_again_and_what_was_defined_anew_in_its_place_are_taken(things):
    things.register("here", len)
    assert module.WORKER_CALLS == []
    things.register("mine", first)
    things.register("mine", first)
    again = type(first)(first.__code__, {"__name__": __name__}, "first")
    again.__module__, again.__qualname__ = first.__module__, "first"
    things.register("mine", again)
    assert things["mine"] is again
    assert len(module.WORKER_CALLS) == 1


def cell(default):
    """What a notebook's cell defines each time it runs, with another default."""

    @dataclass(frozen=True)
    class Thing:
        number: int = default

        def __call__(self):
            """Nothing."""

    return Thing


def test_a_class_that_a_cell_defined_anew_is_taken_and_another_number_is_not(things):
    old, new = cell(1), cell(2)
    things.register("mine", old())
    things.register("mine", old(1))
    with pytest.raises(OptionError, match="'mine' is a thing already"):
        things.register("mine", old(3))
    things.register("mine", new())
    assert things["mine"] == new(2)


def test_names_are_of_one_word(things):
    for name in ("", "my thing", "a,b", "x.csv", "a/b", "-x", 3):
        with pytest.raises(OptionError, match=r"of letters, digits, '-' and '_', got .* It is"):
            things.register(name, first)


def test_two_registries_beside_each_other_have_no_name_in_common(things):
    others = Registry("other", {"there": len}, beside=things)
    others.registrar(others.add)
    things.register("mine", first)
    for name in ("here", "mine"):
        with pytest.raises(OptionError, match=rf"no thing has, '{name}' is a thing already"):
            others.add(name, first)
    with pytest.raises(OptionError, match="no other has, 'there' is a other already"):
        things.register("there", first)


def test_packages_are_asked_once_and_only_for_what_is_not_known(things, package):
    package(
        "theirs = their_module\ntwo = their_function:two\n",
        their_module="import builtins\nbuiltins.seen = getattr(builtins, 'seen', 0) + 1\n"
        "from builtins import things\ndef one(): pass\nthings.register('one', one)\n",
        their_function="def two(): pass\n",
    )
    import builtins

    builtins.things = things
    try:
        assert things["here"] is len
        assert "their_module" not in sys.modules
        assert things.find("two").__module__ == "their_function"
        assert list(things) == ["here", "one", "two"]
        assert builtins.seen == 1
    finally:
        del builtins.things
        del builtins.seen


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("their_broken", "RuntimeError: cannot be imported today"),
        ("their_fine:missing", "AttributeError: .* has no attribute 'missing'"),
        ("their_fine:number", "OptionError: Expected a function, got 3"),
        ("their_fine:here", "OptionError: Expected a name that no thing has, 'here'"),
    ],
)
def test_a_package_that_fails_is_a_warning_that_names_it(things, package, entry, said):
    name = "here" if entry.endswith(":here") else "bad"
    package(
        f"{name} = {entry}\nfine = their_fine:fine\n",
        their_broken="raise RuntimeError('cannot be imported today.')\n",
        their_fine="number = 3\ndef fine(): pass\ndef here(): pass\n",
    )
    start = rf"The thing '{name}' of the package 'their-things' \({entry}\) is left out\. "
    with pytest.warns(PackageWarning, match=start + said + r".*\. Update the package, or remove"):
        assert list(things) == ["here", "fine"]
    assert things["here"] is len
    assert list(things) == ["here", "fine"]  # Said once.


def test_outside_names_are_listed_by_kind_without_loading(things, monkeypatch):
    assert names_from_outside().keys() <= {"dataset", "method", "objective"}
    monkeypatch.setitem(module._REGISTRIES, "method", things)
    things.register("mine", first)
    assert "mine" in names_from_outside()["method"]


def test_the_libraries_own_registries_register_themselves():
    from invlearn import DATASETS, OBJECTIVES
    from invlearn.methods import METHODS

    kinds = {registry.kind for registry in (OBJECTIVES, DATASETS, METHODS)}
    assert kinds == module._REGISTRIES.keys()
    assert isinstance(WORKER_CALLS, list)
