"""A dataset that is somebody's function: what becomes of it, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
import torch

from invlearn.datasets import DATASETS, Option, load_benchmark, register_dataset
from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import EnvironmentsError, InvlearnError, OptionError, UnknownNameError
from invlearn.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

CODES = ("a", "b")


def rows(names, y, width=2):
    x = torch.randn(len(names) * len(y), width)
    return Environments.from_arrays(x, torch.cat([y] * len(names)), sorted([*names] * len(y)))


def parts(y=None, train=CODES, validation=CODES, test=("a", "new")):
    y = torch.tensor([0, 1, 0, 1]) if y is None else y
    return rows(train, y), validation and rows(validation, y), rows(test, y)


def wards(
    seed: int,
    size: Annotated[int, "Rows of every ward."] = 4,
    share: float = 0.5,
    kind: Annotated[Literal["plain", "odd"], "How they are drawn."] = "plain",
):
    """Wards of one hospital.

    More of it.
    """
    torch.manual_seed(seed)
    return parts(torch.arange(size) % 2)


def hidden_names(seed: int, codes: Sequence[str] = "ab", size: Annotated[int, "Rows."] = 4):
    """Whose annotations only a type checker can read."""
    return parts()


@pytest.fixture
def load():
    """Register a function as 'mine' and build it; None only registers."""
    before = set(DATASETS)

    def register(build, **options):
        DATASETS.pop("mine", None)
        register_dataset("mine", build)
        return load_benchmark("mine", seed=3, **options)

    yield register
    for name in set(DATASETS) - before:
        del DATASETS[name]


def test_its_options_are_the_parameters_with_their_defaults_helps_and_choices(load):
    problem = load(wards, size="6")
    assert problem.train.sizes == (6, 6)
    assert (problem.name, problem.seed) == ("mine", 3)
    dataset = DATASETS["mine"]
    assert dataset.summary == "Wards of one hospital."
    assert dataset.source.endswith("test_from_function.wards")
    assert dataset.options == {
        "size": Option(4, "Rows of every ward."),
        "share": Option(0.5, ""),
        "kind": Option("plain", "How they are drawn.", ("plain", "odd")),
    }
    with pytest.raises(OptionError, match="'kind' to be one of 'plain', 'odd', got 'even'"):
        load_benchmark("mine", seed=0, kind="even")
    register_dataset("mine", wards)


def test_annotations_that_cannot_be_read_cost_the_help_only(load):
    assert load(hidden_names).train.names == ("a", "b")
    assert DATASETS["mine"].options["size"] == Option(4, "")


def test_a_summary_and_a_source_may_be_given():
    register_dataset("given", wards, summary="Two wards.", source="The hospital.")
    assert (DATASETS["given"].summary, DATASETS["given"].source) == ("Two wards.", "The hospital.")
    del DATASETS["given"]


@pytest.mark.parametrize(
    ("y", "loss", "n_outputs"),
    [
        (torch.tensor([0, 1, 0, 1]), "logistic", 1),
        (torch.tensor([0.0, 1.0, 1.0, 0.0]), "logistic", 1),
        (torch.tensor([0, 1, 2, 2]), "softmax", 3),
        (torch.tensor([0.5, 1.5, 2.0, 1.0]), "squared", 1),
        (torch.rand(4, 3), "squared", 3),
    ],
)
def test_the_loss_is_told_by_the_targets(load, y, loss, n_outputs):
    problem = load(lambda seed: parts(y))
    assert (problem.loss, problem.n_outputs) == (loss, n_outputs)


@pytest.mark.parametrize(
    ("test", "target"),
    [(("a", "new"), "new"), (("new", "other", "a"), "other"), (("a", "b"), "b")],
)
def test_the_target_is_the_last_environment_that_is_not_trained_on(load, test, target):
    assert load(lambda seed: parts(test=test)).target == target


def test_a_problem_says_more(load):
    def build(seed):
        train, _, test = parts(torch.tensor([3, 5, 7, 5]))
        shown = EvaluationSet.from_environments(test, "test")
        return Problem("theirs", train, None, shown, "a", "softmax", n_outputs=8)

    problem = load(build)
    assert (problem.name, problem.target, problem.n_outputs) == ("mine", "a", 8)


def needs_more(seed, size):
    """Rows."""


def takes_a_list(seed, sizes=(1, 2)):
    """Rows."""


def takes_anything(seed, **options):
    """Rows."""


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (3, "Expected a function of a seed that makes the rows of 'mine', got 3."),
        (dict, "a function with a parameter 'seed' .* got dict"),
        (lambda: None, "a function with a parameter 'seed' .*lambda>\\(\\)\\. Add it, and draw"),
        (needs_more, "with a default .* got no default for 'size'. Give it one, or settle it in"),
        (takes_a_list, r"got \(1, 2\) for 'sizes=\(1, 2\)'"),
        (takes_anything, r"got no default for '\*\*options'"),
    ],
)
def test_functions_that_cannot_be_called_are_refused(build, said):
    with pytest.raises(OptionError, match=said):
        register_dataset("mine", build)
    assert "mine" not in DATASETS


def wrong_width(seed):
    train, validation, test = parts()
    return train, validation, rows(test.names, test.y[:4], width=3)


def wrong_target(seed):
    train, validation, test = parts()
    shown = EvaluationSet.from_environments(test, "test")
    return Problem("x", train, validation, shown, "nw", "logistic")


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda seed: None, OptionError, r"Environments from dataset 'mine', .*got NoneType\."),
        (lambda seed: parts()[:2], OptionError, r"got \(Environments, Environments\)\."),
        (lambda seed: (parts()[0], None, None), OptionError, r"got \(Environments, NoneType, None"),
        (
            lambda seed: parts(validation=("a", "c")),
            EnvironmentsError,
            r"of the training environments \['a', 'b'\] from dataset 'mine', got \['a', 'c'\]",
        ),
        (lambda seed: parts(torch.tensor([1990, 2001])), EnvironmentsError, "from 1990 to 2001"),
        (wrong_width, EnvironmentsError, "Expected rows of one shape"),
        (wrong_target, UnknownNameError, "target among the test environments of 'mine' 'nw'. Did"),
        (
            lambda seed: replace(wrong_target(0), target="new", loss="squared"),
            EnvironmentsError,
            "float targets",
        ),
        (lambda seed: replace(wrong_target(0), target="new", loss="hinge"), InvlearnError, "loss"),
    ],
)  # fmt: skip
def test_rows_that_are_no_problem_are_refused(load, build, error, said):
    with pytest.raises(error, match=said):
        load(build)


def test_no_validation_rows_are_fine(load):
    assert load(lambda seed: parts(validation=None)).validation is None


@pytest.mark.parametrize("name", ["linear-sem", "colored-digits"])
def test_a_built_in_name_is_refused(name):
    with pytest.raises(OptionError, match=f"'{name}' is a dataset already. Choose another."):
        register_dataset(name, wards)
