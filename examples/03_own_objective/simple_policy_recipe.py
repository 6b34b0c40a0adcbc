"""The algorithm as a row. It is a module of its own, so that processes that do not learn read it without torch."""

from scenarios.recipes import Recipe

RECIPE = Recipe(
    actor_scope="khop",
    critic_scope="khop",
    order="simultaneous",
    factor="none",
    objective="simple_policy",
    constraint="pid_lagrangian",
    source="Xie et al. 2024, arXiv:2401.16025; scopes as in Scal-MAPPO-L",
)
