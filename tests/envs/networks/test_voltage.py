"""Voltage control: its baselines against the figures of its prototype, its prices by hand, and what inverters can do."""

from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.interface import Episode
from envs.networks.voltage import BARRIERS, BASELINES, DAY, VoltageControl, VoltageEnv
from envs.registry import make, section, spec


def world(name: str = "voltage_33", *, seed: int = 0, **settings: Any) -> VoltageControl:
    env = section(name, **{"num_envs": 4, **settings})
    made = make(env, nx.path_graph(spec(env).n_agents), seed)
    assert isinstance(made, VoltageControl)
    return made


def played(policy: str, copies: int, *, steps: int = DAY, **settings: Any) -> dict[str, float]:
    """Means of the measures, and of the return, over one episode of each copy: a whole day if nothing else is said."""
    env = section("voltage_33", num_envs=copies, horizon=steps, **settings)
    assert isinstance(env, VoltageEnv)
    made = world(num_envs=copies, horizon=steps, **settings)
    control = BASELINES[policy](env, nx.path_graph(6))
    made.reset()
    episodes: tuple[Episode, ...] = ()
    for _ in range(steps):
        episodes = made.step(control(made)).episodes
    names = [measure.name for measure in made.spec.measures]
    means = np.mean([episode.measures for episode in episodes], axis=0)
    return {"return": float(np.mean([episode.ret for episode in episodes])), **dict(zip(names, means, strict=True))}


@pytest.mark.parametrize(("pv_mw", "buses", "deviation"), [(0.6, 4.87, 0.0264), (1.0, 5.89, 0.0298), (1.4, 8.11, 0.0350)])
def test_without_control_buses_are_out_of_limits_as_in_the_prototype(pv_mw: float, buses: float, deviation: float) -> None:
    found = played("none", 64, pv_mw=pv_mw)
    assert 32 * found["out of limits"] == pytest.approx(buses, rel=0.05)
    assert found["voltage deviation"] == pytest.approx(deviation, rel=0.05)
    assert found["reactive power"] == 0.0


def test_a_central_controller_reaches_the_deviation_of_the_prototype() -> None:
    found = played("central", 4)
    assert found["out of limits"] == 0.0
    assert found["voltage deviation"] == pytest.approx(0.0024, rel=0.1)


def test_droop_keeps_limits_and_a_frugal_central_controller_does_so_with_less_than_half_of_the_reactive_power() -> None:
    droop, frugal = (played(policy, 4, steps=60) for policy in ("droop", "frugal"))
    assert droop["controllable"] > 0.99
    assert frugal["controllable"] > 0.99
    assert frugal["reactive power"] < droop["reactive power"] / 2
    assert frugal["return"] > droop["return"]


@pytest.mark.parametrize("barrier", BARRIERS)
def test_rewards_and_costs_follow_from_the_voltages_that_an_action_brings(barrier: str) -> None:
    price = 0.3
    team, local = (world(barrier=barrier, reactive_price=price, reward=who, cost=who, pv_mw=1.4) for who in ("team", "local"))
    rng = np.random.default_rng(0)
    for made in (team, local):
        made.reset()
    for _ in range(5):
        shares = [rng.uniform(-1.5, 1.5, (4, 1)).astype(np.float32) for _ in range(6)]
        reactive = np.clip(np.hstack(shares), -1.0, 1.0) * team.capability
        deviation = team.voltages(reactive) - 1.0
        out = team.step(shares), local.step(shares)
        expected = -(BARRIERS[barrier](deviation).mean(axis=1) + price * np.abs(reactive).mean(axis=1))
        np.testing.assert_allclose(out[0].reward[0], expected, rtol=1e-5)
        np.testing.assert_allclose(out[1].reward.mean(axis=0), expected, rtol=1e-5)
        share = (np.abs(deviation) > 0.05).mean(axis=1)
        np.testing.assert_allclose(out[0].cost[3, :, 0], share, rtol=1e-6)
        sizes = np.array([8, 2, 3, 8, 8, 3])  # buses of each zone; of them the costs are shares
        np.testing.assert_allclose(sizes @ out[1].cost[:, :, 0] / 32, share, rtol=1e-5, atol=1e-9)


def test_bowl_is_flat_inside_the_band_and_steep_outside() -> None:
    price = BARRIERS["bowl"](np.array([0.0, 0.0499999, 0.0500001, 0.1]))
    assert price == pytest.approx([0.04 - 0.01 / (0.1 * np.sqrt(2 * np.pi)), 0.0048, 0.0050, 0.105], abs=1e-4)


def test_an_inverter_gives_no_more_than_its_rating_leaves_and_keeps_what_it_can() -> None:
    made = world(num_envs=64)
    made.reset()
    full = [np.ones((64, 1), np.float32)] * 6
    for _ in range(40):
        made.step(full)
        assert (made.reactive**2 + made.active**2 <= 1.2**2 + 1e-9).all()
        assert (made.active >= 0.0).all()
        assert (made.active <= 1.0).all()
    assert made.reactive.max() == pytest.approx(1.2)  # at night all of it
    assert (made.reactive > 0.6).all()


def test_an_action_that_is_no_number_is_a_fault() -> None:
    made = world()
    made.reset()
    actions = [np.zeros((4, 1), np.float32) for _ in range(6)]
    actions[2][1] = np.nan
    out = made.step(actions)
    assert out.faults.tolist() == [False, True, False, False]
    assert np.isfinite(out.reward).all()
    assert all(np.isnan(figure) for figure in out.episodes[0].measures)


def test_numbers_of_agents_that_the_feeder_cannot_seat_are_refused() -> None:
    with pytest.raises(ValueError, match="less than or equal to 32"):
        section("voltage_33", agents=33)
    assert spec(section("voltage_141")).n_agents == 22
    assert len(set(section("voltage_141", agents=50).seats)) == 50  # type: ignore[attr-defined]
