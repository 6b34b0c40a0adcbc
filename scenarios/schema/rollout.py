"""The sections `rollout` and `budget`: how much is sampled in a round, and in a run."""

from pydantic import model_validator

from scenarios.schema.base import Section, setting

Extensions = tuple[tuple[int, int], ...]


def left(round_: int, rounds: int, extended: Extensions = ()) -> float:
    """What is left in a round of something that falls linearly to 0 at the end of the run, as a part of what it was at the start.

    Where the run was extended the line goes on from the value that it has reached, to 0 at the new end.

    Args:
        round_: Which round.
        rounds: How many the run has.
        extended: As in `Budget`.

    Example:
        >>> left(5, 10), left(5, 25, ((5, 10),)), left(15, 25, ((5, 10),))
        (0.5, 0.5, 0.25)
    """
    start, value = 0, 1.0
    for first, planned in extended:
        if round_ < first:
            rounds = planned
            break
        value *= 1.0 - (first - start) / (planned - start)
        start = first
    return value * (1.0 - (round_ - start) / (rounds - start))


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
    extended: Extensions = setting(
        (),
        "Written by `kappahop resume RUN budget.env_steps=N`: for each extension the first round under the larger budget, and "
        "the rounds of the budget before. Step sizes that fall linearly begin a new line there.",
        unit="rounds",
    )

    @model_validator(mode="after")
    def _goes_forward(self) -> "Budget":
        before = 0
        for first, planned in self.extended:
            if not before < first < planned:
                raise ValueError(
                    f"extended: got {[list(pair) for pair in self.extended]}; expected first rounds that ascend from 1, each "
                    "below the rounds of the budget before"
                )
            before = first
        return self
