"""The sections `central` and `compute`: where the central critic is, and what computing costs in virtual time."""

from typing import Literal

from pydantic import model_validator

from scenarios.schema.base import Section, setting


class Central(Section):
    """The central critic's host (critic_scope: central). In `network` it is known as agent n, behind the last."""

    at: int | None = setting(
        None, "The agent by whose links it hangs on the topology; null: it has links of its own to every agent.", ge=0
    )


class Device(Section):
    """Compute time: what an agent's computing takes in virtual time."""

    forward_ms: float = setting(0.0, "One action.", unit="ms", ge=0)
    values_ms: float = setting(0.0, "Training the critics, once a round.", unit="ms", ge=0)
    policy_ms: float = setting(0.0, "Training the policy, once a round.", unit="ms", ge=0)


class Compute(Device):
    """Compute costs virtual time. The constants hold for every agent, unless `agents` gives each a device of its own."""

    mode: Literal["constant", "measured"] = setting(
        "constant",
        "Compute time: the constants, or as measured on this machine (then the virtual times, and on real links the results, "
        "differ from run to run).",
    )
    devices: dict[str, Device] = setting({}, "Kinds of devices by name, each with the three costs.")
    agents: tuple[str, ...] = setting((), "The device of each agent, by id; []: all cost the constants.")

    @model_validator(mode="after")
    def _known(self) -> "Compute":
        if self.devices and not self.agents:
            raise ValueError(
                f"devices: got {', '.join(sorted(self.devices))}, which no agent has; say in compute.agents which device each has"
            )
        for place, name in enumerate(self.agents):
            if name not in self.devices:
                raise ValueError(f"agents[{place}]: got {name!r}; not one of the devices {sorted(self.devices)}")
        return self

    def takes_time(self, agent: int) -> bool:
        """Whether computing takes an agent, or the central critic, any virtual time."""
        costs: Device = self.devices[self.agents[agent]] if agent < len(self.agents) else self
        return self.mode == "measured" or any((costs.forward_ms, costs.values_ms, costs.policy_ms))
