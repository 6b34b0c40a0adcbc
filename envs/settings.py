"""Settings of robots in worlds that have none: they are refused there, and a partition is a number of agents."""

from scenarios.schema import Env


def refuse_robots(env: Env, *, has_costs: bool = False) -> None:
    """Refuse settings that only a robot's world knows.

    Args:
        env: The scenario's section.
        has_costs: Whether the world has costs, which then may be the team's or agents' own.

    Raises:
        ValueError: One of them is set; the text names field, value and what there is instead.
    """
    for setting, only in (("walls", "none"), ("cost", "team"), ("action_map", "by_name")):
        if getattr(env, setting) != only and not (setting == "cost" and has_costs):
            raise ValueError(f"env.{setting}: got {getattr(env, setting)!r}; {env.name} has {only}")
    if env.observation == "reference":
        raise ValueError(f"env.observation: got 'reference'; {env.name} has own, full")


def count_agents(env: Env, least: int, most: int) -> int:
    """How many agents a partition "Nx1" or "N" means.

    Args:
        env: The scenario's section.
        least: Fewest that the world can have.
        most: Most.

    Returns:
        N.

    Raises:
        ValueError: It is not of that form, or out of range.
    """
    count, cross, one = env.partition.partition("x")
    if not (count.isascii() and count.isdigit() and one == ("1" if cross else "") and least <= int(count) <= most):
        which = f"{most}x1" if least == most else f"Nx1 with N in {least}..{most}, e.g. {min(most, max(least, 20))}x1"
        raise ValueError(f"env.partition: got {env.partition!r}; {env.name} has {which}")
    return int(count)
