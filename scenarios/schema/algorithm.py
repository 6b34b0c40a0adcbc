"""The section `algorithm`: the learner, as a row of the recipe table, and its hyperparameters."""

from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scenarios.recipes import (
    AXES,
    Consensus,
    Constraint,
    CriticScope,
    Factor,
    Model,
    Order,
    Quirk,
    Recipe,
    Scope,
    Target,
    Trace,
    recipe_of,
)
from scenarios.registry import ALGORITHMS, OBJECTIVES, REPRESENTATIONS, RegistryError
from scenarios.schema.base import MAX_LAYERS, Section, named, setting
from scenarios.schema.rollout import Extensions, left


class OffPolicy(Section):
    """What only off-policy algorithms (iql, ma2ql, i2q, qmix) know."""

    representation: str = named(
        "network",
        "What holds the values: a network; a table with a row per observation ever met; or a network with a memory of the "
        "episode, a GRU of 64 units. Tables and memories for choices alone; i2q has no memories, qmix neither.",
        REPRESENTATIONS.own,
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
        try:
            REPRESENTATIONS.check(self.representation)
        except RegistryError as error:
            raise ValueError(f"representation: {error}") from None
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

    name: str = named("scal_mappo_l", "Row of the recipe table.", ALGORITHMS.own)
    preset: Literal["tuned", "paper"] = setting(
        "tuned",
        "Defaults beneath the values given here: from our search (docs/results/), or those of the algorithm's paper "
        "(on-policy rows; most set env.num_envs and rollout.steps too).",
    )
    actor_scope: Scope | None = setting(None, "Whose states the actor sees; null: as the recipe says.")
    critic_scope: CriticScope | None = setting(None, "Whose states the critics see; null: as the recipe says.")
    order: Order | None = setting(None, "Order of updates within a round; null: as the recipe says.")
    factor: Factor | None = setting(None, "Whose final ratios multiply the advantage; null: as the recipe says.")
    objective: str | None = named(None, "What a policy maximises; null: as the recipe says.", OBJECTIVES.own)
    constraint: Constraint | None = setting(None, "How costs enter; null: as the recipe says.")
    trace: Trace | None = setting(
        None, "Advantages of the policies that acted, or corrected for agents that have moved since; null: as the recipe says."
    )
    target: Target | None = setting(None, "What is learnt of actions; null: as the recipe says.")
    model: Model | None = setting(
        None, "Whose samples policies are trained on, the world's or a model's; null: as the recipe says."
    )
    consensus: Consensus | None = setting(
        None, "Which networks an agent averages with its neighbours on the graph, whatever κ is; null: as the recipe says."
    )
    consensus_every: int = setting(1, "Rounds from one such averaging to the next.", unit="rounds", ge=1)
    reward: Literal["own", "khop_mean"] = setting(
        "own",
        "Learn from the reward the world gives, or from its mean over the κ-hop ball (4 more bytes per neighbour and sample).",
    )
    share_policy: bool = setting(
        False,
        "One policy for all agents: they start alike, and after every round the central node sends all agents the mean of their "
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
    constraint_scope: Literal["own", "consensus"] = setting(
        "own",
        "own: each agent keeps its own costs within the limit. consensus: neighbours agree on multipliers, and the mean of what "
        "all agents are charged with keeps the limit, so their sum keeps n times the limit. Needs env.cost: local.",
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
        "Errors of public code, for reproduction. signed_huber: large negative value errors count squared; shared_return_norm: "
        "one for reward and costs; fixed_value_head: no rescaling; unmasked_divergence: FOCOPS masks the advantage alone.",
    )
    off_policy: OffPolicy = OffPolicy()
    world_model: WorldModel = WorldModel()

    @model_validator(mode="after")
    def _fits_together(self) -> "Algorithm":
        for key, check in (("name", recipe_of), ("objective", OBJECTIVES.check)):
            try:
                if (name := getattr(self, key)) is not None:
                    check(name)
            except RegistryError as error:
                raise ValueError(f"{key}: {error}") from None
        if self.std == "sigmoid" and self.std_init >= 0.5:
            raise ValueError(f"std_init: got {self.std_init}; with std: sigmoid it must be below 0.5")
        conflict = self.recipe.conflict()
        if conflict is not None:
            others = {axis: values for axis, values in self.recipe.ways_out().items() if not conflict.startswith(f"{axis}:")}
            mended = "; ".join(f"{axis}: {', '.join(values)}" for axis, values in others.items())
            raise ValueError(f"{conflict}; or change another axis ({mended})" if others else conflict)
        if self.share_policy:
            self._refuse_what_is_not_shared()
        if self.shares_budget:
            self._refuse_what_is_not_agreed_on()
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
            ("consensus", recipe.consensus, ("none",)),
            ("factor", recipe.factor, ("none",)),  # ratios that are told belong to weights that are not kept
            ("input_norm", self.input_norm, ("layer", "none")),  # statistics of inputs are part of a policy, and each has its own
        ):
            if value not in allowed:
                raise ValueError(f"{key}: got {value!r} with share_policy; it must be {' or '.join(map(repr, allowed))}")

    def _refuse_what_is_not_agreed_on(self) -> None:
        recipe = self.recipe
        for key, value, allowed in (
            ("constraint", recipe.constraint, ("lagrangian", "pid_lagrangian", "focops")),  # the others have no multipliers
            ("critic_scope", recipe.critic_scope, ("local", "khop", "global")),  # the coordinator has all costs anyway
            ("order", recipe.order, ("simultaneous", "fixed", "random", "semi_greedy")),  # without a turn nothing may change
        ):
            if value not in allowed:
                raise ValueError(
                    f"{key}: got {value!r} with constraint_scope 'consensus'; it must be {' or '.join(map(repr, allowed))}"
                )

    @property
    def shares_budget(self) -> bool:
        """Whether a limit holds for the mean of all agents' costs, and not for each agent's."""
        return self.constraint_scope == "consensus"

    @property
    def recipe(self) -> Recipe:
        """The row named by `name`, with the axes that this scenario overrides."""
        return _overridden(recipe_of(self.name), tuple(getattr(self, axis) for axis in AXES))

    def step_fraction(self, round_: int, rounds: int, extended: Extensions = ()) -> float:
        """Size of a learning step in a round, as a part of that at the start; `extended` as in `Budget`."""
        decay = self.lr_decay or ("linear" if self.recipe.target == "advantage" else "none")
        return left(round_, rounds, extended) if decay == "linear" else 1.0

    @property
    def turn_rounds(self) -> int:
        """Rounds that a turn lasts, where agents take turns."""
        return self.off_policy.turn_rounds


@lru_cache(maxsize=256)
def _overridden(row: Recipe, values: tuple[Any, ...]) -> Recipe:
    """A row with the values of `AXES` that are not None. A run of many agents asks for it thousands of times."""
    return replace(row, **{axis: value for axis, value in zip(AXES, values, strict=True) if value is not None})
