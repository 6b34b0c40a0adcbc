"""The section `env`: what every world has. The rest of the section is the named world's own and lives with the world.

A world's settings are a model that extends `Env`, found by its name (`scenarios.registry.WORLDS`). A process that steps no
world does not need it: it reads the section as `OpaqueEnv`, which keeps the world's settings unread.
"""

from pydantic import ConfigDict

from scenarios.schema.base import Section, setting

DEFAULT_WORLD = "safe_halfcheetah"


class Env(Section):
    """The world that all agents share."""

    name: str = setting(DEFAULT_WORLD, "Which world.")
    num_envs: int = setting(
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
        "Copies start at different phases of an episode: the first one of copy e is truncated after ceil(horizon·(e+1)/num_envs) "
        "steps and in no statistic. In training only, and only where an episode is longer than rollout.steps.",
    )


class OpaqueEnv(Env):
    """The same as a process reads it that steps no world: what only the world has is kept as it is."""

    model_config = ConfigDict(extra="allow")
