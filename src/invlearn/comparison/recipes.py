"""Recipes: the settings each method is trained with on a dataset, as data."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, cast

from invlearn.errors import OptionError, unknown_name
from invlearn.learning.plan import Layers, Plan
from invlearn.methods import Network
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
    oracle : bool
        Whether a number in it was chosen by looking at a test environment.
    note : str
        Where it comes from.
    """

    name: str
    oracle: bool
    note: str
    _data: Mapping[str, Any]

    @property
    def common(self) -> dict[str, Any]:
        """The settings that hold for every method that has none of its own."""
        return {"hidden": self._data.get("hidden", []), **self._data.get("settings", {})}

    def plan(
        self,
        method: Network,
        *,
        steps: int | None = None,
        hyper: Mapping[str, float] | None = None,
    ) -> Plan:
        """The plan of a method; `hyper` overrides the recipe, whose schedules follow `steps`."""
        methods = self._data.get("methods", {})
        own = methods.get(method.name, methods.get(method.like, {}))
        common = self._data.get("settings", {})
        schedule = own.get("schedule", self._data.get("schedule", {}))
        settings = Settings(
            **{**common, **own.get("settings", {})}, schedule=PenaltySchedule(**schedule)
        )
        objective = replace(method.objective, **own.get("options", {}))
        values = {**own.get("hyper", {}), **method.hyper, **(hyper or {})}
        return Plan(
            objective.with_numbers(values),
            Layers(tuple(own.get("hidden", self._data.get("hidden", ())))),
            settings if steps is None else settings.with_steps(steps),
        )


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both tables as one, what `above` says going first, at every depth."""
    merged = {**below, **above}
    for name in below.keys() & above.keys():
        if isinstance(below[name], Mapping) and isinstance(above[name], Mapping):
            merged[name] = _over(below[name], above[name])
    return merged


@cache
def _recipes() -> dict[str, dict[str, Any]]:
    text = files("invlearn.comparison").joinpath("recipes.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def get_recipe(dataset: str, name: str | None = None, *, oracle: bool = True) -> Recipe:
    """A dataset's recipe by name; None takes its first one (that is not an oracle, if asked).

    Raises
    ------
    UnknownNameError, OptionError
        No such recipe, none for the dataset, or an oracle where none may be.
    """
    recipes = _recipes().get(dataset, {})
    if not recipes:
        raise OptionError(f"Dataset '{dataset}' has no recipe yet; datasets: {list(_recipes())}.")
    allowed = {n: data for n, data in recipes.items() if oracle or not data["oracle"]}
    name = next(iter(allowed), "none") if name is None else name
    if name not in recipes:
        raise unknown_name(f"recipe for {dataset}", name, recipes)
    if name not in allowed:
        raise OptionError(
            f"Expected a recipe in which nothing was chosen on a test environment, '{name}' is an "
            f"oracle. Use one of: {', '.join(allowed) or 'none yet'}."
        )
    data = recipes[name]
    if "like" in data:
        other, its = data["like"]
        data = _over(_recipes()[other][its], data)
    return Recipe(name, bool(data["oracle"]), str(data["note"]), data)
