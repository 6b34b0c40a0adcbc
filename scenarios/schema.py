"""Every setting of a scenario, once: type, unit, default, allowed range, meaning.

This module is the only place where a setting is defined. The JSON Schema that editors read (`kappahop schema`), the
reference page (`docs/reference/settings.md`) and the error messages are all made from it. `scenarios.loading` reads files into
it.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scenarios.recipes import (
    AXES,
    RECIPES,
    Constraint,
    CriticScope,
    Factor,
    Model,
    Objective,
    Order,
    Quirk,
    Recipe,
    Scope,
    Target,
    Trace,
)

TRACE = "trace:"  # what a preset that is a file begins with
MAX_AGENTS = 1024  # one process each; 64 is what two cores carry with ease
MAX_LAYERS = 16
MAX_NAME_BYTES = 150  # of a file's name 255 are taken; seed, time and number of a run come behind it
Precision = Literal["float32", "float16", "bfloat16", "int8"]


def setting(default: Any, meaning: str, *, unit: str = "dimensionless", **constraints: Any) -> Any:
    """A field with its meaning and unit; `constraints` are pydantic's (ge, gt, le, lt, min_length, …)."""
    return Field(default, description=meaning, json_schema_extra={"unit": unit}, **constraints)


class Section(BaseModel):
    """What all sections share: unknown keys are errors and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LQ(Section):
    """Dynamics of `network_lq`: x' = (alpha·I + beta·Adj(G))·x + u + w, stage cost x² + control_weight·u²."""

    alpha: float = setting(0.5, "How much of its own state a node keeps per step.")
    beta: float | Literal["auto"] = setting(
        "auto",
        "How much of each neighbour's state a node takes on per step. auto: 0.27 on a line; on any other graph the smaller of "
        "0.27 and 0.95·(1 - |alpha|)/λ_max(Adj(G)), with which the network is stable.",
    )
    control_weight: float = setting(30.0, "Price r of a squared control.", gt=0)
    noise_std: float = setting(1.0, "Standard deviation of the disturbance w.", ge=0)
    control_limit: float | None = setting(
        None,
        "Squared control that a node may spend per step, on average over an episode; it is a cost then, team's or own as "
        "`env.cost` says. null: the world has no cost.",
        unit="control units²",
        gt=0,
    )

    @model_validator(mode="after")
    def _stable(self) -> "LQ":
        if self.beta == "auto" and abs(self.alpha) >= 1:
            raise ValueError(
                f"alpha: got {self.alpha} with beta 'auto'; no coupling makes such a network stable, so give beta as a number"
            )
        return self


class Game(Section):
    """The games: which one, how large, and how its states are shown."""

    payoff: Literal["climbing", "penalty", "miscoordination", "non_monotone"] = setting("climbing", "Which matrix_game.")
    penalty: float = setting(-100.0, "What missing each other costs in the penalty game.", le=0)
    stages: int = setting(3, "Steps of a stage_game; its states grow ninefold with each.", unit="steps", ge=1, le=5)
    states: int = setting(30, "States of a stochastic_game.", ge=1, le=1000)
    choices: int = setting(5, "Actions of each agent of a stochastic_game.", ge=1, le=100)
    reward_range: float = setting(5.0, "Rewards of a stochastic_game are uniform within ± this.", unit="reward", gt=0)
    transition: Literal["softmax", "dirichlet"] = setting(
        "softmax", "Transitions of a stochastic_game: softmax of logits uniform within ±2, or Dirichlet(1)."
    )
    start: Literal["first", "uniform"] = setting("first", "Where a stochastic_game starts: in its first state, or in any.")
    coupling: float = setting(0.15, "How much a neighbour's state moves an agent's in the truncation_chain.", unit="logits")
    landscape: Literal["ring", "basin"] = setting(
        "ring", "Which differential_game: a point moved to the centre within a ring, or one number named per agent."
    )
    encoding: Literal["one_hot", "index"] = setting(
        "one_hot", "How a state with a number is shown: one-hot, or the number itself."
    )
    seed: int = setting(0, "Seed of a game's payoffs and transitions; the same game for every `seed` of the run.", ge=0)


class Env(Section):
    """The world that all agents share."""

    name: Literal[
        "safe_ant",
        "safe_halfcheetah",
        "safe_manyagent_ant",
        "velocity_ant",
        "velocity_halfcheetah",
        "mamujoco_ant",
        "mamujoco_halfcheetah",
        "mamujoco_hopper",
        "mamujoco_walker2d",
        "mamujoco_humanoid",
        "mamujoco_swimmer",
        "network_lq",
        "matrix_game",
        "sharing_game",
        "stage_game",
        "stochastic_game",
        "truncation_chain",
        "differential_game",
    ] = setting("safe_halfcheetah", "Which world.")
    partition: str = setting(
        "6x1",
        "How the robot's joints are dealt to agents, as agents x joints, e.g. 4x2; network_lq and games: agents x 1, e.g. 20x1.",
    )
    copies: int = setting(
        10, "E: identical copies stepped at once, all feeding one learner per agent.", unit="copies", ge=1, le=4096
    )
    horizon: int | None = setting(
        None,
        "Episode limit; null: the world's own (1000 for robots, 100 for network_lq, a game's own length).",
        unit="steps",
        ge=1,
    )
    stagger: bool = setting(
        True,
        "Copies start at different phases of an episode, so that every round has samples of every phase: the first episode of "
        "copy e is truncated after ceil(horizon·(e+1)/copies) steps and left out of all statistics. In training only, and only "
        "where an episode is longer than a round (rollout.steps).",
    )
    walls: Literal["none", "static", "free"] = setting(
        "none",
        "Physical corridor walls: none (only the cost lines), static (they confine), free (they topple, as in the public code).",
    )
    observation: Literal["own", "full", "reference"] = setting(
        "own",
        "What a node senses itself: own joints and the torso's globals; the whole state; or the public code's "
        "standardised vector, where there is one.",
    )
    reward: Literal["team", "local"] = setting(
        "team", "One reward for all, or each agent its own share (shares sum to the team's; averaged for network_lq and games)."
    )
    cost: Literal["team", "local"] = setting("team", "One cost for all, or from the agent's own foot where the robot has feet.")
    action_map: Literal["by_name", "reference"] = setting(
        "by_name", "Whether agents drive the joints their partition names, or consecutive actuators as the public code does."
    )
    threads: int = setting(0, "Native threads that step MuJoCo; 0: one per core.", unit="threads", ge=0, le=256)
    lq: LQ = LQ()
    game: Game = Game()


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
    ] = setting("kinematic", "Which graph; kinematic: agents are adjacent where their joints are; file: read `topology.file`.")
    file: str | None = setting(
        None,
        "Path of an edge list (.edges, .txt), GraphML (.graphml) or node-link JSON (.json); nodes 0..n-1. A relative path in a "
        "scenario's file starts at that file's folder, on the command line at the present one.",
    )
    seed: int = setting(0, "Seed of the random graphs; the same graph for every `seed` of the run.", ge=0)
    rows: int | None = setting(
        None, "Rows of the grid; null: the divisor of n nearest below its square root.", unit="nodes", ge=1
    )
    branching: int = setting(2, "Children per node of the tree.", unit="nodes", ge=1)
    edge_prob: float = setting(0.3, "Erdős–Rényi: probability of each edge.", gt=0, le=1)
    degree: int = setting(4, "Watts–Strogatz: neighbours per node before rewiring.", unit="nodes", ge=2)
    rewire_prob: float = setting(0.2, "Watts–Strogatz: probability that an edge is rewired.", ge=0, le=1)
    attach: int = setting(2, "Barabási–Albert: edges that a new node brings.", unit="edges", ge=1)
    radius: float = setting(
        0.4, "Random geometric: nodes of the unit square nearer than this are adjacent.", unit="side lengths", gt=0
    )


class LinkAttributes(Section):
    """What a link is like. Null leaves an attribute as it is otherwise."""

    loss_prob: float | None = setting(None, "Probability that a fragment is lost; null: as the preset says.", ge=0, le=1)
    loss_burst: float | None = setting(
        None,
        "Mean number of fragments lost in a row, 1 or more (Gilbert); 0: each is lost or not by itself (Bernoulli); "
        "null: as the preset says.",
        unit="fragments",
        ge=0,
    )
    latency_ms: float | None = setting(
        None, "One-way delay, to which the spread is added; null: as the preset says.", unit="ms", ge=0
    )
    jitter_ms: float | None = setting(
        None, "Delays are spread evenly over latency_ms ± this; null: as the preset says.", unit="ms", ge=0
    )
    rate_bps: float | None = setting(None, "Link rate; 0: unlimited; null: as the preset says.", unit="bit/s", ge=0)
    mtu_bytes: int | None = setting(
        None, "Size of the fragments that are lost one by one; null: as the preset says.", unit="bytes", ge=1
    )
    queue_bytes: int | None = setting(
        None,
        "Bytes that may wait for the link or be on their way into it, beyond which datagrams are dropped; 0: unlimited; "
        "null: as the preset says.",
        unit="bytes",
        ge=0,
    )
    duty: float | None = setting(None, "Part of the time that the link may transmit; null: as the preset says.", gt=0, le=1)
    retries: int | None = setting(
        None, "How often a reliable message repeats a lost fragment before it gives up; null: as the preset says.", ge=0, le=100
    )

    @model_validator(mode="after")
    def _burst_is_one(self) -> "LinkAttributes":
        if self.loss_burst is not None and 0 < self.loss_burst < 1:
            raise ValueError(f"loss_burst: got {self.loss_burst}; a burst has at least 1 fragment (0: no bursts)")
        return self


Ends = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Agents = tuple[Annotated[int, Field(ge=0)], ...]


class Item(Section):
    """What all items of lists share: a flag is no number."""

    @model_validator(mode="before")
    @classmethod
    def _no_flags(cls, data: Any) -> Any:
        # pydantic would take true for 1, and the check of `scenarios.loading` does not look into lists
        for name, field in cls.model_fields.items():
            if (
                isinstance(data, dict)
                and isinstance(data.get(name), bool)
                and bool not in (field.annotation, *get_args(field.annotation))
            ):
                raise ValueError(f"{name}: got {str(data[name]).lower()}; {field.description}")
        return data


class Part(LinkAttributes, Item):
    """Attributes of some of the links: a preset starts afresh, without one only the attributes given here change."""

    preset: str | None = setting(
        None, "Link preset, which replaces all that held otherwise; null: only what is given here changes."
    )
    reorder: bool | None = setting(None, "Whether messages may overtake each other; null: as otherwise.")


class Edge(Part):
    """The links of one edge, where they differ from the others."""

    between: Ends = setting(..., "The two agents of the edge.")
    one_way: bool = setting(False, "Only the link from the first to the second.")

    @model_validator(mode="after")
    def _two(self) -> "Edge":
        _differ(self.between)
        return self


class Span(Item):
    """When an event holds, in virtual time from the start of the run."""

    from_s: float = setting(..., "When it begins.", unit="s", ge=0)
    until_s: float | None = setting(None, "When it is over; null: never.", unit="s", gt=0)

    @model_validator(mode="after")
    def _forward(self) -> "Span":
        if self.until_s is not None and self.until_s <= self.from_s:
            raise ValueError(f"until_s: got {self.until_s}; it must be later than from_s, {self.from_s}")
        return self


class Where(Item):
    """Which links an event is about."""

    between: Ends | None = setting(None, "The two agents of one edge.")
    agents: Agents | None = setting(None, "All links to and from these agents.", min_length=1)
    one_way: bool = setting(False, "Only the link from the first to the second of `between`.")

    @model_validator(mode="after")
    def _one_place(self) -> "Where":
        if self.between is not None:
            _differ(self.between)
            if self.agents is not None:
                raise ValueError(f"agents: got {list(self.agents)}; 'between' and 'agents' do not go together")
        elif self.one_way:
            raise ValueError("one_way: got true; it needs 'between'")
        return self


class Outage(Span, Where):
    """Links that carry nothing."""

    do: Literal["outage"] = setting(..., "What happens.")

    @model_validator(mode="after")
    def _somewhere(self) -> "Outage":
        if self.between is None and self.agents is None:
            raise ValueError("between: got nothing; an outage needs 'between' or 'agents'")
        return self


class Partition(Span):
    """Some agents cut off from the rest."""

    do: Literal["partition"] = setting(..., "What happens.")
    agents: Agents = setting(..., "Those on the one side; the rest is the other.", min_length=1)
    one_way: Literal["none", "in", "out"] = setting(
        "none", "none: nothing passes; in: only what goes to these agents is cut; out: only what comes from them."
    )


class Change(Span, Where, Part):
    """Links that are otherwise for a while: all of them, unless `between` or `agents` says which."""

    do: Literal["change"] = setting(..., "What happens.")


class Crash(Span):
    """An agent that neither sends nor hears."""

    do: Literal["crash"] = setting(..., "What happens.")
    agent: int = setting(..., "Which agent.", ge=0)


class Slow(Span):
    """An agent whose computing takes longer."""

    do: Literal["slow"] = setting(..., "What happens.")
    agent: int = setting(..., "Which agent.", ge=0)
    factor: float = setting(..., "How many times as long everything takes it.", gt=0)


Event = Annotated[Outage | Partition | Change | Crash | Slow, Field(discriminator="do")]


class RandomOutages(Section):
    """Outages by chance, each edge by itself and both ways at once; times up and down are exponential."""

    mean_up_s: float = setting(..., "Mean time between outages; all edges are up at first.", unit="s", gt=0)
    mean_down_s: float = setting(..., "Mean length of an outage.", unit="s", gt=0)


class Churn(Section):
    """Agents that go and come back by chance: Weibull sessions, exponential absences."""

    mean_on_s: float = setting(..., "Mean length of a session; all agents are on at first.", unit="s", gt=0)
    weibull_shape: float = setting(
        0.6, "Shape of the sessions: below 1 many short and some very long ones, 1 exponential.", ge=0.1, le=10
    )
    mean_off_s: float = setting(..., "Mean length of an absence.", unit="s", gt=0)


class Delivery(Section):
    """What becomes of lost fragments, by kind of message: nothing, or they are sent again."""

    state: Literal["datagram", "reliable"] = setting("datagram", "Blocks of the others' states, every step.")
    bootstrap: Literal["datagram", "reliable"] = setting("reliable", "Last states of a round.")
    reward: Literal["datagram", "reliable"] = setting("reliable", "Rewards of a round.")
    ratio: Literal["datagram", "reliable"] = setting("reliable", "Importance ratios, final ones and those on a minibatch.")
    score: Literal["datagram", "reliable"] = setting("reliable", "Scores, by which agents find their order.")
    token: Literal["datagram", "reliable"] = setting("reliable", "Turns.")
    joint: Literal["datagram", "reliable"] = setting("reliable", "What agents tell the central critic of a round.")
    advantage: Literal["datagram", "reliable"] = setting("reliable", "What the central critic answers.")
    policy: Literal["datagram", "reliable"] = setting(
        "reliable", "The same where it learns for all (qmix): weights to act by; both ways where all share a policy."
    )


class Codec(Section):
    """Number format on the wire, by kind of message."""

    state: Precision = setting("float32", "Blocks of the others' states, every step.")
    bootstrap: Precision = setting("float32", "Last states of a round.")
    reward: Precision = setting("float32", "Rewards of a round.")
    ratio: Precision = setting("float32", "Importance ratios, final ones and those on a minibatch.")
    joint: Precision = setting("float32", "What agents tell the central critic of a round.")
    advantage: Precision = setting("float32", "What the central critic answers.")
    policy: Precision = setting(
        "float32", "The same where it learns for all (qmix): weights to act by; both ways where all share a policy."
    )


class Network(LinkAttributes):
    """The links of the peer plane."""

    transport: Literal["ipc", "tcp"] = setting("ipc", "Socket type between processes.")
    host: str = setting("127.0.0.1", "Address that tcp sockets bind.")
    port: int = setting(0, "First tcp port; processes take it and the ones after it. 0: any free ports.", ge=0, le=65535)
    curve: bool = setting(
        True, "On tcp sockets: encrypt, and let in only the keys of those who may speak there. Keys are made per run (RUN/keys)."
    )
    preset: str = setting("ideal", "What links are like: a name that `kappahop links` lists, or trace:PATH of a Mahimahi file.")
    reorder: bool = setting(False, "Whether messages on one link may overtake each other.")
    delivery: Delivery = Delivery()
    codec: Codec = Codec()
    state_threshold: float = setting(
        0.0,
        "Event-triggered states: sent only if some element has changed by more than this since it was last sent; 0: always sent.",
        unit="observation units",
        ge=0,
    )
    on_missing: Literal["hold_last", "zero"] = setting(
        "hold_last", "What stands in for a state that has not arrived: the last one that has, or zeros."
    )
    patience_s: float = setting(
        30.0,
        "How long an agent waits, once a round, for what it needs of others to learn: in virtual time with clock: virtual, "
        "in real time with clock: wall. What comes later, or never, counts as missing.",
        unit="s",
        gt=0,
    )
    edges: tuple[Edge, ...] = setting((), "Edges whose links differ: a list of {between: [i, j], ...}.")
    events: tuple[Event, ...] = setting((), "What happens to links and agents when: a list of {do: ..., from_s: ..., ...}.")
    random_outages: RandomOutages | None = setting(None, "Outages by chance; null: none.")
    churn: Churn | None = setting(None, "Agents that leave and return by chance; null: none.")


def _differ(ends: tuple[int, int]) -> None:
    if ends[0] == ends[1]:
        raise ValueError(f"between: got {list(ends)}; the two agents of an edge differ")


class Rollout(Section):
    """One round's sampling."""

    steps: int = setting(200, "T: environment steps per copy and round.", unit="steps", ge=1, le=1_000_000)
    slack_frac: float = setting(
        0.5,
        "Part of the control period within which a message still counts for that step: an agent senses at the "
        "beginning of a period and acts this much later.",
        ge=0,
        le=1,
    )


class Budget(Section):
    """When a run is over."""

    env_steps: int = setting(
        300_000, "Environment steps over all copies; rounded up to whole rounds of copies·steps.", unit="steps", ge=1
    )


class OffPolicy(Section):
    """What only off-policy algorithms (iql, ma2ql, i2q, qmix) know."""

    representation: Literal["network", "table", "recurrent"] = setting(
        "network",
        "What holds the values: a network; a table with a row per observation ever met; or a network with a memory of the "
        "episode, a GRU of 64 units. Tables and memories for choices alone; i2q has no memories, qmix neither.",
    )
    burn_in: int = setting(
        10,
        "recurrent: in a stretch of replay that begins within an episode, so many samples are read and not learnt from.",
        unit="steps",
        ge=0,
    )
    buffer: int = setting(100_000, "How many transitions the replay keeps.", unit="transitions", ge=1, le=10_000_000)
    replay: Literal["per_turn", "rolling"] = setting(
        "per_turn", "With turns: whether what an agent saw in its earlier turns is forgotten when its turn comes, or kept."
    )
    batch: int = setting(100, "Transitions per minibatch.", unit="transitions", ge=1, le=100_000)
    updates_per_step: float = setting(0.2, "Minibatches per transition sampled.", gt=0, le=100)
    warm_up_steps: int = setting(
        1000,
        "Environment steps, over all copies, in which an agent acts at random and does not learn; with turns, of its own turns.",
        unit="steps",
        ge=0,
    )
    table_step: float = setting(0.1, "α: part of the way to its target that an entry of a table takes.", gt=0, le=1)
    target_keep: float = setting(0.995, "How much of themselves target networks keep at every update.", ge=0, lt=1)
    epsilon_start: float = setting(1.0, "Probability of a random choice at the start.", ge=0, le=1)
    epsilon_end: float = setting(0.05, "The same from `epsilon_steps` on; it falls linearly, round by round.", ge=0, le=1)
    epsilon_steps: int = setting(
        50_000, "Environment steps, over all copies, in which it falls; with turns, of the agent's own turns.", unit="steps", ge=0
    )
    action_bound: float = setting(1.0, "Continuous actions lie within ± this.", unit="action units", gt=0)
    noise_std: float = setting(0.1, "Standard deviation of the exploration of continuous actions.", unit="action_bound", ge=0)
    target_noise: float = setting(0.2, "The same of the noise on target actions, which is cut at 0.5.", unit="action_bound", ge=0)
    policy_delay: int = setting(2, "Minibatches per step of a continuous policy and of the target networks.", ge=1)
    ideal_weight: float = setting(0.01, "I2Q: α, how much hope the forward model puts into its guess.", ge=0)
    turn_rounds: int = setting(1, "With turns, those of alternating_ppo too: rounds that a turn lasts.", unit="rounds", ge=1)
    turn_accuracy: float | None = setting(
        None,
        "Tables: instead of minibatches, iterate on all of the replay until values are within this of their fixed point.",
        unit="reward",
        gt=0,
    )
    turn_sweeps: int = setting(1500, "The most sweeps that such an iteration takes.", unit="sweeps", ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> "OffPolicy":
        if self.turn_accuracy is not None and self.representation != "table":
            raise ValueError(
                f"turn_accuracy: got {self.turn_accuracy}; only tables are iterated, so it needs representation: table"
            )
        return self


class WorldModel(Section):
    """What only algorithms with a model (mdpo) know."""

    window: int = setting(
        4, "l: rounds whose samples the model is learnt from, each with a latent of its own.", unit="rounds", ge=2, le=64
    )
    latent: int = setting(8, "Width of the latent that stands for what the others do.", unit="numbers", ge=1, le=1024)
    prediction: bool = setting(True, "Whether the latent is predicted for the next round, or is that of the last one.")
    branch: int = setting(5, "Steps that the model goes on from a state that was met.", unit="steps", ge=1, le=1000)
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = setting(
        (128, 128),
        "Widths of the hidden layers of the model, its latents and their predictor.",
        unit="units",
        max_length=MAX_LAYERS,
    )
    lr: float = setting(3e-4, "Adam step of all of them.", ge=0)
    batch: int = setting(256, "Samples of each round in the window per minibatch.", unit="samples", ge=1, le=100_000)
    passes: int = setting(
        40, "The most passes over the window per round; they end sooner when samples held out gain no more.", unit="passes", ge=1
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
        "mdpo",
        "coppo",
        "a2po",
        "alternating_ppo",
        "iql",
        "ma2ql",
        "i2q",
        "qmix",
    ] = setting("scal_mappo_l", "Row of the recipe table.")
    preset: Literal["tuned", "paper"] = setting(
        "tuned",
        "Defaults beneath the values given here: from our search (docs/results/), or those of the algorithm's paper "
        "(on-policy rows; most set env.copies and rollout.steps too).",
    )
    actor_scope: Scope | None = setting(None, "Whose states the actor sees; null: as the recipe says.")
    critic_scope: CriticScope | None = setting(None, "Whose states the critics see; null: as the recipe says.")
    order: Order | None = setting(None, "Order of updates within a round; null: as the recipe says.")
    factor: Factor | None = setting(None, "Whose final ratios multiply the advantage; null: as the recipe says.")
    objective: Objective | None = setting(None, "What a policy maximises; null: as the recipe says.")
    constraint: Constraint | None = setting(None, "How costs enter; null: as the recipe says.")
    trace: Trace | None = setting(
        None, "Advantages of the policies that acted, or corrected for agents that have moved since; null: as the recipe says."
    )
    target: Target | None = setting(None, "What is learnt of actions; null: as the recipe says.")
    model: Model | None = setting(
        None, "Whose samples policies are trained on, the world's or a model's; null: as the recipe says."
    )
    reward: Literal["own", "khop_mean"] = setting(
        "own",
        "Learn from the reward the world gives, or from its mean over the κ-hop ball (4 more bytes per neighbour and sample).",
    )
    share_policy: bool = setting(
        False,
        "One policy for all agents: they start alike, and after every round the central node sends everybody the mean of their "
        "weights. Needs critic_scope: central.",
    )
    ratio: Literal["joint", "per_dim"] = setting(
        "joint", "One importance ratio per action, or one per action dimension (as one public code has it)."
    )
    gamma: float = setting(0.99, "Discount per step.", ge=0, le=1)
    gae_lambda: float = setting(0.95, "Trace decay of the advantage estimate: 0 is TD(0), 1 is returns minus values.", ge=0, le=1)
    epochs: int = setting(10, "K: passes over the round's samples per update.", unit="passes", ge=1)
    minibatches: int = setting(8, "Minibatches per pass.", ge=1)
    chunk: int = setting(
        512, "Samples per forward and backward piece; changes speed and rounding, not the gradient.", unit="samples", ge=1
    )
    actor_lr: float = setting(5e-4, "Adam step of the actor.", ge=0)
    critic_lr: float = setting(1e-3, "Adam step of the critics.", ge=0)
    lr_decay: Literal["none", "linear"] | None = setting(
        None,
        "Whether all steps of learning (actor_lr, critic_lr, world_model.lr, off_policy.table_step) fall linearly to 0 over the "
        "budget; null: linear on-policy, none off-policy, as the papers have it.",
    )
    adam_eps: float = setting(1e-5, "Adam's epsilon.", gt=0)
    clip: float = setting(0.2, "ε: the ratio is clipped to 1±ε.", gt=0, lt=1)
    clip_others_frac: float = setting(
        0.5, "Double clip: the others' product is clipped to this part of the own width.", gt=0, le=1
    )
    clip_ramp: float = setting(
        0.5,
        "Double clip, in turn: c of the width ε·(c + (1-c)·k/n of the k-th of n agents; 1 gives all the same width.",
        ge=0,
        le=1,
    )
    kl_bound: float = setting(0.01, "Trust region and FOCOPS: δ, bound on a round's mean divergence.", unit="nats", gt=0)
    damping: float = setting(0.1, "Trust region: added to the diagonal of the Fisher matrix.", ge=0)
    backtrack: float = setting(0.8, "Trust region: each try of the line search is this part of the one before.", gt=0, lt=1)
    kl_target: float = setting(0.01, "KL penalty: d, the mean divergence per round that its prices aim at.", unit="nats", gt=0)
    focops_temperature: float = setting(
        2.0, "FOCOPS: λ, price of the divergence in (standardised) advantage; small is greedy.", gt=0
    )
    entropy_coef: float = setting(0.0, "Weight of the entropy bonus; trust regions have none.", ge=0)
    max_grad_norm: float = setting(0.5, "Gradients are scaled down to this global norm per network.", gt=0)
    hidden: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = setting(
        (64, 64), "Widths of the hidden layers; [] is a linear map.", unit="units", max_length=MAX_LAYERS
    )
    activation: Literal["relu", "tanh"] = setting("relu", "Nonlinearity.")
    layer_norm: bool = setting(False, "LayerNorm after each hidden layer.")
    input_norm: Literal["running", "layer", "none"] = setting(
        "running", "Inputs standardised by running statistics (frozen within a round), by a LayerNorm, or not."
    )
    value_norm: bool = setting(True, "Critics regress returns normalised by running statistics.")
    huber_delta: float | None = setting(
        10.0, "Huber threshold of the critic loss, in normalised units; null: squared error.", gt=0
    )
    value_clip: float | None = setting(
        0.2, "How far a value may move from its old prediction before its loss is clipped; null: no clip.", gt=0
    )
    std: Literal["sigmoid", "exp"] = setting("exp", "Action spread: 0.5·sigmoid(p), always below 0.5, or exp(p).")
    std_init: float = setting(
        0.5, "Initial standard deviation of an action (below 0.5 with std: sigmoid).", unit="action units", gt=0
    )
    value_norm_beta: float = setting(
        0.9, "Memory of the running return statistics, per round (the papers: 0.99999, per minibatch).", ge=0, lt=1
    )
    head_gain: float = setting(0.01, "Scale of the actor's last layer at the start.", gt=0)
    truncation: Literal["bootstrap", "ignore"] = setting(
        "bootstrap",
        "At a time limit: use the value of the true last observation, or give the step no advantage as some public codes do.",
    )
    cost_limit: float | None = setting(
        None, "b: limit on the undiscounted cost of an episode; null: the world's own.", unit="cost", ge=0
    )
    cost_scale: Literal["running", "round"] = setting(
        "running",
        "What centred cost advantages are divided by: the root of a running variance, or their spread in the round.",
    )
    mult_init: float = setting(0.0, "λ₀: Lagrange multiplier at the start.", ge=0)
    mult_kp: float = setting(
        2.0,
        "pid_lagrangian: k_p, multiplier per unit of relative excess (J - b)/max(b, 1), J the mean cost of the last E episodes.",
        ge=0,
    )
    mult_ki: float = setting(
        0.5, "pid_lagrangian: k_i, what E new episodes add to the multiplier's integral per unit of relative excess.", ge=0
    )
    mult_kd: float = setting(0.0, "pid_lagrangian: k_d, multiplier per unit by which the relative excess has risen.", ge=0)
    mult_lr: float = setting(
        0.002,
        "η_λ: step of the multiplier. lagrangian: per minibatch and unit of (J - b)·(1 - gamma); focops: per E new episodes and "
        "unit of J - b.",
        ge=0,
    )
    mult_max: float = setting(20.0, "The multiplier is kept at or below this.", gt=0)
    quirks: tuple[Quirk, ...] = setting(
        (),
        "Departures of public code or print from what it means, for reproduction. signed_huber: large negative value errors "
        "count squared; shared_return_norm: one return statistic for reward and costs; fixed_value_head: value heads are not "
        "rescaled when return statistics move; unmasked_divergence: FOCOPS masks the advantage's term alone.",
    )
    off_policy: OffPolicy = OffPolicy()
    world_model: WorldModel = WorldModel()

    @model_validator(mode="after")
    def _fits_together(self) -> "Algorithm":
        if self.std == "sigmoid" and self.std_init >= 0.5:
            raise ValueError(f"std_init: got {self.std_init}; with std: sigmoid it must be below 0.5")
        conflict = self.recipe.conflict()
        if conflict is not None:
            others = {axis: values for axis, values in self.recipe.ways_out().items() if not conflict.startswith(f"{axis}:")}
            mended = "; ".join(f"{axis}: {', '.join(values)}" for axis, values in others.items())
            raise ValueError(f"{conflict}; or change another axis ({mended})" if others else conflict)
        if self.share_policy:
            self._refuse_what_is_not_shared()
        kind = self.off_policy.representation
        if self.recipe.is_led and kind != "network":
            raise ValueError(f"off_policy.representation: got {kind!r}; with critic_scope 'central' it must be 'network'")
        if self.recipe.target == "ideal_q" and kind == "recurrent":
            raise ValueError("off_policy.representation: got 'recurrent'; ideal values need the state, use network or table")
        if self.recipe.target == "ideal_q" and self.off_policy.turn_accuracy is not None:
            raise ValueError(
                f"off_policy.turn_accuracy: got {self.off_policy.turn_accuracy}; ideal values are learnt by minibatches"
            )
        return self

    def _refuse_what_is_not_shared(self) -> None:
        recipe = self.recipe
        for key, value, allowed in (
            ("critic_scope", recipe.critic_scope, ("central",)),
            ("target", recipe.target, ("advantage",)),
            ("actor_scope", recipe.actor_scope, ("local",)),
            ("order", recipe.order, ("simultaneous", "fixed", "random")),
            ("factor", recipe.factor, ("none",)),  # ratios that are told belong to weights that are not kept
            ("input_norm", self.input_norm, ("layer", "none")),  # statistics of inputs are part of a policy, and each has its own
        ):
            if value not in allowed:
                raise ValueError(f"{key}: got {value!r} with share_policy; it must be {' or '.join(map(repr, allowed))}")

    @property
    def recipe(self) -> Recipe:
        """The row named by `name`, with the axes that this scenario overrides."""
        row = RECIPES[self.name]
        return replace(row, **{axis: getattr(self, axis) for axis in AXES if getattr(self, axis) is not None})

    def step_fraction(self, round_: int, rounds: int) -> float:
        """Steps of learning in a round, as a part of those at the start."""
        decay = self.lr_decay or ("linear" if self.recipe.target == "advantage" else "none")
        return 1.0 - round_ / rounds if decay == "linear" else 1.0

    @property
    def turn_rounds(self) -> int:
        """Rounds that a turn lasts, where agents take turns."""
        return self.off_policy.turn_rounds


class Central(Section):
    """The central critic's host (critic_scope: central). In `network` it is known as agent n, behind the last."""

    at: int | None = setting(
        None, "The agent by whose links it hangs on the topology; null: it has links of its own to every agent.", ge=0
    )


class Device(Section):
    """What an agent's thinking costs in virtual time."""

    forward_ms: float = setting(0.0, "One action.", unit="ms", ge=0)
    values_ms: float = setting(0.0, "Training the critics, once a round.", unit="ms", ge=0)
    policy_ms: float = setting(0.0, "Training the policy, once a round.", unit="ms", ge=0)


class Compute(Device):
    """Compute costs virtual time. The constants hold for every agent, unless `agents` gives each a device of its own."""

    mode: Literal["constant", "measured"] = setting(
        "constant",
        "Whether thinking costs the constants, or what it takes here and now (which makes the virtual times, and on real "
        "links the results, differ from run to run).",
    )
    devices: dict[str, Device] = setting({}, "Kinds of devices by name, each with the three costs.")
    agents: tuple[str, ...] = setting((), "The device of each agent, by id; []: all cost the constants.")

    @model_validator(mode="after")
    def _known(self) -> "Compute":
        if self.devices and not self.agents:
            raise ValueError(
                f"devices: got {', '.join(sorted(self.devices))}, which no agent has; say in compute.agents which device each has"
            )
        for place, name in enumerate(self.agents):
            if name not in self.devices:
                raise ValueError(f"agents[{place}]: got {name!r}; not one of the devices {sorted(self.devices)}")
        return self

    def takes_time(self, agent: int) -> bool:
        """Whether thinking costs an agent, or the central critic, any virtual time."""
        costs: Device = self.devices[self.agents[agent]] if agent < len(self.agents) else self
        return self.mode == "measured" or any((costs.forward_ms, costs.values_ms, costs.policy_ms))


class Supervision(Section):
    """Deadlines: what passes one of these ends the run with a message."""

    on_node_death: Literal["stop", "continue"] = setting(
        "stop",
        "What follows when a node's process dies unasked: the run stops; or the others go on and take it for silent.",
    )

    deadline_s: float = setting(
        120.0,
        "Longest wait for one message, in wall time; passing it names who was silent. Agents that learn are silent: "
        "it must exceed the learning of one round, with a sequential factor that of all agents.",
        unit="s",
        gt=0,
    )
    start_s: float | None = setting(
        None, "Longest wait for all processes to be up; null: 60 s, and 0.3 s more for each agent.", unit="s", gt=0
    )
    stop_s: float = setting(3.0, "How long a process may take to end after it was asked to.", unit="s", gt=0, le=8)

    def start_limit_s(self, n_agents: int) -> float:
        """Longest wait for all processes of so many agents to be up."""
        return 60.0 + 0.3 * n_agents if self.start_s is None else self.start_s


class Record(Section):
    """What a run writes besides its database."""

    tensorboard: bool = setting(True, "Write TensorBoard events.")
    wandb: bool = setting(False, "Write a Weights & Biases run, offline; needs the extra `wandb`.")
    mlflow: bool = setting(False, "Write an MLflow run, into files; needs the extra `mlflow`.")
    checkpoint_rounds: int = setting(0, "Write all weights every so many rounds; 0: at the end only.", unit="rounds", ge=0)
    state_rounds: int = setting(
        10,
        "Write all that `kappahop resume` needs every so many rounds, keeping the last two; 0: never. In virtual time only.",
        unit="rounds",
        ge=0,
    )


class Evaluation(Section):
    """Judging the team while it trains: the policies of a round play episodes of their own, from which nothing is learnt."""

    every_rounds: int | None = setting(
        None,
        "Every how many rounds, and after the last; 0: never; null: so seldom that it takes at most about 5 % of the run's "
        "processor time (on the wall clock never).",
        unit="rounds",
        ge=0,
    )
    episodes: int = setting(
        4,
        "Episodes each time. After the last round ten times as many, and as many again for the best policies if those are "
        "earlier ones.",
        unit="episodes",
        ge=1,
        le=400,
    )
    deterministic: bool | None = setting(
        None,
        "Whether policies take their mean or likeliest action (no exploration), or draw their actions as in training. null: they "
        "draw where the world's cost has a limit, because a limit is kept by the policy that draws; else they do not. An agent "
        "that acts by values of actions takes the best action either way.",
    )

    def draws(self, *, limited: bool) -> bool:
        """Whether policies draw their actions, in a world whose costs have limits or have none."""
        return limited if self.deterministic is None else not self.deterministic


class Scenario(Section):
    """A whole run: who, on which graph, in which world, learning how, for how long."""

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
    kappa: int = setting(1, "κ: how far agents hear each other.", unit="hops (or agents, see kappa_unit)", ge=0, le=MAX_AGENTS)
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
    env: Env = Env()
    topology: Topology = Topology()
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
            if self.evaluation.every_rounds:
                raise ValueError(
                    f"evaluation.every_rounds: got {self.evaluation.every_rounds} with clock 'wall'; an evaluation is modelled, "
                    "so on the real network evaluate the team when it is trained: kappahop evaluate RUN"
                )
            modelled = ("loss_prob", "latency_ms", "jitter_ms", "rate_bps", "edges", "events", "random_outages", "churn")
            if self.network.preset != "ideal" or any(getattr(self.network, name) for name in modelled):
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
        if self.algorithm.recipe.target == "advantage" and self.algorithm.minibatches > batch:
            raise ValueError(
                f"algorithm.minibatches: got {self.algorithm.minibatches}; a round has only {batch} samples "
                "(env.copies x rollout.steps)"
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

    @property
    def n_rounds(self) -> int:
        """Rounds that the budget buys, rounded up."""
        return -(-self.budget.env_steps // (self.env.copies * self.rollout.steps))
