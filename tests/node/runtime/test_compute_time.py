"""What thinking costs: the constants, a device's own, or what was measured, times how slow the agent is just then."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.runtime.compute_time import ComputeTime
from scenarios.schema import Compute


def compute_time(agent: int = 0, slow: float = 1.0, **settings: Any) -> ComputeTime:
    return ComputeTime(Compute.model_validate(settings), agent, lambda now: slow if now >= 1.0 else 1.0)


def test_by_default_thinking_costs_nothing_and_nobody_asks_how_slow_the_agent_is() -> None:
    free = ComputeTime(Compute(), 0, lambda now: pytest.fail("asked"))
    assert free("forward", 3.0, 9.0) == free("values", 3.0, 9.0) == free("policy", 3.0, 9.0) == 0.0


@given(took_s=st.floats(0, 99), now=st.floats(0, 9))
def test_constants_hold_whatever_it_took(took_s: float, now: float) -> None:
    cost = compute_time(slow=4.0, forward_ms=2.0, values_ms=30.0, policy_ms=500.0)
    factor = 4.0 if now >= 1.0 else 1.0
    found = [cost("forward", now, took_s), cost("values", now, took_s), cost("policy", now, took_s)]
    assert found == pytest.approx([0.002 * factor, 0.03 * factor, 0.5 * factor])


def test_each_agent_has_the_costs_of_its_device() -> None:
    devices = {"board": {"forward_ms": 8.0}, "phone": {"forward_ms": 1.0, "policy_ms": 70.0}}
    costs = [compute_time(i, forward_ms=99.0, devices=devices, agents=["phone", "board", "phone"]) for i in range(3)]
    assert [cost("forward", 0.0, 1.0) for cost in costs] == pytest.approx([0.001, 0.008, 0.001])
    assert [cost("policy", 0.0, 1.0) for cost in costs] == pytest.approx([0.07, 0.0, 0.07])


@given(took_s=st.floats(0, 99))
def test_measured_costs_are_what_it_took_whatever_the_constants_say(took_s: float) -> None:
    cost = compute_time(slow=3.0, mode="measured", forward_ms=5.0)
    assert cost("forward", 0.5, took_s) == took_s
    assert cost("values", 2.0, took_s) == pytest.approx(3.0 * took_s)
