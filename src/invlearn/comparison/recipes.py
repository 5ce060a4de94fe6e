"""Recipes: the settings each method is trained with on a dataset, as data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from torch import nn

from invlearn.comparison.recipe_files import read_recipe, said
from invlearn.errors import OptionError, UnknownNameError, unknown_name
from invlearn.learning.plan import Layers, Plan
from invlearn.methods import Network, known_methods
from invlearn.objectives import get_objective
from invlearn.training import PenaltySchedule, Settings


def describe_plan(plan: Plan) -> dict[str, Any]:
    """A recipe's plan as plain data, for the summary; options that were left open are left out."""
    settings, schedule = asdict(plan.settings), plan.settings.schedule
    for name in ("lr_factor", "schedule", "micro_batch", "memory_budget"):
        settings.pop(name)
    objective = plan.objective
    if objective.strength and objective.erm_at_zero:
        settings["penalty_schedule"] = (
            f"{schedule.kind} from step {schedule.start}"
            + (f" to {schedule.end}" if schedule.kind == "linear" else "")
            + f", {schedule.before:g} before; at the anneal step: {schedule.at_anneal}"
        )
    if settings["precision"] == "float32":
        settings.pop("precision")
    described = {
        **{f.name: getattr(objective, f.name) for f in fields(objective)},
        "hidden": list(cast(Layers, plan.network).hidden),
        **settings,
    }
    return {name: value for name, value in described.items() if value not in (None, {}, "")}


@dataclass(frozen=True)
class Recipe:
    """A named set of plans for one dataset.

    Attributes
    ----------
    name : str
        A file's is its path.
    oracle : bool
        Whether a number in it was chosen by looking at a test environment.
    note : str
        Where it comes from.
    notice : str
        What a user has to know before any result: that it is a file's, or nobody's.
    """

    name: str
    oracle: bool
    note: str
    data: Mapping[str, Any]
    notice: str = ""

    def __hash__(self) -> int:
        return hash((self.name, json.dumps(self.data, sort_keys=True)))

    @property
    def content(self) -> dict[str, Any]:
        """All that makes its plans what they are, as plain data."""
        return {"name": self.name, "oracle": self.oracle, "data": dict(self.data)}

    @property
    def common(self) -> dict[str, Any]:
        """The settings that hold for every method that has none of its own."""
        return {"hidden": self.data.get("hidden", []), **self.data.get("settings", {})}

    def plan(
        self,
        method: Network,
        *,
        steps: int | None = None,
        hyper: Mapping[str, float] | None = None,
    ) -> Plan:
        """The plan of a method; `hyper` overrides the recipe, whose schedules follow `steps`.

        Raises
        ------
        OptionError, UnknownNameError
            Settings that no run can have; of a file, its name is in the message.
        """
        try:
            plan = self._plan(method)
            plan.settings.make_optimizer(nn.Linear(1, 1))
        except (OptionError, UnknownNameError, TypeError) as error:
            if not is_file(self.name):
                raise
            kind = OptionError if isinstance(error, TypeError) else type(error)
            raise kind(f"In '{self.name}', for {method.name}: {error}") from error
        return replace(
            plan,
            objective=plan.objective.with_numbers(hyper or {}),
            settings=plan.settings if steps is None else plan.settings.with_steps(steps),
        ).resolved(())

    def _plan(self, method: Network) -> Plan:
        methods = self.data.get("methods", {})
        own = methods.get(method.name, methods.get(method.like, {}))
        common = self.data.get("settings", {})
        schedule = own.get("schedule", self.data.get("schedule", {}))
        waits = schedule.get("kind") == FOLLOWS
        if waits and len(schedule) > 1:
            raise OptionError(
                f"Expected nothing beside the kind of a '{FOLLOWS}' schedule, got {schedule}. "
                "Take the kind 'step' or leave the others out."
            )
        objective = get_objective(method.objective, own.get("options", {}))
        plan = Plan(
            objective.with_numbers({**own.get("hyper", {}), **method.hyper}),
            Layers(tuple(own.get("hidden", self.data.get("hidden", ())))),
            Settings(
                **{**common, **own.get("settings", {})},
                schedule=PenaltySchedule() if waits else PenaltySchedule(**schedule),
            ),
            frozenset({"warm_up"} if waits else ()),
        )
        plan.resolved(())  # Which looks at its schedule.
        return plan


FOLLOWS = "warm-up"
"""The kind of schedule that is a fifth of the steps with ERM, for objectives that can wait."""

_ANY = "*"
"""Of what is no dataset's."""


def is_file(name: str | Path | None) -> bool:
    """Whether a recipe is asked for by a file instead of a name."""
    return isinstance(name, Path) or (name is not None and name.endswith(".toml"))


@cache
def _recipes() -> dict[str, dict[str, Any]]:
    text = files("invlearn.comparison").joinpath("recipes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def get_recipe(dataset: str, name: str | Path | None = None, *, oracle: bool = True) -> Recipe:
    """A dataset's recipe by name, or a file's.

    Parameters
    ----------
    dataset : str
        One without recipes has 'defaults'.
    name : str or Path, optional
        A text that ends in .toml is a file too, see `read_recipe`; None takes the dataset's first
        recipe (that is not an oracle, if asked).
    oracle : bool
        Whether it may be one.

    Raises
    ------
    UnknownNameError, OptionError, DataFileError
        No such recipe, an oracle where none may be, a file that is none.
    """
    if name is not None and is_file(name):
        return _of_file(Path(name), oracle)
    recipes = _recipes().get(dataset, {})
    notice = ""
    if not recipes:
        recipes = _recipes()[_ANY]
        notice = f"'{dataset}' has no recipe: methods are trained with defaults, not tuned to it."
    allowed = {n: data for n, data in recipes.items() if oracle or not data["oracle"]}
    name = next(iter(allowed), "none") if name is None else str(name)
    if name not in recipes:
        raise unknown_name(f"recipe for {dataset}", name, recipes)
    if name not in allowed:
        raise OptionError(
            f"Expected a recipe in which nothing was chosen on a test environment, '{name}' is an "
            f"oracle. Use one of: {', '.join(allowed) or 'none yet'}."
        )
    data = _whole(recipes[name])
    note = " ".join(filter(None, (notice, str(data["note"]))))
    return Recipe(name, bool(data["oracle"]), note, data, notice)


def _of_file(path: Path, oracle: bool) -> Recipe:
    own = read_recipe(path)
    dataset, name = like = tuple(own.get("like", (_ANY, next(iter(_recipes()[_ANY])))))
    for what, got, known in (
        ("dataset", dataset, _recipes()),
        ("recipe", name, _recipes().get(dataset, {})),
    ):
        if got not in known:
            raise unknown_name(f"{what} that '{path}' is like", got, set(known) - {_ANY})
    data = _whole({**own, "like": list(like)})
    # Settings that were chosen on a test environment stay so in another file.
    tainted = bool(own.get("oracle", False) or _recipes()[dataset][name]["oracle"])
    if tainted and not oracle:
        raise OptionError(
            f"Expected a recipe in which nothing was chosen on a test environment, '{path}' is an "
            "oracle, or like one. Use another."
        )
    rest = "the defaults" if dataset == _ANY else f"'{name}' of {dataset}"
    notice = f"Settings from '{path}': {said(own)}; the rest from {rest}."
    recipe = Recipe(str(path), tainted, f"{notice} {own.get('note', '')}".strip(), data, notice)
    for method in own.get("methods", {}):
        known = {name: one for name, one in known_methods().items() if isinstance(one, Network)}
        if method not in known:
            raise unknown_name(f"method that trains a network, in '{path}',", method, known)
        recipe.plan(known[method])
    return recipe


def _whole(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with all that the one it is like says beside it."""
    if "like" not in data:
        return dict(data)
    dataset, name = data["like"]
    return _over(_whole(_recipes()[dataset][name]), data)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables as one, what `above` says going first, at every depth."""
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        both = isinstance(below[name], Mapping) and isinstance(above[name], Mapping)
        # A schedule of another kind is another one.
        if both and not (name == "schedule" and "kind" in above[name]):
            merged[name] = _over(below[name], above[name])
    return merged
