"""Compute time: what an agent's computing takes in virtual time: constant, by device, or as measured here."""

from collections.abc import Callable
from typing import Literal

from scenarios.schema import Compute

Task = Literal["forward", "values", "policy"]


class ComputeTime:
    """Virtual seconds that one agent takes for its tasks.

    Args:
        settings: The scenario's section.
        agent: Which agent, for its device.
        slow: Factor by which it is slowed down at a virtual time.
    """

    def __init__(self, settings: Compute, agent: int, slow: Callable[[float], float]) -> None:
        self._measured = settings.mode == "measured"
        costs = settings.devices[settings.agents[agent]] if settings.agents else settings
        self._cost_s = {"forward": costs.forward_ms / 1e3, "values": costs.values_ms / 1e3, "policy": costs.policy_ms / 1e3}
        self._slow = slow

    def __call__(self, task: Task, now: float, took_s: float, *, part: float = 1.0) -> float:
        """Virtual seconds of a task, or of a part of it, begun at virtual time `now` that took `took_s` real ones."""
        cost_s = took_s if self._measured else self._cost_s[task] * part
        return cost_s * self._slow(now) if cost_s else 0.0
