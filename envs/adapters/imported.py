"""A world made of environments of another package: E instances with dictionaries by agent, stepped one after the other.

Theory of operation. `examine` makes one instance, resets it, and reads from it all that a spec needs. `ImportedWorld` has E
instances. Episode k of copy e begins with a `reset` of the seed that follows from (run's seed, e, k), so nothing depends on what
an instance has drawn before. Agents that end before the others stay in the arrays: their observation is zeros, and so are their
reward and cost. With `env.presence` the last number of an observation tells so:

    1   the agent takes part
    0   it has ended
   -1   its own time limit has just ended it, and this is what it saw last (its value still counts)

Some environments give no observation to agents whose time is up. The observation before it then stands in for the last one.

A copy ends when all its agents have. It counts as truncated if the last step truncated an agent.

What must not change: the seeds of episodes. An episode is its seed and the actions in it, and a stored state holds these and no
object of the environment: `restore` plays them again, and refuses an environment that does not come to the same observations
(decision 0023).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.actions import taken
from envs.adapters.settings import ImportedEnv
from envs.adapters.spaces import Deeds, Senses, deeds, senses
from envs.checked import WorldError, checked_frame
from envs.episodes import Episodes, dealt
from envs.interface import Bools, EnvSpec, Floats, Transition
from scenarios.registry import ENVIRONMENTS, RegistryError
from topology.snapshot import State

LIMITS = ("max_cycles", "max_steps", "_max_episode_steps", "max_episode_steps", "EP_MAX_TIME")  # what packages call it
HORIZON = 1000  # where neither the scenario nor the environment says when an episode ends


@runtime_checkable
class Instance(Protocol):
    """What is used of a ParallelEnv."""

    possible_agents: list[Any]
    agents: list[Any]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin an episode."""
        ...

    def step(self, actions: dict[Any, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """One step."""
        ...

    def observation_space(self, agent: Any) -> Any:
        """Of an agent."""
        ...

    def action_space(self, agent: Any) -> Any:
        """Of an agent."""
        ...

    def render(self) -> Any:
        """A picture, where it was made with render_mode="rgb_array"."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


Make = Callable[[ImportedEnv], Instance]
E = TypeVar("E", bound=ImportedEnv)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an environment is, as one instance showed.

    Attributes:
        agents: Its agents, in order of their ids here.
        senses: What each observes.
        deeds: What each does.
        spaces: The spaces of observations and actions of each, as the environment gives them.
        spec: The world's.
    """

    agents: tuple[Any, ...]
    senses: tuple[Senses, ...]
    deeds: tuple[Deeds, ...]
    spaces: tuple[tuple[Any, Any], ...]
    spec: EnvSpec


def built(env: ImportedEnv) -> Any:
    """One instance, from the function that `env.make` names.

    Raises:
        ValueError: there is no such function, the caller does not allow its code, or it failed.
    """
    if not env.make:
        raise ValueError("env.make: got ''; expected a registered name, or the import path module:function of what makes one")
    try:
        make = ENVIRONMENTS.resolve(env.make)
    except RegistryError as error:
        raise ValueError(f"env.make: {error}") from None
    try:
        return make(**env.make_kwargs)
    except Exception as error:
        raise ValueError(
            f"env.make: {env.make} failed with env.make_kwargs={env.make_kwargs}: {type(error).__name__}: {error}"
        ) from error


def with_pictures(env: E) -> E:
    """The section with environments that render pictures, unless it says itself how they render."""
    return env.model_copy(update={"make_kwargs": {"render_mode": "rgb_array", **env.make_kwargs}})


def examine(env: ImportedEnv, make: Make) -> Contents:
    """What the environments of a scenario are.

    Raises:
        ValueError: they cannot be made, or are none that agents of ours can act in; the text names agent and space.
        WorldError: the environment's own code failed.
    """
    one = make(env)
    try:
        try:
            _, infos = one.reset(seed=0)
        except Exception as error:
            raise WorldError(f"env.make: {env.make}: reset raised {type(error).__name__}: {error}; expected no error") from error
        agents = tuple(one.possible_agents)
        if set(one.agents) != set(agents):
            late = sorted(map(str, set(agents) - set(one.agents)))
            raise ValueError(f"env.make: agents {', '.join(late)} are not there when an episode begins; all must be")
        spaces = tuple((one.observation_space(agent), one.action_space(agent)) for agent in agents)
        does = tuple(deeds(space, str(agent)) for agent, (_, space) in zip(agents, spaces, strict=True))
        sees = tuple(
            senses(space, deed.n_discrete, infos.get(agent), flatten=env.flatten, who=str(agent))
            for agent, deed, (space, _) in zip(agents, does, spaces, strict=True)
        )
        limits = getattr(one, "cost_limits", None) if env.cost_limits is None else env.cost_limits
        spec = EnvSpec(
            obs_dims=tuple(see.width + see.n_mask + env.presence for see in sees),
            act_dims=tuple(deed.width for deed in does),
            n_discrete=tuple(deed.n_discrete for deed in does),
            cost_limits=() if limits is None else tuple(float(limit) for limit in limits),
            horizon=_horizon(env, one),
            dt=env.dt,
            edges=_edges(one, agents, infos),
            own_costs=env.cost == "local",
            masked=tuple(bool(see.n_mask) for see in sees) if any(see.n_mask for see in sees) else (),
            presence=env.presence,
        )
    finally:
        one.close()
    return Contents(agents=agents, senses=sees, deeds=does, spaces=spaces, spec=spec)


def _horizon(env: ImportedEnv, one: Any) -> int:
    """As the scenario says, or the environment under one of the names that are in use."""
    if env.horizon is not None:
        return env.horizon
    inner = getattr(one, "unwrapped", one)
    limits = (
        getattr(getattr(one, "spec", None), "max_episode_steps", None),
        *(getattr(inner, name, None) for name in LIMITS),
    )
    return next((int(limit) for limit in limits if isinstance(limit, int | np.integer) and limit > 0), HORIZON)


def _edges(one: Any, agents: tuple[Any, ...], infos: Mapping[Any, Any]) -> tuple[tuple[int, int], ...]:
    """The environment's own graph, between agents or their numbers; without one, every agent meets every other.

    Raises:
        ValueError: the graph has other nodes.
    """
    graph = getattr(one, "graph", None)
    if graph is None:
        told = [infos, *(info for info in infos.values() if isinstance(info, Mapping))]
        graph = next((info["graph"] for info in told if "graph" in info), None)
    if graph is None:
        graph = nx.complete_graph(len(agents))
    ids = {agent: i for i, agent in enumerate(agents)} | {i: i for i in range(len(agents))}
    pairs = graph.edges if isinstance(graph, nx.Graph) else graph
    try:
        found = {tuple(sorted((ids[a], ids[b]))) for a, b, *_ in pairs}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"env.make: its graph joins others than its agents {', '.join(map(str, agents))}") from None
    return tuple(sorted((a, b) for a, b in found if a != b))


class ImportedWorld:
    """E instances of an environment as one world.

    Args:
        env: The scenario's section.
        seed: Root of the episodes' seeds.
        make: Makes an instance.
        contents: What the environment is.
    """

    def __init__(self, env: ImportedEnv, seed: int, make: Make, contents: Contents) -> None:
        self.spec = spec = contents.spec
        self.num_envs = env.num_envs
        self._name = env.make or env.name
        self._env = env
        self._contents = contents
        self._instances = [make(env) for _ in range(env.num_envs)]
        self._seed = seed
        n = spec.n_agents
        self._begun = np.zeros(env.num_envs, np.int64)  # episodes
        self._deeds: list[list[Floats]] = [[] for _ in range(env.num_envs)]  # of the running episodes, (sum of widths,)
        self._presence = np.zeros((env.num_envs, n), np.float32)
        self._obs = [np.zeros((env.num_envs, width), np.float32) for width in spec.obs_dims]
        self._episodes = Episodes(env.num_envs, spec.horizon, restart=self._restart, observe=self._observe, n_costs=spec.n_costs)

    def reset(self, limits: Any = None) -> list[Floats]:
        """See `VecEnv.reset`."""
        return self._episodes.begin(limits)

    def step(self, actions: Any) -> Transition:
        """See `VecEnv.step`.

        Raises:
            WorldError: an environment does not keep to its spaces or to PettingZoo's rules; the text names agent, copy and step.
        """
        copies, spec = self.num_envs, self.spec
        reward, cost = np.zeros((copies, spec.n_agents)), np.zeros((copies, spec.n_agents, spec.n_costs))
        terminated, truncated = np.zeros(copies, np.bool_), np.zeros(copies, np.bool_)
        rows = np.concatenate(actions, axis=1, dtype=np.float32)
        faults: Bools = np.logical_not(np.isfinite(rows).all(axis=1), dtype=np.bool_)
        rows = np.nan_to_num(rows)
        taken(np.split(rows, np.cumsum(spec.act_dims)[:-1], axis=1), spec.n_discrete)
        for e in range(copies):
            terminated[e], truncated[e] = self._step(e, rows[e], reward[e], cost[e])
        terminated |= faults
        truncated &= ~terminated
        local = self._env.cost == "local"
        charged = np.stack([dealt(cost[:, :, u], local) for u in range(spec.n_costs)], axis=2) if spec.n_costs else None
        return self._episodes.conclude(
            reward.mean(axis=1), dealt(reward, self._env.reward == "local"), terminated, faults,
            spent=cost.mean(axis=1), cost=charged, cut=truncated,
        )  # fmt: skip

    def frame(self, copy: int) -> NDArray[np.uint8]:
        """See `Drawable.frame`: what the environment renders."""
        try:
            picture = self._instances[copy].render()
        except Exception as error:
            raise self._raised(copy, "render", error) from error
        return checked_frame(picture, f"world {self._name!r}, copy {copy}")

    def state(self) -> State:
        """See `VecEnv.state`: of each copy how many episodes have begun, and what was done in the running one."""
        width = sum(self.spec.act_dims)
        return {
            "begun": self._begun.copy(), "lengths": np.array([len(done) for done in self._deeds]),
            "deeds": np.concatenate([np.reshape(np.array(done, np.float32), (-1, width)) for done in self._deeds]),
            "obs": self._observe(), "episodes": self._episodes.state(),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """See `VecEnv.restore`: the running episodes are played again.

        Raises:
            ValueError: an environment comes to another observation than it did.
        """
        deeds = np.split(state["deeds"], np.cumsum(state["lengths"])[:-1])
        n, m = self.spec.n_agents, self.spec.n_costs
        for e in range(self.num_envs):
            self._begun[e] = state["begun"][e] - 1
            self._restart(np.array([e]))
            for row in deeds[e]:
                self._step(e, row, np.zeros(n), np.zeros((n, m)))
            for agent, mine, stored in zip(self._contents.agents, self._obs, state["obs"], strict=True):
                if not np.array_equal(mine[e], stored[e]):
                    raise ValueError(
                        f"env.make: {self._name} comes to other observations from the same seed and actions (copy {e}, agent "
                        f"{agent}), so a run in it cannot be resumed; start a new run"
                    )
        self._episodes.restore(state["episodes"])

    def close(self) -> None:
        """Close the instances."""
        while self._instances:
            self._instances.pop().close()

    def _step(self, e: int, row: Floats, reward: NDArray[np.float64], cost: NDArray[np.float64]) -> tuple[bool, bool]:
        """Step one copy; whether all its agents have ended, and whether a limit of time ended one of the last of them."""  # noqa: DOC501  (what `step` raises)
        one, contents = self._instances[e], self._contents
        self._deeds[e].append(row)
        live = [i for i in range(len(contents.agents)) if self._presence[e, i] == 1]
        parts = np.split(row, np.cumsum(self.spec.act_dims)[:-1])
        chosen = {contents.agents[i]: contents.deeds[i].of(self._available(e, i, parts[i])) for i in live}
        try:
            obs, paid, ended, cut, infos = one.step(chosen)
        except Exception as error:
            raise self._raised(e, "step", error) from error
        self._presence[e, self._presence[e] < 0] = 0
        was_cut, agent = False, None
        try:
            for i in live:
                agent = contents.agents[i]
                is_ended = bool(_of(agent, ended, "termination"))
                is_cut = bool(_of(agent, cut, "truncation")) and not is_ended
                info = infos.get(agent, {}) if isinstance(infos, Mapping) else {}
                reward[i] = _finite(_of(agent, paid, "reward"))
                if self.spec.n_costs:
                    cost[i] = self._charged(info)
                was_cut |= is_cut
                self._presence[e, i] = 0 if is_ended else -1 if is_cut else 1
                if not is_ended and (not is_cut or (isinstance(obs, Mapping) and agent in obs)):
                    self._see(e, i, _of(agent, obs, "observation"), info, has_mask=not is_cut)
            agent = None
            if strangers := set(one.agents) - {contents.agents[i] for i in live}:
                names = ", ".join(sorted(map(str, strangers)))
                raise ValueError(f"agents: got {names}, which joined during the episode; expected those of its beginning")
            is_over = not (self._presence[e] == 1).any()
            if not is_over and not self._env.presence and (self._presence[e] != 1).any():
                raise ValueError("agents: got some that end before the others; expected env.presence=true with them")
        except ValueError as error:
            raise self._wrong(e, agent, str(error)) from None
        if is_over:  # the others' values count on: the copy is what time has ended
            self._presence[e, self._presence[e] < 0] = 1
        for i, block in enumerate(self._obs):
            if self._presence[e, i] == 0:
                block[e] = 0.0
            elif self._env.presence:
                block[e, -1] = self._presence[e, i]
        return is_over and not was_cut, is_over and was_cut

    def _available(self, e: int, i: int, row: Floats) -> Floats:
        """The action, or the first that can be taken where it cannot: an agent that is down sends zeros."""
        if n := self._contents.senses[i].n_mask:
            mask = self._mask(e, i, n)
            if not mask[int(row[0])]:
                return np.array([mask.argmax()], np.float32)
        return row

    def _mask(self, e: int, i: int, n: int) -> Floats:
        width = self._contents.senses[i].width
        return self._obs[i][e, width : width + n]

    def _see(self, e: int, i: int, observation: Any, info: Any, *, has_mask: bool = True) -> None:
        sense = self._contents.senses[i]
        self._obs[i][e, : sense.width] = sense.row(observation)
        if sense.n_mask:
            self._mask(e, i, sense.n_mask)[:] = sense.mask(observation, info) if has_mask else 1.0
        if self._env.presence:
            self._obs[i][e, -1] = 1.0

    def _charged(self, info: Any) -> NDArray[np.float64]:
        told = info.get("cost", info.get("costs")) if isinstance(info, Mapping) else None
        cost = np.zeros(0) if told is None else np.asarray(told, np.float64).reshape(-1)
        if len(cost) != self.spec.n_costs or not (np.isfinite(cost).all() and (cost >= 0).all()):
            raise ValueError(f"cost of infos: got {told!r}; expected {self.spec.n_costs} finite numbers, none negative")
        return cost

    def _restart(self, ids: NDArray[np.intp]) -> None:
        for e in map(int, ids):
            number = int(self._begun[e])
            self._begun[e] += 1
            self._deeds[e] = []
            seed = int(np.random.SeedSequence(self._seed, spawn_key=(e, number)).generate_state(1)[0]) >> 1
            try:
                obs, infos = self._instances[e].reset(seed=seed)
            except Exception as error:
                raise self._raised(e, "reset", error) from error
            self._begin(e, obs, infos if isinstance(infos, Mapping) else {})

    def _begin(self, e: int, obs: Any, infos: Mapping[Any, Any]) -> None:
        one, agent = self._instances[e], None
        try:
            if set(one.agents) != set(self._contents.agents):
                told = ", ".join(map(str, one.agents)) or "none"
                raise ValueError(f"agents: got {told}; expected {', '.join(map(str, self._contents.agents))} in every episode")
            for i, agent in enumerate(self._contents.agents):
                now = one.observation_space(agent), one.action_space(agent)
                for what, is_, was in zip(("observation", "action"), now, self._contents.spaces[i], strict=True):
                    if is_ is not was and is_ != was:
                        raise ValueError(f"{what} space: got {is_}; expected {was}, as when the run began")
                self._presence[e, i] = 1
                self._see(e, i, _of(agent, obs, "observation"), infos.get(agent, {}))
        except ValueError as error:
            raise self._wrong(e, agent, str(error)) from None

    def _observe(self) -> list[Floats]:
        return [block.copy() for block in self._obs]

    def _raised(self, e: int, what: str, error: Exception) -> WorldError:
        return self._wrong(e, None, f"{what} raised {type(error).__name__}: {error}; expected no error")

    def _wrong(self, e: int, agent: Any, text: str) -> WorldError:
        """What an environment did wrong, and where: world, agent, copy, episode of that copy, and step of the episode."""
        who = "" if agent is None else f", agent {agent}"
        return WorldError(
            f"world {self._name!r}{who}, copy {e}, episode {self._begun[e] - 1}, step {len(self._deeds[e])}: {text}"
        )


def _of(agent: Any, by_agent: Any, what: str) -> Any:
    """What an environment gave for an agent; ValueError: nothing."""  # noqa: DOC501
    if not isinstance(by_agent, Mapping) or agent not in by_agent:
        got = f"agents {', '.join(map(str, by_agent)) or 'none'}" if isinstance(by_agent, Mapping) else type(by_agent).__name__
        raise ValueError(f"{what}: got {got}; expected a dictionary with this agent")
    return by_agent[agent]


def _finite(paid: Any) -> float:
    """A reward; ValueError: it is none."""  # noqa: DOC501
    try:
        number = float(paid)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"reward: got {paid!r}; expected a finite number")
    return number
