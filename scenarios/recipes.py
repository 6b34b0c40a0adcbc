"""The algorithms as rows of a table: what each one *is*, as data.

Theory of operation. An on-policy algorithm of this project is a choice on a few independent axes (the columns below),
never a loop of its own. `node.learner` holds the one loop; it reads the axes and nothing else, so a new combination is
a new row, or simply a scenario that overrides one axis (`algorithm.factor=khop`). Off-policy algorithms are the rows whose
`target` is a value of actions; `node.off_policy` is their loop, and they know neither factors nor constraints.

The rule that couples the axes: `factor` other than "none" makes the update sequential, because an agent then
needs the final ratios of the agents before it in the order. With `factor: none` the order changes nothing.

`PAPER` holds the settings printed in, or taken over by, the papers; `algorithm.preset=paper` puts them beneath the
scenario's own values. The schema's defaults come from our own search (docs/results.md).
"""

from dataclasses import dataclass
from typing import Any, Literal

Scope = Literal["local", "khop", "global"]
Factor = Literal["none", "khop", "global"]
Order = Literal["simultaneous", "fixed", "random", "alternating"]
Constraint = Literal["none", "lagrangian"]
Target = Literal["advantage", "q", "ideal_q"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One algorithm as a point on the axes.

    Attributes:
        actor_scope: Whose states the actor sees: its own, its κ-hop ball's, everybody's.
        critic_scope: The same for the value critic and the cost critics.
        order: In which order agents update within a round. All at once, by ascending id, drawn from the shared seed each
            round, or one agent per turn while the others rest.
        factor: Whose final ratios multiply an agent's advantage: nobody's, those of earlier agents in its ball, of all
            earlier agents.
        constraint: How costs enter the objective: not at all, or by Lagrange multipliers.
        target: What is learnt: advantages of the policy that acted, values of own actions, or their values if all others do
            what is best.
        source: Where the algorithm is described.
    """

    actor_scope: Scope
    critic_scope: Scope
    order: Order
    factor: Factor
    constraint: Constraint
    target: Target = "advantage"
    source: str

    def conflict(self) -> str | None:
        """Why these choices do not go together; None if they do."""
        if self.factor != "none" and self.order in ("simultaneous", "alternating"):
            return f"factor: got {self.factor!r} with order {self.order!r}; nobody is earlier in a round, so it must be 'none'"
        if self.target == "advantage":
            return None
        if self.factor != "none":
            return f"factor: got {self.factor!r} with target {self.target!r}; there are no ratios, so it must be 'none'"
        if self.constraint != "none":
            return f"constraint: got {self.constraint!r} with target {self.target!r}; costs are ignored, so it must be 'none'"
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
        constraint="lagrangian",
        source="Zhang et al., NeurIPS 2024, eq. 20 and Algorithm 1",
    ),
    "mappo_l": Recipe(
        actor_scope="global",
        critic_scope="global",
        order="random",
        factor="global",
        constraint="lagrangian",
        source="Gu et al. 2021, arXiv:2110.02793, MAPPO-Lagrangian",
    ),
    "ippo": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="fixed",
        factor="none",
        constraint="none",
        source="de Witt et al. 2020, arXiv:2011.09533",
    ),
    "iql": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="simultaneous",
        factor="none",
        constraint="none",
        target="q",
        source="Tan 1993, independent Q-learning; with continuous actions an independent TD3, Fujimoto et al. 2018",
    ),
    "ma2ql": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="alternating",
        factor="none",
        constraint="none",
        target="q",
        source="Su et al. 2022, arXiv:2209.08244, multi-agent alternate Q-learning",
    ),
    "i2q": Recipe(
        actor_scope="local",
        critic_scope="local",
        order="simultaneous",
        factor="none",
        constraint="none",
        target="ideal_q",
        source="Jiang and Lu 2022, ideal independent Q-learning",
    ),
}

# The MAPPO-L script's settings (Ant 2x4), which the Scal-MAPPO-L paper takes over unchanged.
PAPER: dict[str, Any] = {
    "env": {"copies": 16},
    "rollout": {"steps": 1000},
    "algorithm": {
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
        "mult_init": 0.78,
        "mult_lr": 1e-7,
    },
}
