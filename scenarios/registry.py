"""Names that stand for code: a table of text, filled from here, from installed packages and by the calling program.

Theory of operation. A `Registry` knows, for every name, where the code is ("module:attribute") and imports it only when the
name is used. So listing names costs nothing, a process pays only for what its scenario names, and this package imports nothing
of ours. There are three sources: our own table; entry points of installed packages, read once and only when a name is looked up;
and `register`. A name that two of them claim for different code is refused when it is used, and only then, and so is code that
cannot be imported: another name goes on working.

Names that the calling program has registered reach the processes that it starts through their environment (`environment`), as
text. An object that no other process can import, such as one of a notebook, is known in this process alone.

A scenario may also give an import path, "module:attribute", instead of a name. Reading a file must never run code, so such a
path is refused unless the caller allows it (`allowing_code`). A path that was allowed is a registered name like any other.
"""

import contextlib
import difflib
import importlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

OURS = "kappahop"
PROGRAM, MODULE = "this program", "module "  # what the origin of a registered name is, or begins with
VARIABLE = "KAPPAHOP_REGISTERED"  # of the environment: what the program that started this process has registered
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class RegistryError(ValueError):
    """A name that stands for nothing, for two things, or for code that cannot be imported; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the code of a name is, and the package that brought the name; without a target, `held` is the object itself."""

    target: str
    origin: str
    held: Any = None


@dataclass(frozen=True, slots=True)
class Plugin:
    """A name that is not ours.

    Attributes:
        kind: What it stands for.
        name: The name.
        target: Where its code is, as "module:attribute"; "" for an object of this process.
        origin: The installed package with its version, or the module.
    """

    kind: str
    name: str
    target: str
    origin: str

    @property
    def package(self) -> str:
        """The installed package with its version; "" where a program, or an import path, brought the name."""
        return "" if self.origin == PROGRAM or self.origin.startswith(MODULE) else self.origin


@dataclass(slots=True)
class Registry:
    """Names of one kind of thing.

    Attributes:
        kind: What the names stand for, in the singular, for messages.
        own: Our names and where their code is, as "module:attribute"; of an entry of a table as "module:attribute[name]".
        group: Entry points of installed packages that add names.

    Example:
        >>> Registry("number", {"pi": "math:pi"}, "kappahop.numbers").resolve("pi")
        3.141592653589793
    """

    kind: str
    own: Mapping[str, str]
    group: str
    _added: dict[str, _Source] = field(default_factory=dict, init=False)
    _inherited: bool = field(default=False, init=False)
    _installed: dict[str, list[_Source]] | None = field(default=None, init=False)
    _resolved: dict[str, Any] = field(default_factory=dict, init=False)

    def register(self, name: str, target: Any) -> None:
        """Add a name for the rest of this process, and for those that it starts from now on.

        Args:
            name: What scenarios call it.
            target: Where its code is, as "module:attribute"; or the object. Other processes find a class or a function by its
                module and its name. Any other object, and all that is defined in the program itself or within a function, is
                known in this process alone.

        Raises:
            RegistryError: the target has another form, or the name stands for other code already.
        """
        if isinstance(target, str):
            if not _PATH.fullmatch(target):
                raise RegistryError(f"{self.kind} {name!r}: got {target!r}; expected where its code is, as 'module:attribute'")
            source = _Source(target, f"{MODULE}{target.partition(':')[0]}")
        elif place := _place(target):
            source = _Source(place, f"{MODULE}{place.partition(':')[0]}")
        else:
            source = _Source("", PROGRAM, target)
        if other := [one for one in self._sources(name) if (one.target, one.held) != (source.target, source.held)]:
            there = other[0].target or "an object"
            raise RegistryError(f"{self.kind} {name!r}: this name stands for {there} of {other[0].origin} already")
        self._added[name] = source

    def names(self) -> list[str]:
        """All names: ours in the order of their table, then the others in alphabetical order."""
        return [*self.own, *sorted({*self._plugins(), *self._registered()} - {*self.own})]

    def resolve(self, name: str) -> Any:
        """What a name stands for, imported if need be.

        Raises:
            RegistryError: there is no such name, two packages claim it, its code cannot be imported, or it is an import path
                that the caller does not allow.
        """
        if name not in self._resolved:
            source = self._source(name)
            module, _, attribute = source.target.partition(":")
            attribute, _, entry = attribute.removesuffix("]").partition("[")
            found: Any = source.held
            try:
                if source.target:
                    found = importlib.import_module(module)
                    for part in attribute.split("."):
                        found = getattr(found, part)
                    found = found[entry] if entry else found
            except Exception as error:
                raise RegistryError(
                    f"{self.kind} {name!r}: its code {source.target} of {source.origin} cannot be imported "
                    f"({type(error).__name__}: {error})"
                ) from error
            self._resolved[name] = found
        return self._resolved[name]

    def check(self, name: str) -> None:
        """Make sure that there is such a name, without importing its code.

        Raises:
            RegistryError: as `resolve`, but for code that cannot be imported.
        """
        self._source(name)

    def plugin(self, name: str) -> Plugin | None:
        """Where a name that is not ours comes from; None for ours.

        Raises:
            RegistryError: as `check`.
        """
        if name in self.own:
            return None
        source = self._source(name)
        return Plugin(self.kind, name, source.target, source.origin)

    def origin(self, name: str) -> str:
        """The package that a name comes from, with its version; "kappahop" for ours, the module for a registered one.

        Raises:
            RegistryError: as `resolve`, but for code that cannot be imported.
        """
        return self._source(name).origin

    def _source(self, name: str) -> _Source:
        sources = self._sources(name)
        if not sources and _PATH.fullmatch(name):
            if not _Allowed.depth:
                raise RegistryError(
                    f"got {name!r}, which is code by its import path; reading a scenario must not run code, so this needs "
                    "--allow-code (from Python allow_code=True), and only for a scenario that you trust"
                )
            self.register(name, name)
            sources = self._sources(name)
        if not sources:
            raise RegistryError(f"got {name!r}{nearest(name, self.names())}; expected one of {', '.join(self.names())}")
        if len({source.target for source in sources}) > 1:
            claims = " and ".join(f"{source.target or 'an object'} of {source.origin}" for source in sources)
            raise RegistryError(f"{self.kind} {name!r}: this name stands for {claims}; uninstall or rename one of them")
        return sources[0]

    def _sources(self, name: str) -> list[_Source]:
        ours = [_Source(self.own[name], OURS)] if name in self.own else []
        registered = self._registered()
        return [*ours, *self._plugins().get(name, ()), *([registered[name]] if name in registered else [])]

    def _registered(self) -> dict[str, _Source]:
        """What this program has registered, and before it the program that started it."""
        if not self._inherited:
            self._inherited = True
            for name, target in _inherited().get(self.kind, {}).items():
                self._added.setdefault(name, _Source(target, f"{MODULE}{target.partition(':')[0]}"))
        return self._added

    def _plugins(self) -> dict[str, list[_Source]]:
        if self._installed is None:
            self._installed = {}
            for point in metadata.entry_points(group=self.group):
                package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
                self._installed.setdefault(point.name, []).append(_Source(point.value, package))
        return self._installed


def nearest(word: str, words: Iterable[str]) -> str:
    """The question whether the nearest of some words was meant; "" if none is near."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def _place(found: Any) -> str:
    """Where other processes can import a class or a function; "" where they cannot."""
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)) or module in ("__main__", "builtins") or "<" in name:
        return ""
    return f"{module}:{name}"


class _Allowed:
    depth = 0


@contextlib.contextmanager
def allowing_code(*, allow: bool = True) -> Iterator[None]:
    """Let scenarios that are read within the block name code by import path; modules in the present folder count.

    Args:
        allow: Whether to; False: the block changes nothing.
    """
    if allow and (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    _Allowed.depth += allow
    try:
        yield
    finally:
        _Allowed.depth -= allow


def environment() -> dict[str, str]:
    """What a process that is started must have in its environment to know what this one has registered; {} if that is nothing."""
    known = {one.kind: {name: of.target for name, of in one._registered().items() if of.target} for one in REGISTRIES.values()}
    known = {kind: names for kind, names in known.items() if names}
    return {VARIABLE: json.dumps({"registered": known, "path": [os.path.abspath(one) for one in sys.path]})} if known else {}


def _inherited() -> dict[str, dict[str, str]]:
    """By kind the names that the program that started this one has registered."""
    told = json.loads(os.environ.get(VARIABLE, "{}"))
    sys.path += [place for place in told.get("path", ()) if place not in sys.path]  # behind our own: none of ours is hidden
    found: dict[str, dict[str, str]] = told.get("registered", {})
    return found


_ROBOTS = "envs.robots.worlds"
_GAMES = "envs.games.games"
WORLDS = Registry(
    "world",
    {
        "safe_ant": f"{_ROBOTS}:CORRIDOR",
        "safe_halfcheetah": f"{_ROBOTS}:LIMITED",
        "safe_coupled_halfcheetah": f"{_ROBOTS}:LIMITED",
        "safe_manyagent_ant": f"{_ROBOTS}:CORRIDOR",
        "velocity_ant": f"{_ROBOTS}:LIMITED",
        "velocity_halfcheetah": f"{_ROBOTS}:LIMITED",
        "mamujoco_ant": f"{_ROBOTS}:ROBOT",
        "mamujoco_halfcheetah": f"{_ROBOTS}:ROBOT",
        "coupled_halfcheetah": f"{_ROBOTS}:ROBOT",
        "mamujoco_hopper": f"{_ROBOTS}:ROBOT",
        "mamujoco_walker2d": f"{_ROBOTS}:ROBOT",
        "mamujoco_humanoid": f"{_ROBOTS}:ROBOT",
        "mamujoco_swimmer": f"{_ROBOTS}:ROBOT",
        "network_lq": "envs.networks.lq:WORLD",
        "cacc_catchup": "envs.networks.platoon:WORLD",
        "cacc_slowdown": "envs.networks.platoon:WORLD",
        "traffic_grid": "envs.networks.traffic:WORLD",
        "wireless": "envs.networks.wireless:WORLD",
        "sis": "envs.networks.epidemic:WORLD",
        "supply": "envs.networks.supply:WORLD",
        "sysadmin": "envs.networks.sysadmin:WORLD",
        "cells_7": "envs.networks.cells:CELLS_7",
        "cells_19": "envs.networks.cells:CELLS_19",
        "voltage_33": "envs.networks.voltage:VOLTAGE_33",
        "voltage_141": "envs.networks.voltage:VOLTAGE_141",
        "matrix_game": f"{_GAMES}:MATRIX_GAME",
        "sharing_game": f"{_GAMES}:SHARING_GAME",
        "stage_game": f"{_GAMES}:STAGE_GAME",
        "stochastic_game": f"{_GAMES}:STOCHASTIC_GAME",
        "truncation_chain": f"{_GAMES}:TRUNCATION_CHAIN",
        "differential_game": "envs.games.differential:WORLD",
        "pettingzoo": "envs.adapters.pettingzoo_in:WORLD",
        "gymnasium": "envs.adapters.gymnasium_in:WORLD",
    },
    "kappahop.worlds",
)
ENVIRONMENTS = Registry("environment", {}, "kappahop.environments")  # functions that make one, for these two worlds
ALGORITHMS = Registry(
    "recipe",
    {
        name: f"scenarios.recipes:RECIPES[{name}]"
        for name in (
            "scal_mappo_l", "mappo_l", "ippo", "mappo", "happo", "hatrpo", "macpo", "mafocops", "dpo", "mdpo", "coppo", "a2po",
            "alternating_ppo", "iql", "ma2ql", "i2q", "qmix",
        )
    },
    "kappahop.recipes",
)  # fmt: skip
_OBJECTIVES = "node.learners.on_policy.objectives"
OBJECTIVES = Registry(
    "objective",
    {
        "clip": f"{_OBJECTIVES}:Clip",
        "double_clip": f"{_OBJECTIVES}:DoubleClip",
        "kl_penalty": f"{_OBJECTIVES}:KLPenalty",
        "trust_region": "node.learners.on_policy.trust_region:Region",
        "focops": f"{_OBJECTIVES}:Focops",
    },
    "kappahop.objectives",
)
_VALUES = "node.learners.off_policy.learner"
REPRESENTATIONS = Registry(
    "representation",
    {"network": f"{_VALUES}:networks", "table": f"{_VALUES}:tables", "recurrent": f"{_VALUES}:memories"},
    "kappahop.targets",
)
LINK_PRESETS = Registry(
    "link preset",
    {
        name: f"topology.link.presets:PRESETS[{name}]"
        for name in (
            "ideal", "lan", "wifi-campus", "wifi-busy", "lte", "slow-4g", "hspa", "3g", "edge", "gprs", "5g-nsa", "leo",
            "v2x-11p", "uav-mesh", "802.15.4", "lora-sf7", "lora-sf12", "wan",
        )
    }
    | {"5g": "topology.link.presets:PRESETS[5g-nsa]"},
    "kappahop.presets",
)  # fmt: skip
SINKS = Registry(
    "sink",
    {
        "tensorboard": "coordinator.records.sinks:TensorBoard",
        "wandb": "coordinator.records.sinks:WandB",
        "mlflow": "coordinator.records.sinks:MLflow",
    },
    "kappahop.sinks",
)
METRICS = Registry("report metric", {}, "kappahop.metrics")
REGISTRIES: Mapping[str, Registry] = {
    one.kind: one for one in (WORLDS, ALGORITHMS, OBJECTIVES, REPRESENTATIONS, LINK_PRESETS, SINKS, METRICS, ENVIRONMENTS)
}
