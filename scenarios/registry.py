"""Names that stand for code: a table of text, filled from here, from installed packages and by the calling program.

Theory of operation. A `Registry` knows, for every name, where the code is ("module:attribute") and imports it only when the
name is used. So listing names costs nothing, a process pays only for what its scenario names, and this package imports nothing
of ours. There are three sources: our own table; entry points of installed packages, read once and only when a name is looked up;
and `register`. A name that two of them claim for different code is refused when it is used, and only then, and so is code that
cannot be imported: another name goes on working.
"""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

OURS = "kappahop"


class RegistryError(ValueError):
    """A name that stands for nothing, for two things, or for code that cannot be imported; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the code of a name is, and who brought the name."""

    target: str
    origin: str


@dataclass(slots=True)
class Registry:
    """Names of one kind of thing.

    Attributes:
        kind: What the names stand for, in the singular, for messages.
        own: Our names and where their code is, as "module:attribute".
        group: Entry points of installed packages that add names.

    Example:
        >>> Registry("number", {"pi": "math:pi"}, "kappahop.numbers").resolve("pi")
        3.141592653589793
    """

    kind: str
    own: Mapping[str, str]
    group: str
    _added: dict[str, _Source] = field(default_factory=dict, init=False)
    _installed: dict[str, list[_Source]] | None = field(default=None, init=False)
    _resolved: dict[str, Any] = field(default_factory=dict, init=False)

    def register(self, name: str, target: str) -> None:
        """Add a name for the rest of this process.

        Args:
            name: What scenarios call it.
            target: Where its code is, as "module:attribute".

        Raises:
            RegistryError: the target has another form, or the name stands for other code already.
        """
        module, colon, attribute = target.partition(":")
        if not (module and colon and attribute):
            raise RegistryError(f"{self.kind} {name!r}: got {target!r}; expected where its code is, as 'module:attribute'")
        if other := [source for source in self._sources(name) if source.target != target]:
            raise RegistryError(f"{self.kind} {name!r}: this name stands for {other[0].target} of {other[0].origin} already")
        self._added[name] = _Source(target, f"module {module}")

    def names(self) -> list[str]:
        """All names: ours in the order of their table, then the others in alphabetical order."""
        return [*self.own, *sorted({*self._plugins(), *self._added} - {*self.own})]

    def resolve(self, name: str) -> Any:
        """What a name stands for, imported if need be.

        Raises:
            RegistryError: there is no such name, two packages claim it, or its code cannot be imported.
        """
        if name not in self._resolved:
            source = self._source(name)
            module, _, attribute = source.target.partition(":")
            try:
                found: Any = importlib.import_module(module)
                for part in attribute.split("."):
                    found = getattr(found, part)
            except Exception as error:
                raise RegistryError(
                    f"{self.kind} {name!r}: its code {source.target} of {source.origin} cannot be imported "
                    f"({type(error).__name__}: {error})"
                ) from error
            self._resolved[name] = found
        return self._resolved[name]

    def origin(self, name: str) -> str:
        """The package that a name comes from, with its version; "kappahop" for ours, the module for a registered one.

        Raises:
            RegistryError: as `resolve`, but for code that cannot be imported.
        """
        return self._source(name).origin

    def _source(self, name: str) -> _Source:
        sources = self._sources(name)
        if not sources:
            raise RegistryError(f"got {name!r}{nearest(name, self.names())}; expected one of {', '.join(self.names())}")
        if len({source.target for source in sources}) > 1:
            claims = " and ".join(f"{source.target} of {source.origin}" for source in sources)
            raise RegistryError(f"{self.kind} {name!r}: this name stands for {claims}; uninstall or rename one of them")
        return sources[0]

    def _sources(self, name: str) -> list[_Source]:
        ours = [_Source(self.own[name], OURS)] if name in self.own else []
        return [*ours, *self._plugins().get(name, ()), *([self._added[name]] if name in self._added else [])]

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


_ROBOTS = "envs.robots.tasks"
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
