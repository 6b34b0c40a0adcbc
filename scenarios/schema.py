"""Every knob of a scenario, once: type, unit, default, allowed range, meaning.

This module is the only place where a knob is defined. The JSON Schema that editors read (`kappahop schema`), the
reference page (`docs/scenarios.md`) and the error messages are all made from it. `scenarios.loading` reads files into
it.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scenarios.recipes import AXES, RECIPES, Constraint, CriticScope, Factor, Objective, Order, Quirk, Recipe, Scope, Trace

MAX_AGENTS = 1024  # one process each; 64 is what two cores carry with ease
NOT_YET_WALL = "the wall clock arrives with the link model; only 'virtual' runs today"
NOT_YET_LINKS = "links are ideal for now, so only the ideal value is accepted"


def knob(default: Any, meaning: str, *, unit: str = "dimensionless", **constraints: Any) -> Any:
    """A field with its meaning and unit; `constraints` are pydantic's (ge, gt, le, lt, min_length, …)."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **constraints)


class Section(BaseModel):
    """What all sections share: unknown keys are errors and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LQ(Section):
    """Dynamics of `network_lq`: x' = (alpha·I + beta·Adj(G))·x + u + w, stage cost x² + control_weight·u²."""

    alpha: float = knob(0.5, "How much of its own state a node keeps per step.")
    beta: float = knob(0.27, "How much of each neighbour's state a node takes on per step.")
    control_weight: float = knob(30.0, "Price r of a squared control.", gt=0)
    noise_std: float = knob(1.0, "Standard deviation of the disturbance w.", ge=0)


class Env(Section):
    """The world that all agents share."""

    name: Literal["safe_ant", "safe_halfcheetah", "safe_manyagent_ant", "velocity_ant", "velocity_halfcheetah", "network_lq"] = (
        knob("safe_halfcheetah", "Which world.")
    )
    partition: str = knob(
        "6x1",
        "How the robot's joints are dealt to agents, as agents x joints, e.g. 4x2; for network_lq agents x 1, e.g. 20x1.",
    )
    copies: int = knob(
        10, "E: identical copies stepped at once, all feeding one learner per agent.", unit="copies", ge=1, le=4096
    )
    horizon: int | None = knob(
        None, "Episode limit; null: the world's own (1000 for robots, 100 for network_lq).", unit="steps", ge=1
    )
    walls: Literal["none", "static", "free"] = knob(
        "none",
        "Physical corridor walls: none (only the cost lines), static (they confine), free (they topple, as in the public code).",
    )
    observation: Literal["own", "full", "reference"] = knob(
        "own",
        "What a node senses itself: own joints and the torso's globals; the whole state; or the public code's "
        "standardised vector.",
    )
    reward: Literal["team", "local"] = knob(
        "team", "One reward for all, or each agent its own share (shares sum to the team's; averaged for network_lq)."
    )
    cost: Literal["team", "local"] = knob("team", "One cost for all, or from the agent's own foot where the robot has feet.")
    action_map: Literal["by_name", "reference"] = knob(
        "by_name", "Whether agents drive the joints their partition names, or consecutive actuators as the public code does."
    )
    threads: int = knob(0, "Native threads that step MuJoCo; 0: one per core.", unit="threads", ge=0, le=256)
    lq: LQ = LQ()


class Topology(Section):
    """The communication graph."""

    kind: Literal[
        "kinematic",
        "line",
        "ring",
        "star",
        "complete",
        "grid",
        "tree",
        "erdos_renyi",
        "watts_strogatz",
        "barabasi_albert",
        "random_geometric",
        "file",
    ] = knob("kinematic", "Which graph; kinematic: agents are adjacent where their joints are; file: read `topology.file`.")
    file: str | None = knob(
        None, "Path of an edge list (.edges, .txt), GraphML (.graphml) or node-link JSON (.json); nodes 0..n-1."
    )
    seed: int = knob(0, "Seed of the random graphs; the same graph for every `seed` of the run.", ge=0)
    rows: int | None = knob(None, "Rows of the grid; null: the divisor of n nearest below its square root.", unit="nodes", ge=1)
    branching: int = knob(2, "Children per node of the tree.", unit="nodes", ge=1)
    edge_prob: float = knob(0.3, "Erdős–Rényi: probability of each edge.", gt=0, le=1)
    degree: int = knob(4, "Watts–Strogatz: neighbours per node before rewiring.", unit="nodes", ge=2)
    rewire_prob: float = knob(0.2, "Watts–Strogatz: probability that an edge is rewired.", ge=0, le=1)
    attach: int = knob(2, "Barabási–Albert: edges that a new node brings.", unit="edges", ge=1)
    radius: float = knob(
        0.4, "Random geometric: nodes of the unit square nearer than this are adjacent.", unit="side lengths", gt=0
    )


class Network(Section):
    """The links of the peer plane."""

    transport: Literal["ipc", "tcp"] = knob("ipc", "Socket type between processes.")
    host: str = knob("127.0.0.1", "Address that tcp sockets bind.")
    port: int = knob(0, "First tcp port; processes take it and the ones after it. 0: any free ports.", ge=0, le=65535)
    preset: Literal["ideal"] = knob("ideal", "Link preset.")
    loss_prob: float = knob(0.0, "Probability that a fragment is lost.", ge=0, le=1)
    latency_ms: float = knob(0.0, "One-way delay of a link.", unit="ms", ge=0)
    jitter_ms: float = knob(0.0, "Spread of the delay.", unit="ms", ge=0)
    rate_bps: float | None = knob(None, "Link rate; null: unlimited.", unit="bit/s", gt=0)

    @model_validator(mode="after")
    def _only_ideal(self) -> "Network":
        for name in ("loss_prob", "latency_ms", "jitter_ms"):
            if getattr(self, name) != 0:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; {NOT_YET_LINKS} (0)")
        if self.rate_bps is not None:
            raise ValueError(f"rate_bps: got {self.rate_bps!r}; {NOT_YET_LINKS} (null)")
        return self


class Rollout(Section):
    """One round's sampling."""

    steps: int = knob(200, "T: environment steps per copy and round.", unit="steps", ge=1, le=1_000_000)
    slack_frac: float = knob(
        0.5,
        "Part of the control period within which a message still counts for that step; "
        "only shows in send times while links are ideal.",
        ge=0,
        le=1,
    )


class Budget(Section):
    """When a run is over."""

    env_steps: int = knob(
        300_000, "Environment steps over all copies; rounded up to whole rounds of copies·steps.", unit="steps", ge=1
    )


class Algorithm(Section):
    """The learner: a row of the recipe table, each axis overridable, and its hyperparameters."""

    name: Literal[
        "scal_mappo_l",
        "mappo_l",
        "ippo",
        "mappo",
        "happo",
        "hatrpo",
        "macpo",
        "mafocops",
        "dpo",
        "coppo",
        "a2po",
        "alternating_ppo",
    ] = knob("scal_mappo_l", "Row of the recipe table.")
    preset: Literal["tuned", "paper"] = knob(
        "tuned",
        "Defaults beneath the values given here: from our search (docs/results.md), or the papers' "
        "(also sets env.copies and rollout.steps).",
    )
    actor_scope: Scope | None = knob(None, "Whose states the actor sees; null: as the recipe says.")
    critic_scope: CriticScope | None = knob(None, "Whose states the critics see; null: as the recipe says.")
    order: Order | None = knob(None, "Order of updates within a round; null: as the recipe says.")
    factor: Factor | None = knob(None, "Whose final ratios multiply the advantage; null: as the recipe says.")
    objective: Objective | None = knob(None, "What a policy maximises; null: as the recipe says.")
    constraint: Constraint | None = knob(None, "How costs enter; null: as the recipe says.")
    trace: Trace | None = knob(
        None, "Advantages of the policies that acted, or corrected for agents that have moved since; null: as the recipe says."
    )
    reward: Literal["own", "khop_mean"] = knob(
        "own",
        "Learn from the reward the world gives, or from its mean over the κ-hop ball (4 more bytes per neighbour and sample).",
    )
    ratio: Literal["joint", "per_dim"] = knob(
        "joint", "One importance ratio per action, or one per action dimension (as one public code has it)."
    )
    gamma: float = knob(0.99, "Discount per step.", ge=0, le=1)
    gae_lambda: float = knob(0.95, "Trace decay of the advantage estimate: 0 is TD(0), 1 is returns minus values.", ge=0, le=1)
    epochs: int = knob(10, "K: passes over the round's samples per update.", unit="passes", ge=1)
    minibatches: int = knob(8, "Minibatches per pass.", ge=1)
    chunk: int = knob(
        512, "Samples per forward and backward piece; changes speed and rounding, not the gradient.", unit="samples", ge=1
    )
    actor_lr: float = knob(5e-4, "Adam step of the actor.", ge=0)
    critic_lr: float = knob(1e-3, "Adam step of the critics.", ge=0)
    lr_decay: Literal["none", "linear"] = knob("linear", "Whether both steps fall linearly to 0 over the budget.")
    adam_eps: float = knob(1e-5, "Adam's epsilon.", gt=0)
    clip: float = knob(0.2, "ε: the ratio is clipped to 1±ε.", gt=0, lt=1)
    clip_others_frac: float = knob(0.5, "Double clip: the others' product is clipped to this part of the own width.", gt=0, le=1)
    clip_ramp: float = knob(
        0.5,
        "Double clip, in turn: c of the width ε·(c + (1-c)·k/n of the k-th of n agents; 1 gives all the same width.",
        ge=0,
        le=1,
    )
    kl_bound: float = knob(0.01, "Trust region and FOCOPS: δ, bound on a round's mean divergence.", unit="nats", gt=0)
    damping: float = knob(0.1, "Trust region: added to the diagonal of the Fisher matrix.", ge=0)
    backtrack: float = knob(0.8, "Trust region: each try of the line search is this part of the one before.", gt=0, lt=1)
    kl_target: float = knob(0.01, "KL penalty: d, the mean divergence per round that its prices aim at.", unit="nats", gt=0)
    focops_temperature: float = knob(
        2.0, "FOCOPS: λ, price of the divergence in (standardised) advantage; small is greedy.", gt=0
    )
    entropy_coef: float = knob(0.0, "Weight of the entropy bonus; trust regions have none.", ge=0)
    max_grad_norm: float = knob(0.5, "Gradients are scaled down to this global norm per network.", gt=0)
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = knob(
        (64, 64), "Widths of the hidden layers; [] is a linear map.", unit="units"
    )
    activation: Literal["relu", "tanh"] = knob("relu", "Nonlinearity.")
    layer_norm: bool = knob(False, "LayerNorm after each hidden layer.")
    input_norm: Literal["running", "layer", "none"] = knob(
        "running", "Inputs standardised by running statistics (frozen within a round), by a LayerNorm, or not."
    )
    value_norm: bool = knob(True, "Critics regress returns normalised by running statistics.")
    huber_delta: float | None = knob(10.0, "Huber threshold of the critic loss, in normalised units; null: squared error.", gt=0)
    value_clip: float | None = knob(
        0.2, "How far a value may move from its old prediction before its loss is clipped; null: no clip.", gt=0
    )
    std: Literal["sigmoid", "exp"] = knob("exp", "Action spread: 0.5·sigmoid(p), always below 0.5, or exp(p).")
    std_init: float = knob(
        0.5, "Initial standard deviation of an action (below 0.5 with std: sigmoid).", unit="action units", gt=0
    )
    value_norm_beta: float = knob(
        0.9, "Memory of the running return statistics, per round (the papers: 0.99999, per minibatch).", ge=0, lt=1
    )
    head_gain: float = knob(0.01, "Scale of the actor's last layer at the start.", gt=0)
    truncation: Literal["bootstrap", "ignore"] = knob(
        "bootstrap",
        "At a time limit: use the value of the true last observation, or give the step no advantage as some public codes do.",
    )
    cost_limit: float | None = knob(
        None, "b: limit on the undiscounted cost of an episode; null: the world's own.", unit="cost", ge=0
    )
    mult_init: float = knob(0.0, "λ₀: Lagrange multiplier at the start.", ge=0)
    mult_lr: float = knob(0.002, "η_λ: step of the multiplier, per minibatch.", ge=0)
    mult_max: float = knob(20.0, "The multiplier is kept at or below this.", gt=0)
    quirks: tuple[Quirk, ...] = knob(
        (),
        "Departures of public code or print from what it means, for reproduction. signed_huber: large negative value errors "
        "count squared; shared_return_norm: one return statistic for reward and costs; fixed_value_head: value heads are not "
        "rescaled when return statistics move; unmasked_divergence: FOCOPS masks the advantage's term alone.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Algorithm":
        if self.std == "sigmoid" and self.std_init >= 0.5:
            raise ValueError(f"std_init: got {self.std_init}; with std: sigmoid it must be below 0.5")
        conflict = self.recipe.conflict()
        if conflict is not None:
            raise ValueError(conflict)
        return self

    @property
    def recipe(self) -> Recipe:
        """The row named by `name`, with the axes that this scenario overrides."""
        row = RECIPES[self.name]
        return replace(row, **{axis: getattr(self, axis) for axis in AXES if getattr(self, axis) is not None})


class Supervision(Section):
    """Deadlines: what passes one of these ends the run with a message."""

    deadline_s: float = knob(
        120.0,
        "Longest wait for one message, in wall time; passing it names who was silent. Agents that learn are silent: "
        "it must exceed the learning of one round, with a sequential factor that of all agents.",
        unit="s",
        gt=0,
    )
    start_s: float = knob(60.0, "Longest wait for all processes to be up.", unit="s", gt=0)
    stop_s: float = knob(3.0, "How long a process may take to end after it was asked to.", unit="s", gt=0, le=8)


class Record(Section):
    """What a run writes besides its database."""

    tensorboard: bool = knob(True, "Write TensorBoard events.")
    checkpoint_rounds: int = knob(0, "Write all weights every so many rounds; 0: at the end only.", unit="rounds", ge=0)


class Scenario(Section):
    """A whole run: who, on which graph, in which world, learning how, for how long."""

    name: str = knob("scenario", "Name of the scenario; the file's name if not given.")
    description: str = knob("", "One sentence on what it shows.")
    seed: int = knob(0, "Seed of everything random.", ge=0, lt=2**32)
    kappa: int = knob(1, "κ: how far agents hear each other.", unit="hops (or agents, see kappa_unit)", ge=0, le=MAX_AGENTS)
    kappa_unit: Literal["hops", "agents"] = knob(
        "hops",
        "κ counts graph hops, or visible agents, self included, nearest first, ties to the lower id "
        "(as the Scal-MAPPO-L paper seems to).",
    )
    routing: Literal["relay", "direct"] = knob(
        "relay", "Sockets along edges only, messages flooding along trees; or one socket per peer of the ball."
    )
    clock: Literal["virtual", "wall"] = knob("virtual", "Lockstep in modelled time, or real time.")
    env: Env = Env()
    topology: Topology = Topology()
    network: Network = Network()
    rollout: Rollout = Rollout()
    budget: Budget = Budget()
    algorithm: Algorithm = Algorithm()
    supervision: Supervision = Supervision()
    record: Record = Record()

    @model_validator(mode="after")
    def _fits_together(self) -> "Scenario":
        if self.clock == "wall":
            raise ValueError(f"clock: got 'wall'; {NOT_YET_WALL}")
        self._refuse_axes_without_messages()
        if self.kappa_unit == "agents" and self.kappa < 1:
            raise ValueError(
                f"kappa: got {self.kappa}; with kappa_unit: agents it counts the agent itself and must be at least 1"
            )
        if (self.topology.kind == "file") != (self.topology.file is not None):
            raise ValueError(
                f"topology.file: got {self.topology.file!r} with topology.kind={self.topology.kind}; "
                "kind 'file' and a path go together"
            )
        batch = self.env.copies * self.rollout.steps
        if self.algorithm.minibatches > batch:
            raise ValueError(
                f"algorithm.minibatches: got {self.algorithm.minibatches}; a round has only {batch} samples "
                "(env.copies x rollout.steps)"
            )
        return self

    def _refuse_axes_without_messages(self) -> None:
        recipe = self.algorithm.recipe
        for axis, value, why in (
            ("critic_scope", "central", "the coordinator keeps no critic yet"),
            ("order", "semi_greedy", "agents do not tell each other their scores yet"),
            ("order", "alternating", "agents do not take turns yet"),
        ):
            if getattr(recipe, axis) == value:
                raise ValueError(f"algorithm.{axis}: got {value!r}; {why}")
        if recipe.order == "simultaneous" and recipe.factor != "none":
            raise ValueError(
                f"algorithm.factor: got {recipe.factor!r} with order 'simultaneous'; ratios are not exchanged during updates yet"
            )

    @property
    def n_rounds(self) -> int:
        """Rounds that the budget buys, rounded up."""
        return -(-self.budget.env_steps // (self.env.copies * self.rollout.steps))
