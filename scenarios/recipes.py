"""The algorithms as rows of a table: what each one *is*, as data.

Theory of operation. An on-policy algorithm of this project is a choice on a few independent axes (the columns below),
never a loop of its own. `node.learners.on_policy.learner` holds the one loop; it reads the axes and nothing else, so a new
combination is a new row, or simply a scenario that overrides one axis (`algorithm.factor=khop`). Off-policy algorithms are the
rows whose `target` is a value of actions; `node.learners.off_policy.learner` is their loop, and they know neither factors nor
constraints.

The rules that couple the axes (`conflict` tells a breach of them):

- `factor` other than "none" makes the update sequential, because an agent then needs the final ratios of the agents
before it in the order. With `factor: none` the order changes nothing, unless agents take turns (`alternating`).
- In the order "simultaneous" no agent is earlier, so a factor can only be the ratios as they are at every minibatch; the
objective "double_clip" is the one that takes them.
- The constraint "cpo" bends the step of a trust region and knows no other.
- A `consensus` of policies moves weights after the ratios have been sent, so no factor goes with it; one of critics needs critics
of the agents' own, and neither goes with turns or with values of actions.
- A `model` makes up samples that no other agent has, without costs: neither factors, constraints, corrected traces nor a
central critic go with it, and it makes them up whole, so actor and critic take the same inputs.

`PAPER` holds the settings of the on-policy rows that are printed in, or taken over by, papers or their public code (which of
them: docs/reference/algorithms/); `algorithm.preset=paper` puts a row's beneath the scenario's own values. The schema's
defaults come from our own search (docs/results/).
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from scenarios.registry import ALGORITHMS, OBJECTIVES, RegistryError

Scope = Literal["local", "khop", "global"]
CriticScope = Literal["local", "khop", "global", "central"]
Factor = Literal["none", "khop", "global"]
Order = Literal["simultaneous", "fixed", "random", "semi_greedy", "alternating"]
Constraint = Literal["none", "lagrangian", "pid_lagrangian", "cpo", "focops"]
Trace = Literal["gae", "preopc"]
Target = Literal["advantage", "q", "ideal_q"]
Model = Literal["none", "latent"]
Consensus = Literal["none", "critic", "policy", "both"]
Quirk = Literal["signed_huber", "shared_return_norm", "fixed_value_head", "unmasked_divergence"]
AXES = ("actor_scope", "critic_scope", "order", "factor", "objective", "constraint", "trace", "target", "model", "consensus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One algorithm as a point on the axes.

    Attributes:
        actor_scope: Whose states the actor sees: its own, its κ-hop ball's, all agents'.
        critic_scope: The same for the value critic and the cost critics; "central": they are the coordinator's. With values of
            actions it then learns for all, and sends all agents the weights to act by.
        order: In which order agents update within a round. All at once, by ascending id, drawn from the shared seed
            each round, half drawn and half by the largest advantage, or one agent per turn while the others rest.
        factor: Whose ratios multiply an agent's advantage: none, those of earlier agents in its ball, of all
            earlier agents.
        objective: What a policy maximises, and how far it may go: the clipped ratio; the clipped joint ratio; prices on
            the divergence; a natural-gradient step within a bound on it; the divergence from the best policy within one.
        constraint: How costs enter: not at all; by Lagrange multipliers that ascend with every minibatch, or that a PID
            controller sets once per round; as a plane that cuts the trust region; by FOCOPS's multipliers, which ascend once
            per round.
        trace: Advantages of the policies that acted, or of those that earlier agents have moved to meanwhile.
        target: What is learnt: advantages of the policy that acted, values of own actions, or their values if all others do
            what is best.
        model: What is learnt from: what the world did, or what a model of it with a latent for the others would do next.
        consensus: Which networks neighbours average with each other: none, critics, policies, or both.
        source: Where the algorithm is described.
    """

    actor_scope: Scope
    critic_scope: CriticScope
    order: Order
    factor: Factor
    objective: str = "clip"
    constraint: Constraint = "none"
    trace: Trace = "gae"
    target: Target = "advantage"
    model: Model = "none"
    consensus: Consensus = "none"
    source: str

    @property
    def is_coupled(self) -> bool:
        """Whether agents learn at the same time and on each other's ratios."""
        return self.order == "simultaneous" and self.factor != "none"

    @property
    def is_ranked(self) -> bool:
        """Whether the order of updates depends on what agents send each other."""
        return self.order == "semi_greedy" and self.factor != "none"

    @property
    def is_led(self) -> bool:
        """Whether the coordinator learns for all agents, and they only act."""
        return self.critic_scope == "central" and self.target != "advantage"

    @property
    def averages_critic(self) -> bool:
        """Whether neighbours average their critics."""
        return self.consensus in ("critic", "both")

    @property
    def averages_policy(self) -> bool:
        """Whether neighbours average their policies."""
        return self.consensus in ("policy", "both")

    @property
    def answer(self) -> Literal["ADVANTAGE", "POLICY"]:
        """The kind of message by which a central critic answers."""
        return "POLICY" if self.is_led else "ADVANTAGE"

    def ways_out(self) -> dict[str, list[str]]:
        """Where the choices do not go together: of every axis the values that by themselves would mend it."""
        found = {}
        for axis in fields(self):
            values = [value for value in choices(axis.name) if self._with(axis.name, value).conflict() is None]
            if values:
                found[axis.name] = values
        return found

    def _with(self, axis: str, value: Any) -> "Recipe":
        return replace(self, **{axis: value})

    def conflict(self) -> str | None:
        """Why these choices do not go together; None if they do."""
        if self.constraint == "cpo" and self.objective != "trust_region":
            return f"constraint: got 'cpo' with objective {self.objective!r}; it goes with objective 'trust_region' alone"
        if self.order == "simultaneous" and self.factor != "none" and self.objective != "double_clip":
            return (
                f"factor: got {self.factor!r} with order 'simultaneous' and objective {self.objective!r}; there it must be 'none'"
            )
        if self.order == "alternating" and self.factor != "none":
            return (
                f"factor: got {self.factor!r} with order 'alternating'; one agent alone learns in a round, so it must be 'none'"
            )
        if self.trace == "preopc" and self.order in ("simultaneous", "alternating"):
            return (
                f"trace: got 'preopc' with order {self.order!r}; there are no earlier agents to correct for, so it must be 'gae'"
            )
        if self.is_ranked and self.critic_scope == "central":
            return "order: got 'semi_greedy' with critic_scope 'central'; agents' scores need critics of their own"
        if self.trace == "preopc" and self.critic_scope == "central":
            return "trace: got 'preopc' with critic_scope 'central'; the corrected advantages need a critic of the agent's own"
        if self.consensus != "none" and (conflict := self._conflict_of_consensus()) is not None:
            return conflict
        if self.model != "none" and (conflict := self._conflict_of_models()) is not None:
            return conflict
        return None if self.target == "advantage" else self._conflict_of_values()

    def _conflict_of_consensus(self) -> str | None:
        """The same for networks that neighbours average."""
        got = f"consensus: got {self.consensus!r} with"
        if self.order == "alternating":
            return f"{got} order 'alternating'; an agent whose turn it is not must not change, so it must be 'none'"
        if self.averages_critic and self.critic_scope == "central":
            return f"{got} critic_scope 'central'; agents have no critics of their own, so it must be 'none' or 'policy'"
        if self.averages_policy and self.factor != "none":
            return (
                f"{got} factor {self.factor!r}; the ratios that agents have sent are of weights that are not kept, so it must be "
                "'none' or 'critic'"
            )
        return None

    def _conflict_of_models(self) -> str | None:
        """The same for samples of a model."""
        for axis, only, why in (
            ("target", "advantage", "replay needs no model"),
            ("factor", "none", "others have other samples"),
            ("constraint", "none", "the model knows no costs"),
            ("trace", "gae", "others have other samples"),
            ("critic_scope", self.actor_scope, "acting and learning take the same inputs"),
        ):
            if getattr(self, axis) != only:
                return f"{axis}: got {getattr(self, axis)!r} with model {self.model!r}; {why}, so it must be {only!r}"
        return None

    def _conflict_of_values(self) -> str | None:
        """The same for values of actions, which know neither ratios nor costs."""
        unknown = (("factor", "none"), ("objective", "clip"), ("constraint", "none"), ("trace", "gae"), ("consensus", "none"))
        reasons = {"constraint": "costs are ignored", "consensus": "values of actions are not averaged"}
        for axis, only in unknown:
            if getattr(self, axis) != only:
                why = reasons.get(axis, "there are no ratios")
                return f"{axis}: got {getattr(self, axis)!r} with target {self.target!r}; {why}, so it must be {only!r}"
        if self.is_led:
            for axis, only in (("target", "q"), ("actor_scope", "local"), ("order", "simultaneous")):
                if getattr(self, axis) != only:
                    return (
                        f"{axis}: got {getattr(self, axis)!r} with critic_scope 'central' and values of actions; the "
                        f"coordinator learns for all at once, of what each senses itself, so it must be {only!r}"
                    )
            return None
        if self.actor_scope != self.critic_scope:
            return (
                f"critic_scope: got {self.critic_scope!r} with target {self.target!r} and actor_scope {self.actor_scope!r}; "
                "acting and learning take the same inputs"
            )
        return None


RECIPES: dict[str, Recipe] = {
    "scal_mappo_l": Recipe(
        actor_scope="khop",
        critic_scope="khop",
        order="fixed",
        factor="none",
        constraint="pid_lagrangian",
        source="Zhang et al., NeurIPS 2024, eq. 20 and Algorithm 1",
    ),
    "mappo_l": Recipe(
        actor_scope="global",
        critic_scope="global",
        order="random",
        factor="global",
        constraint="pid_lagrangian",
        source="Gu et al. 2021, arXiv:2110.02793, MAPPO-Lagrangian",
    ),
    "ippo": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="simultaneous",
        factor="none",
        source="de Witt et al. 2020, arXiv:2011.09533",
    ),
    "mappo": Recipe(
        actor_scope="local",
        critic_scope="global",
        order="simultaneous",
        factor="none",
        source="Yu et al. 2022, arXiv:2103.01955",
    ),
    "happo": Recipe(
        actor_scope="local",
        critic_scope="global",
        order="random",
        factor="global",
        source="Kuba et al. 2022, arXiv:2109.11251, HAPPO",
    ),
    "hatrpo": Recipe(
        actor_scope="local",
        critic_scope="global",
        order="random",
        factor="global",
        objective="trust_region",
        source="Kuba et al. 2022, arXiv:2109.11251, HATRPO",
    ),
    "macpo": Recipe(
        actor_scope="global",
        critic_scope="global",
        order="random",
        factor="global",
        objective="trust_region",
        constraint="cpo",
        source="Gu et al. 2021, arXiv:2110.02793, MACPO",
    ),
    "mafocops": Recipe(
        actor_scope="global",
        critic_scope="global",
        order="random",
        factor="global",
        objective="focops",
        constraint="pid_lagrangian",
        source="Zhao et al., NeurIPS 2023, eqs. 18-32; FOCOPS: Zhang et al. 2020, arXiv:2002.06506",
    ),
    "dpo": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="simultaneous",
        factor="none",
        objective="kl_penalty",
        source="Su and Lu 2022, arXiv:2211.03032, decentralized policy optimization",
    ),
    "mdpo": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="simultaneous",
        factor="none",
        objective="kl_penalty",
        model="latent",
        source="Luo, Jiang and Lu 2023, arXiv:2302.08139, model-based decentralized policy optimization",
    ),
    "coppo": Recipe(
        actor_scope="local",
        critic_scope="global",
        order="simultaneous",
        factor="global",
        objective="double_clip",
        source="Wu et al. 2021, arXiv:2111.04051, coordinated PPO",
    ),
    "a2po": Recipe(
        actor_scope="local",
        critic_scope="global",
        order="semi_greedy",
        factor="global",
        objective="double_clip",
        trace="preopc",
        source="Wang et al. 2023, arXiv:2302.06205, agent-by-agent policy optimization",
    ),
    "alternating_ppo": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="alternating",
        factor="none",
        source="IPPO, one learner at a time: the on-policy counterpart of MA2QL, Su et al. 2022, arXiv:2209.08244",
    ),
    "iql": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="simultaneous",
        factor="none",
        target="q",
        source="Tan 1993, independent Q-learning; with continuous actions an independent TD3, Fujimoto et al. 2018",
    ),
    "ma2ql": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="alternating",
        factor="none",
        target="q",
        source="Su et al. 2022, arXiv:2209.08244, multi-agent alternate Q-learning",
    ),
    "i2q": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="simultaneous",
        factor="none",
        target="ideal_q",
        source="Jiang and Lu 2022, ideal independent Q-learning",
    ),
    "qmix": Recipe(
        actor_scope="local",
        critic_scope="central",
        order="simultaneous",
        factor="none",
        target="q",
        source="Rashid et al. 2018, arXiv:1803.11485, QMIX",
    ),
}

_AXES = {axis.name: axis.type for axis in fields(Recipe) if axis.name in AXES}


def choices(axis: str) -> tuple[str, ...]:
    """What may be chosen on an axis; of objectives those that come with the package."""
    return tuple(OBJECTIVES.own) if axis == "objective" else get_args(_AXES.get(axis))


def recipe_of(name: str) -> Recipe:
    """The recipe of a registered name.

    Raises:
        RegistryError: there is no such name, or it stands for something else than a recipe.
    """
    found = ALGORITHMS.resolve(name)
    if not isinstance(found, Recipe):
        raise RegistryError(f"recipe {name!r}: got {type(found).__name__}; expected scenarios.recipes.Recipe")
    if found is not RECIPES.get(name):
        for axis in AXES:
            value = getattr(found, axis)
            known = OBJECTIVES.names() if axis == "objective" else choices(axis)
            if value not in known:
                raise RegistryError(f"recipe {name!r}: {axis}: got {value!r}; expected one of {', '.join(known)}")
    return found


# The MAPPO-L script's settings (Ant 2x4), which the Scal-MAPPO-L paper takes over unchanged, as well for its IPPO.
_MAPPO_L: dict[str, Any] = {
    "epochs": 5,
    "minibatches": 40,
    "actor_lr": 9e-5,
    "critic_lr": 5e-3,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip": 0.2,
    "entropy_coef": 0.01,
    "max_grad_norm": 10.0,
    "hidden": [64, 64],
    "activation": "relu",
    "layer_norm": True,
    "input_norm": "layer",
    "value_norm": True,
    "huber_delta": 10.0,
    "value_clip": 0.2,
    "std": "sigmoid",
    "std_init": 0.3655,
    "head_gain": 0.01,
    "lr_decay": "none",
    "adam_eps": 1e-5,
    "constraint": "lagrangian",
    "cost_scale": "round",
    "mult_init": 0.78,
    "mult_lr": 1e-7,
}
_UNPRICED = {name: value for name, value in _MAPPO_L.items() if name not in ("constraint", "cost_scale", "mult_init", "mult_lr")}

# HARL's tuned settings for Ant 4x2.
_HARL: dict[str, Any] = _UNPRICED | {
    "minibatches": 1,
    "actor_lr": 5e-4,
    "critic_lr": 5e-4,
    "clip": 0.1,
    "value_clip": 0.1,
    "entropy_coef": 0.0,
    "hidden": [128, 128, 128],
}

# The A2PO paper's for Ant, beside which it runs CoPPO.
_A2PO: dict[str, Any] = _UNPRICED | {
    "epochs": 8,
    "minibatches": 1,
    "actor_lr": 3e-4,
    "critic_lr": 3e-4,
    "gae_lambda": 0.93,
    "entropy_coef": 0.0,
    "hidden": [64, 64, 64],
    "std": "exp",
    "std_init": 0.6065,
    "clip_others_frac": 0.5,
    "clip_ramp": 0.5,
}

# The DPO repository's, which says nothing of copies and steps; alternating PPO is a mode of it.
_DPO: dict[str, Any] = {
    "epochs": 15,
    "actor_lr": 5e-4,
    "critic_lr": 5e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "entropy_coef": 0.01,
    "hidden": [128, 128],
    "value_norm": False,
    "huber_delta": None,
    "std": "exp",
    "std_init": 1.0,
    "lr_decay": "none",
}


def _settings(copies: int, steps: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {"env": {"num_envs": copies, "stagger": False}, "rollout": {"steps": steps}, "algorithm": settings}


PAPER: dict[str, dict[str, Any]] = {
    "scal_mappo_l": _settings(16, 1000, _MAPPO_L),
    "mappo_l": _settings(16, 1000, _MAPPO_L),
    "ippo": _settings(16, 1000, _UNPRICED),
    "mappo": _settings(20, 200, _HARL),
    "happo": _settings(20, 200, _HARL),
    "hatrpo": _settings(20, 200, _HARL | {"value_clip": 0.2, "kl_bound": 0.005, "damping": 0.1, "backtrack": 0.8}),
    "macpo": _settings(16, 1000, _UNPRICED | {"kl_bound": 0.0065, "damping": 0.1, "backtrack": 0.5}),
    "mafocops": _settings(
        16,
        1000,
        _MAPPO_L
        | {
            "constraint": "focops",
            "minibatches": 62,  # of 258 samples; the paper has minibatches of 256
            "kl_bound": 0.0125,
            "focops_temperature": 2.2,
            "mult_init": 0.0,
            "mult_lr": 5e-5,
            "mult_max": 1.3,
            "huber_delta": None,
        },
    ),
    "dpo": {"algorithm": _DPO | {"kl_target": 0.01}},
    "coppo": _settings(20, 200, _A2PO | {"epochs": 5, "gae_lambda": 0.95}),
    "a2po": _settings(20, 200, _A2PO),
    "alternating_ppo": {"algorithm": _DPO | {"clip": 0.2}},
}
