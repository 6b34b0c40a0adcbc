"""Settings of worlds that other packages bring."""

import contextlib
from typing import Any, Literal

from pydantic import model_validator

from scenarios.registry import ENVIRONMENTS, RegistryError
from scenarios.schema import Env, setting


class ImportedEnv(Env):
    """What every world of another package has."""

    make: str = setting(
        "", "What makes one environment: a registered name, or its import path, module:function, which needs --allow-code."
    )
    make_kwargs: dict[str, Any] = setting({}, "Arguments of that function, by name.")
    reward: Literal["local", "team"] = setting("local", "What an agent learns from: its own reward, or the mean over all agents.")
    cost: Literal["local", "team"] = setting("local", "What an agent is charged: its own costs, or the mean over all agents.")
    cost_limits: tuple[float, ...] | None = setting(
        None,
        "Limit of each cost on an episode's sum; null: its attribute cost_limits, without it there are no costs.",
    )
    dt: float = setting(1.0, "Control period.", unit="s", gt=0)
    flatten: bool = setting(False, "Lay out images and dictionaries as rows of numbers; otherwise they are refused.")
    presence: bool = setting(
        True,
        "An observation tells in its last number whether the agent takes part (1) or has ended before the others (0). Its "
        "samples after that are left out of all learning. False where agents only end together.",
    )

    @model_validator(mode="after")
    def _note_allowed_code(self) -> "ImportedEnv":
        if self.make:
            with contextlib.suppress(RegistryError):  # whether it may be used is asked when it is: reading runs nothing
                ENVIRONMENTS.check(self.make)
        return self


class PettingZooEnv(ImportedEnv):
    """A PettingZoo ParallelEnv."""

    name: str = setting("pettingzoo", "Which world.")


class GymnasiumEnv(ImportedEnv):
    """A Gymnasium environment whose spaces are tuples, or dictionaries by agent."""

    name: str = setting("gymnasium", "Which world.")
