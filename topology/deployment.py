"""What every process of a run must know besides the scenario: written once by the coordinator, read by all.

It carries the shape of the world, so that a node learns its sizes without importing any environment, and the graph as
it was built, so that all processes use the same one whatever file or seed it came from.
"""

import hashlib
from pathlib import Path
from typing import Any

import networkx as nx
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from scenarios.loading import ScenarioError
from scenarios.schema import Scenario
from topology.files import replace

SCENARIO_FILE = "scenario.yaml"
DEPLOYMENT_FILE = "deployment.json"
LOGS = "logs"
CHECKPOINTS = "checkpoints"
INITIAL = "initial"  # what a run keeps of the one with whose weights it began, laid out as a run's folder
CENTRAL_WEIGHTS = "central.safetensors"  # beside those of the agents
MAX_SIZE = 1_000_000  # of an observation or action; the largest that a world has is below 1,000


class Deployment(BaseModel):
    """Sizes and graph of one run.

    Attributes:
        obs_dims: Width of each agent's observation.
        act_dims: Width of each agent's action.
        n_discrete: How many discrete actions each agent has, 0: its actions are continuous; all are if nothing is given.
        one_hot: Widths of the one-hot parts that each agent's observation consists of, (): it is numbers; all are if nothing
            is given.
        masked: Whether the last `n_discrete` numbers of an agent's observation, before its presence, are its action mask; none is
            if nothing is given.
        presence: Whether the last number of an observation tells if the agent takes part (`envs.interface.EnvSpec`).
        cost_limits: Limit of each cost as the run uses it.
        dt: Control period in seconds.
        first_limits: Steps after which the first episode of each copy is truncated; (): the horizon for all.
        alive_bonus: What the team's reward holds per step for nothing but not having ended.
        horizon: The same for all later episodes; 0: not recorded (runs of older versions).
        edges: The communication graph, pairs i < j, ascending.
        labels: What people call each agent, by id; (): agents have their numbers alone.
        places: Where each agent stands in pictures, x and y upwards, by id; None: the picture finds a place; (): for all.
        edge_latency_ms: Delay of each edge's links from the graph's file; None: it says nothing; (): of none.
        edge_rate_bps: Rate of each edge's links, likewise.
        contacts: When each edge can be used, in seconds, ascending and apart; None: always; (): all always.
        contacts_period_s: The contacts repeat after so many seconds; None: they do not.
        notes: What was merged, dropped and taken when the graph was read, as sentences.
        critic_edges: Agents that the central critic has an edge to; none: there is no central critic.
        learns: False where the run only evaluates stored policies.
        weights: Folder of the checkpoint to start from, if any.
        run: A name that no other run has; empty until the run has a directory.
        samples: Whether policies that are only evaluated draw their actions, as in training; else they take the likeliest.
        chooses: Whether these episodes choose which policies are best; those that judge them have other random streams.
        evaluate_rounds: Every how many rounds nodes store their policies to be evaluated; 0: never.
        resumed_after: Round whose stored states the run goes on from; None: it begins at the beginning.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")  # a contact may have no end

    obs_dims: tuple[int, ...]
    act_dims: tuple[int, ...]
    n_discrete: tuple[int, ...] = ()
    one_hot: tuple[tuple[int, ...], ...] = ()
    masked: tuple[bool, ...] = ()
    presence: bool = False
    cost_limits: tuple[float, ...]
    dt: float
    alive_bonus: float = 0.0
    horizon: int = 0
    first_limits: tuple[int, ...] = ()
    edges: tuple[tuple[int, int], ...]
    labels: tuple[str, ...] = ()
    places: tuple[tuple[float, float] | None, ...] = ()
    edge_latency_ms: tuple[float | None, ...] = ()
    edge_rate_bps: tuple[float | None, ...] = ()
    contacts: tuple[tuple[tuple[float, float], ...] | None, ...] = ()
    contacts_period_s: float | None = None
    notes: tuple[str, ...] = ()
    critic_edges: tuple[int, ...] = ()
    learns: bool = True
    weights: str | None = None
    run: str = ""
    samples: bool = False
    chooses: bool = False
    evaluate_rounds: int = 0
    resumed_after: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_older_runs(cls, data: Any) -> Any:
        if isinstance(data, dict) and "obs_dims" in data:
            named = {"n_discrete" if name == "choices" else name: value for name, value in data.items()}
            return {"n_discrete": (0,) * len(data["obs_dims"]), **named}
        return data

    @model_validator(mode="after")
    def _agrees(self) -> "Deployment":
        n = len(self.obs_dims)
        if (
            n == 0
            or len(self.act_dims) != n
            or len(self.n_discrete) != n
            or len(self.one_hot) not in (0, n)
            or len(self.masked) not in (0, n)
        ):
            raise ValueError("its lists are of different numbers of agents")
        if min(*self.obs_dims, *self.act_dims) < 0 or max(*self.obs_dims, *self.act_dims, *self.n_discrete) > MAX_SIZE:
            raise ValueError(f"a size is not within 0 to {MAX_SIZE}")
        if any(not 0 <= i < j < n for i, j in self.edges) or any(not 0 <= i < n for i in self.critic_edges):
            raise ValueError(f"an edge is not between agents of 0 to {n - 1}")
        for of_agents in (self.labels, self.places):
            if len(of_agents) not in (0, n):
                raise ValueError("its labels or places are of another number of agents")
        for of_edges in (self.edge_latency_ms, self.edge_rate_bps, self.contacts):
            if len(of_edges) not in (0, len(self.edges)):
                raise ValueError("its delays, rates or contacts are of another number of edges")
        return self

    @property
    def n_agents(self) -> int:
        """n, the number of agents."""
        return len(self.obs_dims)

    def seed(self, scenario: Scenario) -> int:
        """Root of all random streams of the run: the scenario's seed, or in an evaluation one that no training has."""
        if self.chooses:
            return seed_for("choice", scenario.seed)
        return scenario.seed if self.learns else evaluation_seed(scenario.seed)

    def begins_from(self, scenario: Scenario, run_dir: Path) -> Path | None:
        """What the run has kept of the one with whose weights its learners are to begin; None: they begin otherwise."""
        is_new = self.learns and self.resumed_after is None
        return run_dir / INITIAL if is_new and scenario.init_from is not None else None

    def progress(self, ret: float, length: float) -> float | None:
        """The return of an episode, or a mean of returns, less the alive bonus; None where the world pays none."""
        return float(ret - self.alive_bonus * length) if self.alive_bonus else None

    def evaluates_after(self, round_: int, n_rounds: int) -> bool:
        """Whether nodes store their policies after a round, to be evaluated; after the last round they store them anyway."""
        return bool(self.evaluate_rounds) and (round_ + 1) % self.evaluate_rounds == 0 and round_ + 1 < n_rounds

    def graph(self) -> nx.Graph:
        """The topology, nodes and edges in ascending order, with the attributes that `topology.graph.given` tells of."""
        graph: nx.Graph = nx.Graph(notes=self.notes, period_s=self.contacts_period_s)
        graph.add_nodes_from(range(self.n_agents))
        graph.add_edges_from(sorted(self.edges))
        for name, of_agents in (("label", self.labels), ("pos", self.places)):
            nx.set_node_attributes(graph, {i: value for i, value in enumerate(of_agents) if value is not None}, name)
        for name, of_edges in _ON_EDGES.items():
            found = zip(self.edges, getattr(self, of_edges), strict=False)
            nx.set_edge_attributes(graph, {edge: value for edge, value in found if value is not None}, name)
        return graph

    @property
    def cut_copies(self) -> tuple[int, ...]:
        """Copies whose first episode is shorter than the horizon, and therefore counts in no statistics."""
        return tuple(copy for copy, limit in enumerate(self.first_limits) if limit < self.horizon)

    def state_file(self, run_dir: Path, role: str) -> Path | None:
        """What a process goes on from; None: from nothing."""
        return None if self.resumed_after is None else state_folder(run_dir, self.resumed_after) / f"{role}.safetensors"

    def called(self, agent: int) -> str:
        """What people read of an agent: its id, and its label where the graph gives one; the central critic has its id alone.

        Example:
            >>> Deployment(obs_dims=(1,), act_dims=(1,), cost_limits=(), dt=1, edges=(), labels=("Oslo",)).called(0)
            '0 (Oslo)'
        """
        return f"{agent} ({self.labels[agent]})" if agent < len(self.labels) else str(agent)

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
        replace(run_dir / DEPLOYMENT_FILE, self.model_dump_json(indent=1).encode())

    @classmethod
    def read(cls, run_dir: Path) -> "Deployment":
        """The deployment of a run directory.

        Raises:
            ScenarioError: there is none, or none that a run has written.
        """
        path = run_dir / DEPLOYMENT_FILE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ScenarioError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ScenarioError(f"{path}: cannot be read ({place}: {first['msg']})") from None
        except ValueError as error:
            raise ScenarioError(f"{path}: cannot be read ({error})") from None


_ON_EDGES = {"latency_ms": "edge_latency_ms", "rate_bps": "edge_rate_bps", "contacts": "contacts"}


def graph_fields(graph: nx.Graph) -> dict[str, Any]:
    """What a deployment says of a graph on 0..n-1, whose attributes may be those that `topology.graph.given` tells of.

    Example:
        >>> graph_fields(nx.Graph([(1, 0)]))
        {'edges': ((0, 1),)}
    """
    edges = tuple(sorted((min(edge), max(edge)) for edge in graph.edges))
    found: dict[str, Any] = {"edges": edges, "notes": graph.graph.get("notes", ())}
    found["labels"] = tuple(graph.nodes[i]["label"] for i in sorted(graph) if "label" in graph.nodes[i])
    found["contacts_period_s"] = graph.graph.get("period_s")
    places = tuple(graph.nodes[i].get("pos") for i in sorted(graph))
    found["places"] = places if any(place is not None for place in places) else ()
    for name, field in _ON_EDGES.items():
        values = tuple(graph.edges[edge].get(name) for edge in edges)
        found[field] = values if any(value is not None for value in values) else ()
    return {key: value for key, value in found.items() if key == "edges" or value not in ((), None)}


def evaluation_seed(seed: int) -> int:
    """Root of the random streams by which a team of this seed is judged, so that it never meets its training's chance again."""
    return seed_for("evaluation", seed)


def seed_for(purpose: str, seed: int) -> int:
    """Root of random streams for what is not training: of 64 bits, where seeds of scenarios have 32, so the root of no training.

    Example:
        >>> seed_for("evaluation", 0) == evaluation_seed(0), seed_for("evaluation", 0) < 2**32
        (True, False)
    """
    return 1 << 63 | int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:8], "little")


def state_folder(run_dir: Path, round_: int) -> Path:
    """Where the processes of a run store what they need to go on after a round."""
    return run_dir / CHECKPOINTS / f"state-{round_ + 1}"


def policies_folder(run_dir: Path, round_: int) -> Path:
    """Where the nodes of a run store the policies that are evaluated as they were after a round."""
    return run_dir / CHECKPOINTS / f"policies-{round_ + 1}"
