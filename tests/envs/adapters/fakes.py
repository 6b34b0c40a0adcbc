"""Small environments of PettingZoo's kind, with every peculiarity that an importer must take."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

LENGTH = 6
DEATH = 2  # step in which `short` terminates
LEAVE = 3  # step in which `timed` is truncated


class Uneven(ParallelEnv[str, Any, Any]):  # type: ignore[misc]  # PettingZoo has no types for others
    """Three unequal agents: one is masked by its observation, one has bounds, one is masked by its infos and ends first.

    With `chooses` all have choices. Without `parts` an agent whose time is up sees nothing more.
    Each observes (step, a draw, ...). `long` goes on to LENGTH, `timed` is truncated at LEAVE, `short` terminates at DEATH.
    """

    metadata = {"name": "uneven", "render_modes": ["rgb_array"]}  # noqa: RUF012
    cost_limits = (1.5,)
    graph = (("long", "timed"), ("timed", "short"))

    def __init__(
        self,
        *,
        forgetful: bool = False,
        ends_by: str = "termination",
        cost: float = 0.25,
        chooses: bool = False,
        parts: bool = True,
        render_mode: str = "none",
    ) -> None:
        self.render_mode = render_mode
        self.possible_agents = ["long", "timed", "short"]
        self.agents: list[str] = []
        self.given: list[dict[str, Any]] = []
        self._forgetful, self._ends_by, self._cost, self._parts = forgetful, ends_by, cost, parts
        self._loose = np.random.default_rng()  # what a seed does not reach
        box = {agent: spaces.Box(-10, 10, (width,), np.float64) for agent, width in (("long", 2), ("timed", 3), ("short", 2))}
        self._seen = {**box, "long": spaces.Dict({"observation": box["long"], "action_mask": spaces.MultiBinary(3)})}
        self._done = {
            "long": spaces.Discrete(3),
            "timed": spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64),
            "short": spaces.Discrete(2, start=1),
        }
        if chooses:
            self._done["timed"] = spaces.Discrete(2)

    def render(self) -> Any:
        """The later in an episode, the brighter."""
        return np.full((30, 90, 3), 40 * self._t, np.uint8) if self.render_mode == "rgb_array" else None

    def observation_space(self, agent: str) -> Any:
        return self._seen[agent]

    def action_space(self, agent: str) -> Any:
        return self._done[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self._rng = np.random.default_rng(seed)
        self.agents, self._t = list(self.possible_agents), 0
        return self._told(self.agents)

    def _told(self, agents: list[str]) -> tuple[Any, Any]:
        draw = (self._loose if self._forgetful else self._rng).random()
        row = np.array([self._t, draw, 0.5])
        obs: dict[str, Any] = {agent: row[: 3 if agent == "timed" else 2] for agent in agents}
        mask = np.arange(3) != self._t % 3
        if "long" in obs:
            obs["long"] = {"observation": obs["long"], "action_mask": mask.astype(np.int8)}
        infos: dict[str, Any] = {agent: {"cost": self._cost} for agent in agents}
        if "short" in infos:
            infos["short"]["action_mask"] = mask[:2] if mask[:2].any() else np.ones(2, bool)
        return obs, infos

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        assert set(actions) == set(self.agents)
        assert all(self._done[agent].contains(action) for agent, action in actions.items()), actions
        self.given.append(actions)
        self._t += 1
        live = self.agents
        over = self._t == LENGTH
        ended = {agent: (agent == "short" and self._t == DEATH) or (over and self._ends_by == "termination") for agent in live}
        cut = {agent: (agent == "timed" and self._t == LEAVE) or (over and self._ends_by == "truncation") for agent in live}
        self.agents = [agent for agent in live if not ended[agent] and not cut[agent]]
        obs, infos = self._told([agent for agent in live if self._parts or not cut[agent]])
        influence = sum(float(np.sum(action)) for action in actions.values())
        return obs, {agent: 1.0 + influence * (agent == "long") for agent in live}, ended, cut, infos


class Odd(Uneven):
    """What must be refused: observations of another kind, and agents that come late."""

    def __init__(self, space: str = "image", **others: Any) -> None:
        super().__init__(**others)
        odd: dict[str, Any] = {
            "image": spaces.Box(0, 1, (4, 4, 3), np.float32),
            "dict": spaces.Dict({"place": spaces.Box(0, 1, (2,), np.float32)}),
        }
        if space in odd:
            self._seen["timed"] = odd[space]
        if space == "multi":
            self._done["short"] = spaces.MultiDiscrete([2, 2])
        self._late = space == "late"

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        out = super().step(actions)
        if self._late:
            self.agents = [*self.agents, "stranger"]
        return out


class Faulty(Uneven):
    """One fault, in step 2 of the second episode or at its beginning; the file `noted` tells when."""

    def __init__(self, fault: str, noted: str = "", **others: Any) -> None:
        super().__init__(**others)
        self._fault, self._noted, self._episodes = fault, noted, 0

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self._episodes += 1
        obs, infos = super().reset(seed, options)
        if self._episodes > 1:
            if self._fault == "reset":
                raise FileNotFoundError("map.json")
            if self._fault == "other space":
                self._seen["timed"] = spaces.Box(-10, 10, (4,), np.float64)
            if self._fault == "other actions":
                self._done["short"] = spaces.Discrete(5)
            if self._fault == "fewer agents":
                self.agents = self.agents[:2]
        return obs, infos

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        obs, paid, ended, cut, infos = super().step(actions)
        if self._episodes < 2 or self._t != 2:
            return obs, paid, ended, cut, infos
        if self._noted:
            Path(self._noted).write_text(str(time.monotonic()), encoding="ascii")
        row = obs["timed"]
        changed: dict[str, Any] = {"shape": row[:2], "nan": row * np.nan, "text": "north", "object": np.array([{}, 1, 2], object)}
        if self._fault in changed:
            obs["timed"] = changed[self._fault]
        if self._fault == "no observation":
            del obs["timed"]
        if self._fault == "reward":
            paid["timed"] = np.inf
        if self._fault == "mask":
            obs["long"] = {"observation": obs["long"]["observation"], "action_mask": np.zeros(3)}
        if self._fault == "exception":
            raise ZeroDivisionError("division by zero")
        if self._fault == "list":
            return list(obs.values()), paid, ended, cut, infos
        return obs, paid, ended, cut, infos


class Pair:
    """A Gymnasium environment with tuple spaces, as rware and lbforaging have them."""

    observation_space = spaces.Tuple((spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-1, 1, (3,), np.float32)))
    action_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(4)))
    max_steps = 4

    def reset(self, seed: int | None = None) -> tuple[Any, Any]:
        self._rng, self._t = np.random.default_rng(seed), 0
        return self._seen(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        assert self.action_space.contains(actions)
        self._t += 1
        return self._seen(), [float(actions[0]), -float(actions[1])], False, self._t == self.max_steps, {}

    def _seen(self) -> Any:
        return tuple(self._rng.uniform(-1, 1, width).astype(np.float32) for width in (2, 3))

    def close(self) -> None:
        """Nothing to release."""


class Handover(ParallelEnv[str, Any, Any]):  # type: ignore[misc]
    """Two agents and two steps: `first` acts in one step alone and then ends; `second` acts in both, and may choose 1 or 2.

    Step 1 pays first 2 for choice 1, and second 1 for what it chooses; step 2 pays second 4 for choice 1. A team earns at most
    (2 + 2 + 4) / 2 = 4, and what `first` chooses after its end must not matter.
    """

    metadata = {"name": "handover"}  # noqa: RUF012
    max_cycles = 2

    def __init__(self) -> None:
        self.possible_agents = ["first", "second"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(0, 2, (1,), np.float32)

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(2 if agent == "first" else 3)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        self.agents, self._t = list(self.possible_agents), 0
        return self._told(self.agents)

    def _told(self, agents: list[str]) -> tuple[Any, Any]:
        can = {"first": np.ones(2, bool), "second": np.array([False, True, True])}
        return {agent: np.array([self._t], np.float32) for agent in agents}, {
            agent: {"action_mask": can[agent]} for agent in agents
        }

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        live, self._t = self.agents, self._t + 1
        second = float(actions["second"])
        paid = {"first": 2.0 * actions["first"], "second": second} if self._t == 1 else {"second": 4.0 * (second == 1.0)}
        ended = {agent: agent == "first" or self._t == 2 for agent in live}
        self.agents = [agent for agent in live if not ended[agent]]
        obs, infos = self._told(live)
        return obs, paid, ended, dict.fromkeys(live, False), infos

    def close(self) -> None:
        """Nothing to release."""
