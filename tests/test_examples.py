"""The examples do what they say."""

from __future__ import annotations

import importlib.util
import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from invlearn import DATASETS, OBJECTIVES, get_objective
from invlearn.comparison.recipes import get_recipe
from invlearn.datasets.linear_sem import true_weights
from invlearn.ground import registry as ground_registry
from invlearn.methods import METHODS, get_method, get_network
from invlearn.objectives.erm import ERM
from invlearn.objectives.irmv1 import IRMv1

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def linear_sem():
    spec = importlib.util.spec_from_file_location("linear_sem", EXAMPLES / "linear_sem.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distance(weights):
    return max(abs(w - t) for w, t in zip(weights, true_weights("appendix-d", 0), strict=True))


def test_erm_keeps_the_effects_of_the_target_as_causes(linear_sem):
    assert distance(linear_sem.learn(ERM(), steps=300, lr=0.1)) > 0.3


def test_irmv1_moves_towards_the_causal_weights(linear_sem):
    irm = IRMv1(estimator="split", convention="irm-appendix-d")
    assert distance(linear_sem.learn(irm, steps=400, lr=1e-3)) < 0.25


@pytest.mark.slow
def test_irmv1_ends_at_the_causal_weights(linear_sem):
    irm = IRMv1(1e5, estimator="split", convention="irm-appendix-d")
    assert distance(linear_sem.learn(irm, steps=50_000, lr=1e-3)) < 0.03
    assert distance(linear_sem.learn(ERM(), steps=2000, lr=0.1)) > 0.3


ROOT = EXAMPLES.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]

SAYS = {
    "images.py": r"(?s)does worst.*\nThe model (clearly relies|relies|would).*\n.*does worst",
    "own_loop.py": r"(?s)erm +[45]\d% .*vrex +[78]\d% .*meta-irm +[78]\d% right in a new hospital",
    "own_module.py": r"CORAL's total on the last batch: 0\.\d+",
    "multi_class.py": r"right: 9\d%",
    "texts.py": r"\{'model__objective': .*\} 0\.\d\d",
    "weights_and_polars.py": r"R² 0\.[89]\d\nEvery row of environment '2024' has weight 0",
    "unknown_environments.py": r"(?s)erm: .* here, 0\.[0-6]\d there\nvrex: .*, 0\.[78]\d there",
    "save_and_load.py": r"(?s)good: The model does about equally well everywhere",
    "one_trial_again.py": r"numbers: \d+ furthest apart: (0\.0|\d\.\d+e-(0[7-9]|1\d))\n",
    "notebook.py": r"(?s)Comparison\(.*scanner_artefact.*<h4>",
    "reading_results.py": r"(?s)p_e=0\.9 +0\.\d+.*'version'",
    "own_objective.py": r"erm +8\.\d+\nrisk-gap +[12]\.\d+",
    "own_dataset.py": r"(?s)no recipe.*erm +0\.[34]\d*\nvrex +0\.[67]\d*\nnearest +0\.[34]",
    "typed.py": r"Run\(finished after 50 steps.*\n\[\[0\.\d+",
    "custom_loss.py": r"(?s)2023 was \d\.\d+\n.*is [01]\.\d, the mean [1-9].*right: (9\d|100)%",
}
"""What each script prints; a page of the docs prints the script, after <!-- example: NAME -->."""


@pytest.fixture
def forgotten(monkeypatch):
    """What is registered meanwhile is not known to other tests."""
    for registry in (OBJECTIVES, DATASETS, METHODS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_calls", dict(registry._calls))
    monkeypatch.setattr(ground_registry, "WORKER_CALLS", [])


@pytest.mark.parametrize(
    "script", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "linear_sem.py")
)
def test_a_script_runs_as_a_page_prints_it(script, tmp_path, monkeypatch, capsys, forgotten):
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    assert text.count("\n") <= 40
    marked = f"<!-- example: {script} -->\n```python\n{text}```\n"
    pages = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(page.count(marked) for page in pages) == 1, "No page of docs/ prints it as it is."
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert re.search(SAYS[script], capsys.readouterr().out)


def python_blocks(page):
    """A page's snippets, which build on one another; whole scripts are not among them."""
    text = (EXAMPLES.parent / page).read_text(encoding="utf-8")
    return re.findall(r"(?s)(?<!-->\n)```python\n(.*?)```", text)


@pytest.fixture
def scope():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(600, 3)), columns=["age", "dose", "scan"])
    frame["ill"] = (frame["age"] + rng.normal(size=600) > 0).astype(int)
    frame["hospital"] = rng.choice(["north", "south", "west"], 600)
    return {"frame": frame}


def test_readme_example_runs(scope):
    first, _ = python_blocks("README.md")
    exec(first.replace("random_state=0", "random_state=0, steps=20"), scope)
    assert set(scope["model"].environments_) == {"north", "south", "west"}


@pytest.mark.parametrize(("page", "block"), [("README.md", 1), ("docs/own-loop.md", 0)])
def test_three_lines_of_a_loop_run(page, block):
    logits = 2 if page == "README.md" else 1
    scope = {"torch": torch, "get_objective": get_objective, "model": torch.nn.Linear(3, logits)}
    scope |= {"x": torch.randn(8, 3), "y": torch.arange(8) % 2, "hospital": ["a", "b"] * 4}
    exec(python_blocks(page)[block], scope)
    assert scope["model"].weight.grad.abs().sum() > 0


def test_building_blocks_run(scope):
    first, second, many = python_blocks("docs/building-blocks.md")
    exec(first.replace("steps=500", "steps=110"), scope)
    assert set(scope["run"].curves["environment"]) == {"north", "south", "west"}
    exec(second.replace("steps=500", "steps=60"), scope)
    assert "not identifiable" in str(scope["run"].choice.note)
    exec(many.replace("steps=50", "steps=5"), scope)
    assert [run.steps for run in scope["runs"]] == [5] * 6


@pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")  # In 20 steps.
def test_own_rows_examples_run(scope, tmp_path, monkeypatch):
    blocks = python_blocks("docs/own-rows.md")
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        block = block.replace('FitRequest("vrex")', 'FitRequest("vrex", 1.0, steps=5)')
        exec(block.replace("random_state=0", "random_state=0, steps=20"), scope)
    assert scope["predictions"].index.equals(scope["frame"].index)
    assert scope["folds"]["test_score"].shape == (3,)
    assert scope["inferred"].environments_


def test_extending_snippet_runs(scope, forgotten):
    (only,) = python_blocks("docs/extending.md")
    exec(only, scope)
    assert get_method("neighbors").summary == "Nearest neighbors in the pooled rows."


def test_the_recipe_of_the_docs_is_one(tmp_path):
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    plan = get_recipe("colored-digits", path).plan(get_network("irmv1"))
    assert plan.objective.penalty_weight == 1000.0
    assert (plan.settings.steps, plan.network.hidden) == (300, (64,))
