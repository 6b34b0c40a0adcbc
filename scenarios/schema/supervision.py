"""The section `supervision`: deadlines."""

from typing import Literal

from scenarios.schema.base import Section, setting


class Supervision(Section):
    """Deadlines: what passes one of these ends the run with a message."""

    on_node_death: Literal["stop", "continue"] = setting(
        "stop",
        "What follows when a node's process dies unasked: the run stops; or the others go on and take it for silent.",
    )

    deadline_s: float = setting(
        120.0,
        "Longest wait for one message, in wall time; passing it names the silent process. Agents that learn are silent: "
        "it must exceed the learning of one round, with a sequential factor that of all agents.",
        unit="s",
        gt=0,
    )
    start_s: float | None = setting(
        None, "Longest wait for all processes to be up; null: 60 s, and 0.3 s more for each agent.", unit="s", gt=0
    )
    stop_s: float = setting(3.0, "How long a process may take to end after it was asked to.", unit="s", gt=0, le=8)

    def start_limit_s(self, n_agents: int) -> float:
        """Longest wait for all processes of so many agents to be up."""
        return 60.0 + 0.3 * n_agents if self.start_s is None else self.start_s
