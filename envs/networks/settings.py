"""Settings of the linear network."""

from typing import ClassVar, Literal

from pydantic import model_validator

from envs.settings import TeamEnv, team
from scenarios.schema import setting

MAX_NODES = 1024


class LQ(TeamEnv):
    """Dynamics x' = (alpha·I + beta·Adj(G))·x + u + w, stage cost x² + control_weight·u²."""

    default_agents: ClassVar[int] = 6

    name: str = setting("network_lq", "Which world.")
    agents: int | None = team(default_agents, 1, MAX_NODES)
    alpha: float = setting(0.5, "How much of its own state a node keeps per step.")
    beta: float | Literal["auto"] = setting(
        "auto",
        "How much of each neighbour's state a node takes on per step. auto: 0.27 on a line; on any other graph the smaller of "
        "0.27 and 0.95·(1 - |alpha|)/λ_max(Adj(G)), with which the network is stable.",
    )
    control_weight: float = setting(30.0, "Price r of a squared control.", gt=0)
    noise_std: float = setting(1.0, "Standard deviation of the disturbance w.", ge=0)
    control_limit: float | None = setting(
        None,
        "Squared control that a node may spend per step, on average over an episode; it is a cost then, team's or own as "
        "`env.cost` says. null: the world has no cost.",
        unit="control units²",
        gt=0,
    )
    observation: Literal["own", "full"] = setting("own", "What a node senses itself: its own state, or that of all.")
    reward: Literal["team", "local"] = setting("team", "The mean over nodes for all, or each node its own.")
    cost: Literal["team", "local"] = setting("team", "With control_limit: the mean over nodes for all, or each node its own.")

    @model_validator(mode="after")
    def _fits_together(self) -> "LQ":
        if self.beta == "auto" and abs(self.alpha) >= 1:
            raise ValueError(
                f"alpha: got {self.alpha} with beta 'auto'; no coupling makes such a network stable, so give beta as a number"
            )
        if self.cost == "local" and self.control_limit is None:
            raise ValueError("cost: got 'local'; without control_limit this world has no cost")
        return self
