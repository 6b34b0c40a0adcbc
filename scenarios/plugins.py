"""Names from outside: how a program registers its own, and which ones a scenario uses.

What a name may stand for:

| name | the object, or what is at "module:attribute" |
|---|---|
| world | an `envs.interface.World` |
| environment | a function that makes one for the worlds `pettingzoo` and `gymnasium` (`envs.adapters`) |
| recipe | a `scenarios.recipes.Recipe` |
| objective | a subclass of `node.learners.on_policy.objectives.Clip`, called with the section `algorithm` |
| representation | a function of (`Shape`, `Algorithm`) that gives an `ActionValues` of `node.learners.off_policy` |
| link preset | a `topology.link.presets.Preset`, a `LinkSpec`, or a mapping of link attributes as in ``presets` |
| sink | a class or a function of (run's directory, `after`) that gives a `coordinator.records.sinks.Sink` |
| report metric | a function of a `coordinator.study.runs.Run` that gives a number, or None |
"""

from collections.abc import Iterator
from typing import Any

from scenarios.registry import (
    ALGORITHMS,
    ENVIRONMENTS,
    LINK_PRESETS,
    METRICS,
    OBJECTIVES,
    REPRESENTATIONS,
    SINKS,
    WORLDS,
    Plugin,
    Registry,
    RegistryError,
)
from scenarios.schema import TRACE, Change, Scenario


def register_world(name: str, world: Any) -> None:
    """Let scenarios name a world of this program's (`env.name`).

    Args:
        name: What scenarios call it.
        world: Where its `envs.interface.World` is, as "module:attribute"; or the object, which runs with `in_process=True` only.

    Raises:
        RegistryError: the text has another form, or the name is taken.
    """
    WORLDS.register(name, world)


def register_recipe(name: str, recipe: Any) -> None:
    """Let scenarios name an algorithm of this program's (`algorithm.name`); as `register_world`, with a `Recipe`.

    Raises:
        RegistryError: as `register_world`.
    """
    ALGORITHMS.register(name, recipe)


def register_objective(name: str, objective: Any) -> None:
    """Let recipes and scenarios name an objective of this program's (`algorithm.objective`).

    Args:
        name: What recipes call it.
        objective: A subclass of `node.learners.on_policy.objectives.Clip`, or where it is, as "module:attribute".

    Raises:
        RegistryError: as `register_world`.
    """
    OBJECTIVES.register(name, objective)


def register_preset(name: str, preset: Any) -> None:
    """Let scenarios name a link preset of this program's (`network.preset`); as `register_world`, with a `LinkSpec` or a mapping.

    Raises:
        RegistryError: as `register_world`.
    """
    LINK_PRESETS.register(name, preset)


def register_sink(name: str, sink: Any) -> None:
    """Let scenarios send a run's scalars somewhere else (`record.sinks`).

    Args:
        name: What scenarios call it.
        sink: A class or a function that is called as `sink(run_dir, after=after)`, or where it is, as "module:attribute".

    Raises:
        RegistryError: as `register_world`.
    """
    SINKS.register(name, sink)


def register_metric(name: str, metric: Any) -> None:
    """Have a number of every run in reports (`kappahop report`).

    Args:
        name: What reports call it.
        metric: A function of a `coordinator.study.runs.Run` that gives a number, or None; or where it is.

    Raises:
        RegistryError: as `register_world`.
    """
    METRICS.register(name, metric)


def used_by(scenario: Scenario) -> tuple[Plugin, ...]:
    """The names of a scenario that are not ours, each once, with where they come from.

    Raises:
        RegistryError: one of the names is not known.
    """
    return tuple(dict.fromkeys(found for registry, name in _named(scenario) if (found := registry.plugin(name)) is not None))


def check_importable(scenario: Scenario) -> None:
    """Make sure that other processes can import all that a scenario names.

    Raises:
        RegistryError: something is known in this process alone.
    """
    for plugin in used_by(scenario):
        if not plugin.target:
            raise RegistryError(
                f"{plugin.kind} {plugin.name!r}: registered as an object that other processes cannot import; put it in a module "
                "and register 'module:attribute', or run it with in_process=True"
            )


def allowance(scenario: Scenario) -> list[str]:
    """What a command needs besides the scenario's file: `--allow-code` for names of a program and for import paths."""
    try:
        return ["--allow-code"] if any(not plugin.package for plugin in used_by(scenario)) else []
    except RegistryError:  # a name that is not known here
        return ["--allow-code"]


def _named(scenario: Scenario) -> Iterator[tuple[Registry, str]]:
    yield WORLDS, scenario.env.name
    if isinstance(make := getattr(scenario.env, "make", None), str) and scenario.env.name in WORLDS.own:
        yield ENVIRONMENTS, make
    yield ALGORITHMS, scenario.algorithm.name
    recipe = scenario.algorithm.recipe
    if recipe.target == "advantage":
        yield OBJECTIVES, recipe.objective
    else:
        yield REPRESENTATIONS, scenario.algorithm.off_policy.representation
    network = scenario.network
    changes = [event for event in network.events if isinstance(event, Change)]
    parts = (*scenario.presets.values(), *network.edges, *changes)
    for name in (network.preset, *(part.preset for part in parts if part.preset is not None)):
        if name not in scenario.presets and not name.startswith(TRACE):
            yield LINK_PRESETS, name
    for name in scenario.record.sinks:
        yield SINKS, name
