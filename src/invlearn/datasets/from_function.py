"""A dataset that is somebody's function: its options by its signature, a problem by its rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args, get_origin

import torch

from invlearn.datasets.base import Dataset, Made, Option
from invlearn.environments import Environments, EvaluationSet
from invlearn.environments.checked import check_alike
from invlearn.errors import EnvironmentsError, OptionError, unknown_name
from invlearn.losses import get_loss
from invlearn.problem import Problem

_KINDS = (bool, int, float, str)


def describe(name: str, build: Callable[..., Made], summary: str, source: str) -> Dataset:
    """The entry of a function: its parameters beside `seed`, with their defaults, are its options.

    The text of an ``Annotated[int, "Of every ward."]`` is an option's help; a ``Literal`` lists its
    choices.

    Raises
    ------
    OptionError
        No function, no parameter `seed`, an option without a default or with one of another kind.
    """
    if not callable(build):
        raise OptionError(
            f"Expected a function of a seed that makes the rows of '{name}', got {build!r}."
        )
    parameters = dict(_signature(build).parameters)
    if parameters.pop("seed", None) is None:
        raise OptionError(
            f"Expected a function with a parameter 'seed' that makes the rows of '{name}', got "
            f"{_called(build)}{_signature(build)}. Add it, and draw everything from it."
        )
    options = {}
    for parameter in parameters.values():
        default = parameter.default
        named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if not named or type(default) not in _KINDS:
            got = "no default" if default is parameter.empty else repr(default)
            raise OptionError(
                f"Expected options of '{name}' by name, each with a default that is true or false, "
                f"a number or a text, got {got} for '{parameter}'. Give it one, or settle it "
                f"inside {_called(build)}."
            )
        options[parameter.name] = _option(default, parameter.annotation)
    first = (inspect.getdoc(build) or "").strip().partition("\n")[0]
    place = f"{getattr(build, '__module__', '')}.{_called(build)}"
    return Dataset(name, summary or first, source or place, build, options)


def problem_of(dataset: Dataset, made: Made, seed: int) -> Problem:
    """What a dataset's function returned, as a problem that was looked at.

    Of bare rows the loss is told by the targets: logistic for 0 and 1, softmax for the whole
    numbers 0 to k - 1, squared for other numbers. The target is the last of the test's environments
    that is not trained on.

    Raises
    ------
    EnvironmentsError, OptionError, UnknownNameError
        Rows that are no problem.
    """
    name = dataset.name
    problem = made if isinstance(made, Problem) else _problem(name, made)
    train, validation, test = problem.train, problem.validation, problem.test
    if validation is not None and validation.names != train.names:
        raise EnvironmentsError(
            f"Expected validation rows of the training environments {list(train.names)} from "
            f"dataset '{name}', got {list(validation.names)}. Split the training rows: "
            "train, validation = rows.split(0.2, seed=seed)."
        )
    if problem.target not in test.names:
        raise unknown_name(f"target among the test environments of '{name}'", problem.target,
                           test.names)  # fmt: skip
    parts = {"training": (train.x, train.y), "test": (test.x, torch.cat(test.targets))}
    if validation is not None:
        parts["validation"] = (validation.x, validation.y)
    check_alike(list(parts), [x for x, _ in parts.values()], [y for _, y in parts.values()])
    for _, y in parts.values():
        get_loss(problem.loss).check(y, problem.n_outputs)
    return replace(problem, name=name, seed=seed)


def _problem(name: str, made: Any) -> Problem:
    rows = made if isinstance(made, tuple) else ()
    if (
        len(rows) != 3
        or not all(isinstance(part, Environments) for part in (rows[0], rows[2]))
        or not isinstance(rows[1], Environments | None)
    ):
        got = (
            f"({', '.join(type(part).__name__ for part in rows)})" if rows else type(made).__name__
        )
        raise OptionError(
            f"Expected (training, validation, test) Environments from dataset '{name}', the second "
            f"None where there is none, or a Problem; got {got}."
        )
    train, validation, test = rows
    y = torch.cat([part.y for part in rows if part is not None])
    loss, outputs = "squared", 1 if y.ndim == 1 else y.shape[1]
    if y.ndim == 1 and bool(((y == 0) | (y == 1)).all()):
        loss = "logistic"
    elif not y.is_floating_point():
        known = torch.unique(y)
        loss, outputs = "softmax", len(known)
        if y.ndim > 1 or bool((known != torch.arange(outputs)).any()):
            raise EnvironmentsError(
                f"Expected targets of '{name}' as classes 0, 1, 2 ..., each of which occurs, or as "
                f"numbers of a float type, got whole numbers from {int(y.min())} to {int(y.max())}."
                " Number the classes from 0, convert the numbers to float, or return a Problem "
                "with loss and n_outputs."
            )
    new = [environment for environment in test.names if environment not in train.names]
    return Problem(
        name,
        train,
        validation,
        EvaluationSet.from_environments(test, "test"),
        (new or test.names)[-1],
        loss,
        outputs,
    )


def _option(default: Any, annotation: Any) -> Option:
    texts: list[str] = []
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        texts = [text for text in more if isinstance(text, str)]
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    return Option(default, " ".join(texts), choices)


def _signature(build: Callable[..., Any]) -> inspect.Signature:
    for evaluated in (True, False):  # Some annotations are for type checkers only.
        with suppress(Exception):
            return inspect.signature(build, eval_str=evaluated)
    return inspect.Signature()  # Some builtins have none.


def _called(build: Callable[..., Any]) -> str:
    return str(getattr(build, "__qualname__", type(build).__name__))
