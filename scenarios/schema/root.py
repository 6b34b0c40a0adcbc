"""A whole scenario: its sections, and what must fit together across them."""

from functools import lru_cache
from typing import Literal

from pydantic import create_model, model_validator

from scenarios.registry import LINK_PRESETS
from scenarios.schema.algorithm import Algorithm
from scenarios.schema.base import Section, setting
from scenarios.schema.compute import Central, Compute
from scenarios.schema.env import Env
from scenarios.schema.network import TRACE, Network, Part, Slow
from scenarios.schema.record import Evaluation, Record
from scenarios.schema.rollout import Budget, Rollout
from scenarios.schema.supervision import Supervision
from scenarios.schema.topology import Topology

MAX_AGENTS = 1024  # one process each; 64 is what two cores carry with ease
MAX_NAME_BYTES = 150  # of a file's name 255 are taken; seed, time and number of a run come behind it


class Scenario(Section):
    """A whole run: which agents, on which graph, in which world, learning how, for how long."""

    name: str = setting(
        "scenario",
        "Name of the scenario, and of the folders and pictures made of it; the file's name if not given.",
        min_length=1,
    )
    description: str = setting("", "One sentence on what it shows.")
    label: str = setting(
        "",
        "What comparisons and reports call the cell of this run; not given: the settings in which it differs from others.",
        max_length=60,
    )
    seed: int = setting(0, "Seed of everything random.", ge=0, lt=2**32)
    kappa: int = setting(
        1, "κ: from how far away agents receive states.", unit="hops (or agents, see kappa_unit)", ge=0, le=MAX_AGENTS
    )
    kappa_unit: Literal["hops", "agents"] = setting(
        "hops",
        "κ counts graph hops, or visible agents, self included, nearest first, ties to the lower id "
        "(as the Scal-MAPPO-L paper seems to).",
    )
    routing: Literal["relay", "direct"] = setting(
        "relay", "Sockets along edges only, messages flooding along trees; or one socket per peer of the ball."
    )
    clock: Literal["virtual", "wall"] = setting(
        "virtual",
        "Virtual: lockstep in modelled time, on modelled links. Wall: real time on the real network, nothing modelled.",
    )
    init_from: str | None = setting(
        None,
        "Folder of a finished run with whose last policies, critics and statistics this one begins; null: with fresh ones.",
        min_length=1,
    )
    env: Env = Env()
    topology: Topology = Topology()
    presets: dict[str, Part] = setting({}, "Link presets of the scenario by name; each starts from its `preset`, or ideal.")
    network: Network = Network()
    compute: Compute = Compute()
    rollout: Rollout = Rollout()
    budget: Budget = Budget()
    algorithm: Algorithm = Algorithm()
    central: Central = Central()
    supervision: Supervision = Supervision()
    evaluation: Evaluation = Evaluation()
    record: Record = Record()

    @model_validator(mode="after")
    def _fits_together(self) -> "Scenario":
        if not self.name.isprintable() or "/" in self.name or self.name[:1] == "." or len(self.name.encode()) > MAX_NAME_BYTES:
            raise ValueError(
                f"name: got {self.name[:60]!r}; folders are called by it, so it has printable characters without '/', does not "
                f"begin with '.', and takes at most {MAX_NAME_BYTES} bytes"
            )
        if self.label and not self.label.isprintable():
            raise ValueError(f"label: got {self.label!r}; it has printable characters alone")
        if self.clock == "wall":
            if self.supervision.agents_per_process != 1:
                raise ValueError(
                    f"supervision.agents_per_process: got {self.supervision.agents_per_process} with clock 'wall'; agents of one "
                    "process take turns, so on the real network each has its own: 1"
                )
            if self.evaluation.every_rounds:
                raise ValueError(
                    f"evaluation.every_rounds: got {self.evaluation.every_rounds} with clock 'wall'; an evaluation is modelled, "
                    "so on the real network evaluate the team when it is trained: kappahop evaluate RUN"
                )
            modelled = ("loss_prob", "latency_ms", "jitter_ms", "rate_bps", "edges", "events", "random_outages", "churn")
            given = (self.topology.delay_from, self.topology.rate_from, self.topology.schedule)
            if self.network.preset != "ideal" or any(getattr(self.network, name) for name in modelled) or any(given):
                raise ValueError("clock: got 'wall'; on the real network nothing is modelled, so leave the links ideal")
            if 3 * self.network.patience_s > self.supervision.deadline_s:  # an agent waits three times between two rounds
                raise ValueError(
                    f"network.patience_s: got {self.network.patience_s:g} with clock 'wall'; an agent may wait so long three "
                    f"times a round, and all of it must fit supervision.deadline_s, {self.supervision.deadline_s:g}"
                )
        for place, event in enumerate(self.network.events):
            if isinstance(event, Slow) and not self.compute.takes_time(event.agent):
                raise ValueError(
                    f"network.events.{place}.do: got 'slow' for agent {event.agent}, whose computing takes no virtual time; "
                    "give compute.forward_ms, values_ms or policy_ms, or take the event out"
                )
        self._refuse_what_cannot_be_agreed_on()
        for name, own in self.presets.items():
            if name in LINK_PRESETS.names() or name.startswith(TRACE):
                raise ValueError(f"presets: got {name!r}, a name that is taken; `kappahop list presets` lists the others")
            if own.preset in self.presets:
                raise ValueError(f"presets.{name}.preset: got {own.preset!r}; it must not start from a preset of the scenario")
        if self.kappa_unit == "agents" and self.kappa < 1:
            raise ValueError(
                f"kappa: got {self.kappa}; with kappa_unit: agents it counts the agent itself and must be at least 1"
            )
        for key in ("file", "schedule", "delay_from", "rate_from"):
            if self.topology.kind != "file" and getattr(self.topology, key) is not None:
                raise ValueError(
                    f"topology.{key}: got {getattr(self.topology, key)!r} with topology.kind={self.topology.kind}; "
                    "it belongs to kind 'file'"
                )
        if self.topology.kind == "file" and self.topology.file is None and self.topology.schedule is None:
            raise ValueError(
                "topology.file: got None with topology.kind=file; kind 'file' needs the path of a graph or a schedule"
            )
        if self.topology.schedule_period_s is not None and self.topology.schedule is None:
            raise ValueError(
                f"topology.schedule_period_s: got {self.topology.schedule_period_s:g} without topology.schedule, which it repeats"
            )
        batch = self.env.num_envs * self.rollout.steps
        if self.algorithm.recipe.target == "advantage" and self.algorithm.minibatches > batch:
            raise ValueError(
                f"algorithm.minibatches: got {self.algorithm.minibatches}; a round has only {batch} samples "
                "(env.num_envs x rollout.steps)"
            )
        return self

    def _refuse_what_cannot_be_agreed_on(self) -> None:
        recipe = self.algorithm.recipe
        if recipe.is_ranked and (self.clock == "wall" or self.supervision.on_node_death == "continue"):
            where = "clock 'wall'" if self.clock == "wall" else "supervision.on_node_death 'continue'"
            raise ValueError(
                f"algorithm.order: got 'semi_greedy' with {where}; agents that miss a score would find another order than the "
                "rest, so choose 'random' or 'fixed'"
            )
        if recipe.critic_scope == "central":
            for key, value, needed in (
                ("clock", self.clock, "virtual"),
                ("routing", self.routing, "relay"),
                ("supervision.on_node_death", self.supervision.on_node_death, "stop"),
                ("algorithm.reward", self.algorithm.reward, "own"),
            ):
                if value != needed:
                    raise ValueError(f"{key}: got {value!r}; with critic_scope 'central' it must be {needed!r}")

    def is_same_as(self, other: "Scenario") -> bool:
        """Whether the two are the same run, whatever is said of them."""
        return self.model_copy(update={"description": other.description, "label": other.label}) == other

    def stores_after(self, round_: int) -> bool:
        """Whether processes store their states after a round."""
        every = self.record.state_rounds if self.clock == "virtual" else 0
        return bool(every) and (round_ + 1) % every == 0 and round_ + 1 < self.n_rounds

    def step_fraction(self, round_: int) -> float:
        """Size of a learning step in a round, as a part of that at the start."""
        return self.algorithm.step_fraction(round_, self.n_rounds, self.budget.extended)

    @property
    def n_rounds(self) -> int:
        """Rounds that the budget buys, rounded up."""
        return -(-self.budget.env_steps // (self.env.num_envs * self.rollout.steps))


@lru_cache
def in_world(settings: type[Env]) -> type[Scenario]:
    """The model of a scenario whose section `env` is that of one world.

    Args:
        settings: The world's own settings.

    Returns:
        A subclass of `Scenario`, the same one every time.
    """
    return create_model("Scenario", __base__=Scenario, __doc__=Scenario.__doc__, env=(settings, ...))
