"""What every process of a run must know besides the scenario: written once by the coordinator, read by all.

It carries the shape of the world, so that a node learns its sizes without importing any environment, and the graph as
it was built, so that all processes use the same one whatever file or seed it came from.
"""

import hashlib
from pathlib import Path
from typing import Any

import networkx as nx
from pydantic import BaseModel, ConfigDict, model_validator

from scenarios.schema import Scenario

SCENARIO_FILE = "scenario.yaml"
DEPLOYMENT_FILE = "deployment.json"
LOGS = "logs"
CHECKPOINTS = "checkpoints"


class Deployment(BaseModel):
    """Sizes and graph of one run.

    Attributes:
        obs_dims: Width of each agent's observation.
        act_dims: Width of each agent's action.
        choices: How many discrete actions each agent has, 0: its actions are continuous; all are if nothing is given.
        one_hot: Widths of the one-hot parts that each agent's observation consists of, (): it is numbers; all are if nothing
            is given.
        cost_limits: Limit of each cost as the run uses it.
        dt: Control period in seconds.
        first_limits: Steps after which the first episode of each copy is truncated; (): the horizon for all.
        horizon: The same for all later episodes; 0: not recorded (runs of older versions).
        edges: The communication graph, pairs i < j, ascending.
        critic_edges: Agents that the central critic has an edge to; none: there is no central critic.
        learns: False where the run only evaluates stored policies.
        weights: Folder of the checkpoint to start from, if any.
        resumed_after: Round whose stored states the run goes on from; None: it begins at the beginning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    obs_dims: tuple[int, ...]
    act_dims: tuple[int, ...]
    choices: tuple[int, ...] = ()
    one_hot: tuple[tuple[int, ...], ...] = ()
    cost_limits: tuple[float, ...]
    dt: float
    horizon: int = 0
    first_limits: tuple[int, ...] = ()
    edges: tuple[tuple[int, int], ...]
    critic_edges: tuple[int, ...] = ()
    learns: bool = True
    weights: str | None = None
    resumed_after: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _continuous(cls, data: Any) -> Any:
        if isinstance(data, dict) and "obs_dims" in data:
            return {"choices": (0,) * len(data["obs_dims"]), **data}
        return data

    @property
    def n_agents(self) -> int:
        """n, the number of agents."""
        return len(self.obs_dims)

    def seed(self, scenario: Scenario) -> int:
        """Root of all random streams of the run: the scenario's seed, or in an evaluation one that no training has."""
        return scenario.seed if self.learns else evaluation_seed(scenario.seed)

    def graph(self) -> nx.Graph:
        """The topology, nodes and edges in ascending order."""
        graph: nx.Graph = nx.Graph()
        graph.add_nodes_from(range(self.n_agents))
        graph.add_edges_from(sorted(self.edges))
        return graph

    @property
    def cut_copies(self) -> tuple[int, ...]:
        """Copies whose first episode is shorter than the horizon, and therefore counts in no statistics."""
        return tuple(copy for copy, limit in enumerate(self.first_limits) if limit < self.horizon)

    def state_file(self, run_dir: Path, role: str) -> Path | None:
        """What a process goes on from; None: from nothing."""
        return None if self.resumed_after is None else state_folder(run_dir, self.resumed_after) / f"{role}.safetensors"

    @property
    def critic(self) -> int | None:
        """The central critic's place in the network, behind the last agent; None if there is none."""
        return self.n_agents if self.critic_edges else None

    @property
    def n_nodes(self) -> int:
        """Agents, and the central critic if there is one."""
        return self.n_agents + bool(self.critic_edges)

    def wires(self) -> nx.Graph:
        """The topology with the central critic, if there is one."""
        graph = self.graph()
        graph.add_edges_from((agent, self.n_agents) for agent in self.critic_edges)
        return graph

    def write(self, run_dir: Path) -> None:
        """Store it in a run directory, whole or not at all."""
        partial = run_dir / f"{DEPLOYMENT_FILE}.partial"
        partial.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        partial.replace(run_dir / DEPLOYMENT_FILE)

    @classmethod
    def read(cls, run_dir: Path) -> "Deployment":
        """The deployment of a run directory."""
        return cls.model_validate_json((run_dir / DEPLOYMENT_FILE).read_text(encoding="utf-8"))


def evaluation_seed(seed: int) -> int:
    """Root of the random streams by which a team of this seed is judged, so that it never meets its training's chance again.

    It has 64 bits and the seeds of scenarios have 32, so it is the root of no training.

    Example:
        >>> evaluation_seed(0) == evaluation_seed(0), evaluation_seed(0) < 2**32
        (True, False)
    """
    return 1 << 63 | int.from_bytes(hashlib.sha256(f"evaluation {seed}".encode()).digest()[:8], "little")


def state_folder(run_dir: Path, round_: int) -> Path:
    """Where the processes of a run store what they need to go on after a round."""
    return run_dir / CHECKPOINTS / f"state-{round_ + 1}"
