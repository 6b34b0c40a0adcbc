"""An agent's clock: virtual time, or on the wall clock the world's time."""

import time

from topology.snapshot import Stateful


class Clock(Stateful):
    """What time it is for one agent.

    Args:
        lockstep: Whether time is virtual; else it is the world's clock, as this host reads it.
        patience_s: How long a message of others is waited for, `network.patience_s`.

    Attributes:
        now: Seconds since the run's first step.
        lockstep: As given.
        patience_s: As given.
        offset_s: From this host's clock to the world's, on the wall clock.
    """

    STATE = ("now",)

    def __init__(self, *, lockstep: bool, patience_s: float) -> None:
        self.now = 0.0
        self.lockstep = lockstep
        self.patience_s = patience_s
        self.offset_s = 0.0

    def world_time(self) -> float:
        """The world's time now, on the wall clock."""
        return time.monotonic() + self.offset_s

    def deadline(self) -> float:
        """Until when a message that is waited for now counts; on the wall clock the wait is over."""
        return self.now + self.patience_s if self.lockstep else self.world_time()
