"""The public names, each imported when it is asked for, and what is not imported until then."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib.metadata import version

import pytest

import invlearn

HEAVY = ("torch", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "jinja2", "pooch")

EVERY_HELP = """
import contextlib, io, typer
from invlearn.cli import app
command = typer.main.get_command(app)
said = {}
for words in [[], *([name] for name in command.commands)]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command([*words, "--help"], prog_name="invlearn", standalone_mode=False)
    assert "Usage: invlearn" in out.getvalue()
    said[" ".join(words)] = out.getvalue()
assert {"", "compare", "search", "fit", "datasets"} <= said.keys()
"""


def loaded(code):
    """Which of the heavy libraries are loaded after some code, in a process of its own."""
    code += f"\nimport sys; print('loaded:', *[n for n in {HEAVY!r} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split("loaded:")[1].split())


@pytest.mark.parametrize("name", invlearn.__all__)
def test_every_public_name_is_there_and_documented(name):
    found = getattr(invlearn, name)
    assert name in dir(invlearn)
    if callable(found):
        assert found.__doc__
        assert found.__module__.startswith("invlearn.")
        assert pickle.loads(pickle.dumps(found)) is found


def test_the_list_of_public_names_is_complete():
    assert {"InvariantClassifier", "Trainer", "compare", "OBJECTIVES"} <= set(invlearn.__all__)
    everything: dict[str, object] = {}
    exec("from invlearn import *", everything)
    assert set(invlearn.__all__) <= everything.keys()
    assert invlearn.__version__ == version("invariant-learn")


def test_a_name_that_is_not_public_is_said():
    with pytest.raises(AttributeError, match="module 'invlearn' has no attribute 'Classifier'"):
        invlearn.Classifier  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Classifier' from 'invlearn'"):
        from invlearn import Classifier  # noqa: F401


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("import invlearn.cli; invlearn.__version__", set()),
        (EVERY_HELP, set()),
        # pandas takes pyarrow along.
        ("from invlearn import Trainer", {"torch", "numpy", "pandas", "pyarrow"}),
        (
            # What a worker of a comparison imports.
            "import invlearn.comparison.trials, invlearn.comparison.folds, invlearn.methods",
            {"torch", "numpy", "pandas", "pyarrow"},
        ),
    ],
    ids=["command line", "help", "trainer", "worker"],
)
def test_only_what_is_needed_is_loaded(code, wanted):
    assert loaded(code) == wanted


def test_the_command_line_as_a_module():
    for arguments, said in {
        ("--version",): f"invlearn {version('invariant-learn')}",
        ("compare", "--help"): "Usage: invlearn compare",
    }.items():
        run = subprocess.run(
            [sys.executable, "-W", "error", "-m", "invlearn", *arguments],
            capture_output=True,
            text=True,
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert said in run.stdout
