"""What an agent sees: the blocks of the agents in a scope, side by side in ascending agent id.

One function builds every scope, so that κ ≥ diameter gives byte-identical inputs to `global`: only the list of agents
differs. Nothing else enters the inputs. An agent's id, and its neighbours', would be constants to a network that it
shares with no other agent, and a bias already is one (docs/decisions/0003-inputs.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenarios.recipes import CriticScope


def scope_agents(scope: CriticScope, agent: int, visible: Sequence[int], n_agents: int) -> tuple[int, ...]:
    """The agents whose blocks a network of `agent` takes in, ascending, itself included.

    With a central critic the agent has none, and takes in nothing for it but what it senses anyway.
    """
    if scope in ("local", "central"):
        return (agent,)
    return tuple(visible) if scope == "khop" else tuple(range(n_agents))


@dataclass(frozen=True, slots=True)
class ObservationScope:
    """Where each agent's block lies in an agent's observation, and which columns a network takes.

    Attributes:
        agents: The agents seen, ascending.
        places: Per agent seen, its columns.
        width: Columns in all.
    """

    agents: tuple[int, ...]
    places: dict[int, slice]
    width: int

    @classmethod
    def of(cls, agents: Sequence[int], dims: Sequence[int]) -> "ObservationScope":
        """The layout for `agents`, given every agent's block width."""
        places: dict[int, slice] = {}
        start = 0
        for agent in sorted(agents):
            places[agent] = slice(start, start + dims[agent])
            start += dims[agent]
        return cls(tuple(places), places, start)

    def columns(self, agents: Sequence[int]) -> NDArray[np.intp] | slice:
        """The columns of a subset of the agents; all of them as a slice, which copies nothing."""
        if tuple(agents) == self.agents:
            return slice(None)
        return np.concatenate([np.arange(self.places[agent].start, self.places[agent].stop) for agent in sorted(agents)])
