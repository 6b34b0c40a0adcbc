"""The sections `rollout` and `budget`: how much is sampled in a round, and in a run."""

from scenarios.schema.base import Section, setting


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
