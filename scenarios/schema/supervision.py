"""The section `supervision`: processes and deadlines."""

from typing import Annotated, Literal

from pydantic import Field

from scenarios.schema.base import Section, setting


class Supervision(Section):
    """Processes and deadlines: what passes a deadline ends the run with a message."""

    agents_per_process: Annotated[int, Field(ge=1)] | Literal["auto"] = setting(
        1,
        "How many agents share a process (a pack). It changes no result. auto: one pack for each core. More than 1 needs "
        "clock=virtual.",
    )

    on_node_death: Literal["stop", "continue"] = setting(
        "stop",
        "What follows when a node's process dies unasked: the run stops; or the others go on and take it for silent.",
    )

    deadline_s: float = setting(
        120.0,
        "Longest wait for one message, in wall time; passing it names the silent process. Agents that learn are silent: "
        "it must exceed the learning of one round, with a sequential factor or in a pack that of all agents.",
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
