"""The number of agents as a setting, for worlds that can have any."""

from typing import Any, ClassVar

from scenarios.schema import Env, setting


class TeamEnv(Env):
    """A world whose number of agents is a setting. A subclass defines `agents` by `team`, and its default."""

    default_agents: ClassVar[int]
    agents: int | None

    @property
    def n_agents(self) -> int:
        """n: as set, or the world's default."""
        return self.default_agents if self.agents is None else self.agents


def team(default: int, least: int, most: int) -> Any:
    """The field `agents` of a world that can have so many.

    Args:
        default: What null means without a graph that says more.
        least: Fewest that the world can have.
        most: Most.

    Returns:
        A field that is null if not given.
    """
    meaning = f"How many; null: as many as the graph in `topology.file` has nodes, without one {default}."
    return setting(None, meaning, unit="agents", ge=least, le=most)
