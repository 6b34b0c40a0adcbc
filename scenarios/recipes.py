"""The algorithms as rows of a table: what each one *is*, as data.

Theory of operation. An on-policy algorithm of this project is a choice on a few independent axes (the columns below),
never a loop of its own. `node.learner` holds the one loop; it reads the axes and nothing else, so a new combination is
a new row, or simply a scenario that overrides one axis (`algorithm.factor=khop`).

The rule that couples the axes: `factor` other than "none" makes the update sequential, because an agent then
needs the final ratios of the agents before it in the order. With `factor: none` the order changes nothing.

`PAPER` holds the settings printed in, or taken over by, the papers; `algorithm.preset=paper` puts them beneath the
scenario's own values. The schema's defaults come from our own search (docs/results.md).
"""

from dataclasses import dataclass
from typing import Any, Literal

Scope = Literal["local", "khop", "global"]
Factor = Literal["none", "khop", "global"]
Order = Literal["fixed", "random"]
Constraint = Literal["none", "lagrangian"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One algorithm as a point on the axes.

    Attributes:
        actor_scope: Whose states the actor sees: its own, its κ-hop ball's, everybody's.
        critic_scope: The same for the value critic and the cost critics.
        order: In which order agents update within a round. Ascending id, or drawn from the shared seed each round.
        factor: Whose final ratios multiply an agent's advantage: nobody's, those of earlier agents in its ball, of all
            earlier agents.
        constraint: How costs enter the objective: not at all, or by Lagrange multipliers.
        source: Where the algorithm is described.
    """

    actor_scope: Scope
    critic_scope: Scope
    order: Order
    factor: Factor
    constraint: Constraint
    source: str


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
