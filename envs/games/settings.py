"""Settings of the games: each its own."""

from typing import ClassVar, Literal

from pydantic import model_validator

from envs.settings import TeamEnv, team
from scenarios.schema import setting

MAX_RING = 5  # agents of the ring: beyond, the disc is so wide that it meets the trap
_SEED = setting(0, "Seed of the game's payoffs and transitions; the same game for every `seed` of the run.", ge=0)


class TabularGame(TeamEnv):
    """What all games with finitely many states share."""

    encoding: Literal["one_hot", "index"] = setting(
        "one_hot", "How a state with a number is shown: one-hot, or the number itself."
    )


class MatrixGame(TabularGame):
    """Two agents choose once, and a table says what that pays."""

    default_agents: ClassVar[int] = 2

    name: str = setting("matrix_game", "Which world.")
    agents: int | None = team(default_agents, 2, 2)
    payoff: Literal["climbing", "penalty", "miscoordination", "non_monotone"] = setting("climbing", "Which table.")
    penalty: float = setting(-100.0, "What missing each other costs in the penalty game.", le=0)


class SharingGame(TabularGame):
    """Pays if the first half of the agents choose one thing and the others the other."""

    default_agents: ClassVar[int] = 6

    name: str = setting("sharing_game", "Which world.")
    agents: int | None = team(default_agents, 2, 12)


class StageGame(TabularGame):
    """A tree of joint actions of two agents."""

    default_agents: ClassVar[int] = 2

    name: str = setting("stage_game", "Which world.")
    agents: int | None = team(default_agents, 2, 2)
    stages: int = setting(3, "Steps of the game; its states grow ninefold with each.", unit="steps", ge=1, le=5)
    seed: int = _SEED


class StochasticGame(TabularGame):
    """A random cooperative stochastic game."""

    default_agents: ClassVar[int] = 3

    name: str = setting("stochastic_game", "Which world.")
    agents: int | None = team(default_agents, 1, 8)
    states: int = setting(30, "How many states.", unit="states", ge=1, le=1000)
    n_discrete: int = setting(5, "Actions of each agent.", unit="actions", ge=1, le=100)
    reward_range: float = setting(5.0, "Rewards are uniform within ± this.", unit="reward", gt=0)
    transition: Literal["softmax", "dirichlet"] = setting("softmax", "softmax of logits uniform within ±2, or Dirichlet(1).")
    start: Literal["first", "uniform"] = setting("first", "Where an episode starts: in the first state, or in any.")
    seed: int = _SEED


class TruncationChain(TabularGame):
    """A path of agents with a bit each, which feels the neighbours' bits."""

    default_agents: ClassVar[int] = 6

    name: str = setting("truncation_chain", "Which world.")
    agents: int | None = team(default_agents, 2, 6)
    coupling: float = setting(0.15, "How much a neighbour's bit moves an agent's.", unit="logits")
    observation: Literal["own", "full"] = setting("own", "What an agent sees itself: its own bit, or all.")
    reward: Literal["team", "local"] = setting("team", "The mean over agents for all, or each agent its own.")
    seed: int = _SEED


class DifferentialGame(TeamEnv):
    """Continuous actions, a narrow best place and a broad worse one."""

    default_agents: ClassVar[int] = 2

    name: str = setting("differential_game", "Which world.")
    agents: int | None = team(default_agents, 1, MAX_RING)
    landscape: Literal["ring", "basin"] = setting(
        "ring", "A point moved to the centre within a ring, or one number named per agent (two agents)."
    )
    observation: Literal["own", "full"] = setting("own", "ring: what an agent sees itself, its own coordinate or all.")

    @model_validator(mode="after")
    def _two_name(self) -> "DifferentialGame":
        if self.landscape == "basin" and self.n_agents != 2:
            raise ValueError(f"agents: got {self.agents}; with landscape 'basin' there are 2")
        return self
