"""What a world's own policies reach, which learn nothing: yardsticks for teams that have learnt.

A world brings its baselines (`envs.interface.World.baselines`). One is played as an evaluation is: so many copies at once, of
each the first episode, with the random streams of an evaluation of the same seed, so that a team and a baseline meet the same
chance. A baseline sends nothing: it may look at the whole world, as a plant-wide controller would.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from coordinator.records.plan import Plan
from envs.interface import Episode
from envs.registry import make, world_of
from scenarios.loading import ScenarioError, load
from scenarios.registry import nearest
from topology.deployment import SCENARIO_FILE
from topology.files import replace

BASELINES_FILE = "baselines.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over episodes.

    Attributes:
        mean: Its mean.
        std: Its standard deviation; 0 of a single episode.
    """

    mean: float
    std: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a policy came to.

    Attributes:
        policy: Which.
        episodes: Over how many.
        ret: The team's return of an episode.
        costs: The team's cost of an episode, cost by cost.
        measures: The world's own metrics, by name.
    """

    policy: str
    episodes: int
    ret: Spread
    costs: tuple[Spread, ...]
    measures: Mapping[str, Spread]


_KEPT = TypeAdapter(dict[str, Played])


def play(ready: Plan, policy: str, episodes: int, tell: Callable[[float], None] = lambda done: None) -> Played:
    """Play a world's baseline.

    Args:
        ready: The plan of a run in this world.
        policy: Its name.
        episodes: How many, all at once.
        tell: Called now and then with the part that is done.

    Raises:
        ScenarioError: the world has no such policy, or a fault ended an episode.
    """
    env = ready.scenario.env.model_copy(update={"num_envs": episodes})
    known = world_of(env).baselines
    if policy not in known:
        there = f"; {env.name} has no policies of its own"
        if known:
            there = f"{nearest(policy, known)}; expected one of {', '.join(known)}"
        raise ScenarioError(f"--policy: got {policy!r}{there}")
    graph = ready.deployment.graph()
    control = known[policy](env, graph)
    world = make(env, graph, ready.deployment.model_copy(update={"learns": False}).seed(ready.scenario))
    first: dict[int, Episode] = {}
    try:
        world.reset()
        for step in range(ready.spec.horizon):
            for episode in world.step(control(world)).episodes:
                first.setdefault(episode.copy, episode)
            tell((step + 1) / ready.spec.horizon)
    finally:
        world.close()
    found = [first[copy] for copy in sorted(first)]
    if not all(np.isfinite(episode.ret) for episode in found):
        raise ScenarioError(f"--policy: a fault of the simulation ended an episode of {policy}, so it has no return")
    costs, measures = (np.array([getattr(episode, name) for episode in found]).T for name in ("cost", "measures"))
    return Played(
        policy=policy,
        episodes=len(found),
        ret=_spread([episode.ret for episode in found]),
        costs=tuple(_spread(row) for row in costs),
        measures={measure.name: _spread(row) for measure, row in zip(ready.spec.measures, measures, strict=True)},
    )


def keep(played: Played, run_dir: Path, ready: Plan) -> None:
    """Keep what a baseline came to beside a run, in place of what it came to before; only in the run's own world.

    Raises:
        ScenarioError: another world than the run's was played, or the file cannot be read or written.
    """
    own = load(str(run_dir / SCENARIO_FILE))
    if ready.scenario.env.model_copy(update={"num_envs": own.env.num_envs}) != own.env:
        raise ScenarioError(f"--policy: {run_dir} is a run in another {own.env.name}; leave out overrides of env")
    known = {**kept(run_dir), played.policy: played}
    try:
        replace(run_dir / BASELINES_FILE, _KEPT.dump_json(known, indent=1))
    except OSError as error:
        raise ScenarioError(f"{run_dir / BASELINES_FILE}: cannot be written ({error.strerror or error})") from None


def kept(run_dir: Path) -> dict[str, Played]:
    """What baselines came to that were played in a run's world, by name.

    Raises:
        ScenarioError: the file cannot be read.
    """
    path = run_dir / BASELINES_FILE
    try:
        return _KEPT.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.errors()[0]['msg']})") from None


def _spread(values: Sequence[float] | NDArray[np.float64]) -> Spread:
    return Spread(mean=float(np.mean(values)), std=float(np.std(values)))
