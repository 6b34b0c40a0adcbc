"""What every world offers: E identical copies stepped at once, and per agent only what that agent may sense.

Theory of operation. A `VecEnv` is pure computation: no socket, no clock, no global randomness. `reset` starts all
copies, `step` advances all of them and at once restarts those whose episode ended (so `obs` is always the observation
to act on next). Termination and truncation are told apart: a terminated copy reached an absorbing state, a truncated
one ran into the time limit, and `final_obs` keeps what was seen before the restart, which a learner needs to bootstrap.
Agents' blocks are ragged and
stay so: agent i's observation has its own width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.scene import Scene
from scenarios.schema import Env
from topology.snapshot import State

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure of a world's own that evaluations report beside return and cost, such as collisions.

    Attributes:
        name: As tables and databases have it.
        unit: Of the figure for a whole episode.
        meaning: A sentence.
        is_sum: Whether an episode's figure is the sum over its steps; False: the mean.
    """

    name: str
    unit: str
    meaning: str
    is_sum: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSpec:
    """The shape of a world, known before anything is built.

    Attributes:
        obs_dims: Width of each agent's observation, d_i; its length is n, the number of agents.
        act_dims: Width of each agent's action.
        n_discrete: How many discrete actions each agent has, whose action then is one index 0..n_discrete-1 per copy, as a float;
            0: its actions are continuous.
        one_hot: Widths of the one-hot parts that each agent's observation consists of, (): it is numbers; all are if nothing
            is given.
        cost_limits: Default limit of each cost, on the undiscounted sum of an episode; its length is m, the number of
            costs.
        horizon: Steps after which an episode is truncated.
        dt: Control period in seconds.
        edges: The kinematic agent graph as pairs i < j.
        alive_bonus: What the team's reward holds per step for nothing but not having ended.
        own_costs: Whether each agent is charged what it did itself; False: what the team did.
        measures: The world's own metrics.
        masked: Whether an agent's observation holds its action mask, `n_discrete` numbers, 1 for every action that can be taken;
            its last numbers, or those before its presence. (): none does.
        presence: Whether the last number of an observation tells if the agent takes part: 1; 0: it ended before the others;
            -1: its time was up and this is what it saw last. Samples in which it does not take part are left out of learning.
    """

    obs_dims: tuple[int, ...]
    act_dims: tuple[int, ...]
    n_discrete: tuple[int, ...]
    cost_limits: tuple[float, ...]
    horizon: int
    dt: float
    edges: tuple[tuple[int, int], ...]
    one_hot: tuple[tuple[int, ...], ...] = ()
    alive_bonus: float = 0.0
    own_costs: bool = False
    measures: tuple[Measure, ...] = ()
    masked: tuple[bool, ...] = ()
    presence: bool = False

    @property
    def n_agents(self) -> int:
        """n, the number of agents."""
        return len(self.obs_dims)

    @property
    def n_costs(self) -> int:
        """m, the number of costs per agent."""
        return len(self.cost_limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the communication graph makes of a world whose physics depends on it, known before anything is built.

    Attributes:
        in_force: Settings whose value follows from the graph, by dotted key.
        facts: What there is to know, a sentence each.
        doubts: What is worth a warning, a sentence each.
    """

    in_force: dict[str, float] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One finished episode of one copy.

    Attributes:
        copy: Which of the E copies.
        ret: Undiscounted sum of the team reward; nan where a fault of the simulation ended the episode.
        cost: Undiscounted sum of the team cost, one entry per cost, shape (m,); nan likewise.
        length: Steps.
        is_whole: False for a first episode that was given a limit of its own; it says nothing of a policy's return.
        measures: The episode's value of each measure of the world; nan likewise.
    """

    copy: int
    ret: float
    cost: tuple[float, ...]
    length: int
    is_whole: bool = True
    measures: tuple[float, ...] = ()

    @classmethod
    def ended(
        cls,
        *,
        copy: int,
        ret: float,
        cost: tuple[float, ...],
        length: int,
        is_whole: bool,
        is_faulty: bool,
        measures: tuple[float, ...] = (),
    ) -> Self:
        """An episode with the sums over its steps; one that a fault ended has none: what it would have come to is not known."""
        if is_faulty:
            ret, cost, measures = math.nan, (math.nan,) * len(cost), (math.nan,) * len(measures)
        return cls(copy=copy, ret=ret, cost=cost, length=length, is_whole=is_whole, measures=measures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What one step of all copies produced.

    Attributes:
        obs: Per agent the observation to act on next, (E, d_i) float32; after the restart where an episode ended.
        reward: (n, E) float32.
        cost: (n, E, m) float32.
        terminated: (E,) True where the episode reached an absorbing state.
        truncated: (E,) True where the time limit ended the episode; never together with terminated.
        final_obs: Per agent (E, d_i), rows valid where an episode ended; None if none did.
        episodes: The episodes that ended, by ascending copy.
        faults: (E,) True where the simulation diverged; such a copy counts as terminated, and its episode has no return.
    """

    obs: list[Floats]
    reward: Floats
    cost: Floats
    terminated: Bools
    truncated: Bools
    final_obs: list[Floats] | None
    episodes: tuple[Episode, ...]
    faults: Bools


@runtime_checkable
class VecEnv(Protocol):
    """E copies of one world."""

    spec: EnvSpec
    num_envs: int

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        """Start every copy; per agent the first observation, (E, d_i).

        Args:
            limits: Per copy, the steps after which its first episode is truncated; None: the horizon. Later episodes have
                the horizon.
        """
        ...

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance every copy one control period under each agent's action, (E, a_i)."""
        ...

    def state(self) -> State:
        """All that the steps to come depend on, besides what the world was made from."""
        ...

    def restore(self, state: State) -> None:
        """Take the state of a world made alike; `step` then does what it would have done there."""
        ...

    def close(self) -> None:
        """Release native threads."""
        ...


@runtime_checkable
class Drawable(VecEnv, Protocol):
    """E copies of a world that can be drawn."""

    def frame(self, copy: int) -> NDArray[np.uint8]:
        """A picture of a copy as it is now, (H, W, 3): red, green and blue."""
        ...


Controller = Callable[[VecEnv], list[Floats]]  # from a world, all of which it may look at, to each agent's action, (E, a_i)
Settings = TypeVar("Settings", bound=Env)


@dataclass(frozen=True, slots=True, kw_only=True)
class World(Generic[Settings]):
    """A world as it is registered: everything that the rest of the program asks of it.

    A new world is a module with its settings, which extend `Env`, its `VecEnv`, and one of these.

    Attributes:
        settings: The section `env` of a scenario in this world.
        spec: Describes the world without building it; raises ValueError where a setting makes no sense.
        make: Builds the world on a communication graph on 0..n-1, from a seed.
        outlook: What the graph makes of the world; None: its physics does not depend on the graph.
        baselines: Policies without learning to compare with, by name: each makes a controller for a scenario's section and a
            communication graph (`kappahop evaluate SCENARIO --policy NAME`). Some are central: they look at all of the world.
        drawable: Builds a world as `make` does, that can also be drawn, for films. None: the world has no pictures.
        scene: What a picture of a copy shows, from a world that this made, for films. None: the world has no such pictures.
    """

    settings: type[Settings]
    spec: Callable[[Settings], EnvSpec]
    make: Callable[[Settings, nx.Graph, int], VecEnv]
    outlook: Callable[[Settings, nx.Graph], Outlook] | None = None
    baselines: Mapping[str, Callable[[Settings, nx.Graph], Controller]] = field(default_factory=dict)
    drawable: Callable[[Settings, nx.Graph, int], Drawable] | None = None
    scene: Callable[[Any, int], Scene] | None = None
