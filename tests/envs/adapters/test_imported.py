"""Environments of other packages as worlds: unequal agents, early ends, masks, bounds, costs, graphs, seeds, states."""

from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.adapters.imported import ImportedWorld
from envs.checked import WorldError
from envs.contract import broken
from envs.interface import Floats, VecEnv
from envs.registry import make, section, spec
from topology.snapshot import read, write

LENGTH, DEATH, LEAVE = 6, 2, 3  # as in fakes.py


def world(name: str = "pettingzoo", make_: str = "uneven", seed: int = 0, **settings: Any) -> VecEnv:
    env = section(name, make=make_, **{"num_envs": 2, **settings})
    return make(env, nx.path_graph(spec(env).n_agents), seed)


def likely(one: VecEnv, obs: list[Floats], number: float = 0.0) -> list[Floats]:
    """The first action that can be taken, and one number for all others."""
    actions = []
    for agent, (count, width) in enumerate(zip(one.spec.n_discrete, one.spec.act_dims, strict=True)):
        mask = obs[agent][:, -1 - count : -1] if count and one.spec.masked[agent] else np.ones((one.num_envs, max(count, 1)))
        actions.append(
            mask.argmax(axis=1).astype(np.float32)[:, None] if count else np.full((one.num_envs, width), number, np.float32)
        )
    return actions


def test_a_spec_says_what_the_environment_is() -> None:
    shape = world().spec
    assert shape.obs_dims == (2 + 3 + 1, 3 + 1, 2 + 2 + 1)
    assert (shape.act_dims, shape.n_discrete, shape.masked) == ((1, 2, 1), (3, 0, 2), (True, False, True))
    assert (shape.cost_limits, shape.edges, shape.presence, shape.own_costs) == ((1.5,), ((0, 1), (1, 2)), True, True)
    assert world(cost_limits=(), horizon=3).spec.horizon == 3


def test_agents_end_one_by_one_and_their_rows_say_so() -> None:
    one = world()
    out, obs, presence = None, one.reset(), []
    for step in range(1, LENGTH + 1):
        out = one.step(likely(one, obs))
        obs = out.obs if out.final_obs is None else out.final_obs
        presence.append([block[0, -1] for block in obs])
        assert (out.reward[2] != 0).all() == (step <= DEATH)
        assert (out.cost[1] != 0).all() == (step <= LEAVE)
        if step == LEAVE:
            assert np.allclose(obs[1][:, [0, 2]], [LEAVE, 0.5])  # what it saw when its time was up
        if step > DEATH:
            assert not obs[2].any()
    assert presence == [[1, 1, 1], [1, 1, 0], [1, -1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert out is not None
    assert out.terminated.all()
    assert not out.truncated.any()
    assert out.episodes[0].length == LENGTH
    assert out.episodes[0].cost == pytest.approx((0.25 * (LENGTH + LEAVE + DEATH) / 3,))


def test_a_limit_of_time_of_the_environment_truncates_a_copy() -> None:
    one = world(make_kwargs={"ends_by": "truncation"})
    out, obs = None, one.reset()
    for _ in range(LENGTH):
        out = one.step(likely(one, obs))
        obs = out.obs
    assert out is not None
    assert out.truncated.all()
    assert out.final_obs is not None
    assert [block[0, -1] for block in out.final_obs] == [1, 0, 0]


def test_the_observation_before_stands_in_for_a_last_one_that_is_not_given() -> None:
    one = world(make_kwargs={"parts": False, "ends_by": "truncation"}, cost_limits=())
    out, obs = None, one.reset()
    for step in range(1, LENGTH + 1):
        out = one.step(likely(one, obs))
        obs = out.obs
        if step == LEAVE:
            assert np.allclose(obs[1][:, [0, 2, 3]], [LEAVE - 1, 0.5, -1.0])
    assert out is not None
    assert out.truncated.all()
    assert out.final_obs is not None
    assert (out.final_obs[0][:, 0] == LENGTH - 1).all()


def test_bounds_are_spread_over_and_choices_begin_where_theirs_do() -> None:
    one = world(num_envs=1)
    assert isinstance(one, ImportedWorld)
    given, obs = {}, one.reset()
    for number, expected in ((-1.0, (-2.0, 0.0)), (0.5, (1.0, 7.5)), (9.0, (2.0, 10.0))):
        obs = one.step(likely(one, obs, number)).obs
        given = one._instances[0].given[-1]  # type: ignore[attr-defined]
        assert given["timed"] == pytest.approx(expected)
        if "short" in given:
            assert given["short"] in (1, 2)
    assert given["long"] == 0  # in step 2 the mask is [1, 1, 0]


def test_an_agent_that_is_down_takes_the_first_action_that_can_be_taken() -> None:
    one = world(num_envs=1)
    assert isinstance(one, ImportedWorld)
    one.reset()
    one.step([np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32)])
    given = one._instances[0].given[-1]  # type: ignore[attr-defined]
    assert given["long"] == 1  # the mask is [0, 1, 1]
    assert given["short"] == 2


@pytest.mark.parametrize(("name", "make_"), [("pettingzoo", "uneven"), ("gymnasium", "pair")])
def test_it_keeps_the_contract_of_worlds(name: str, make_: str) -> None:
    share, settings = "mean", {"num_envs": 3, "horizon": 4, "cost": "team"}
    found = broken(lambda seed, threads: world(name, make_, seed, **settings), share)  # type: ignore[arg-type]
    assert found == []


def test_an_environment_that_does_not_repeat_itself_is_not_resumed(tmp_path: Any) -> None:
    for forgetful in (False, True):
        one, other = (world(make_kwargs={"forgetful": forgetful}) for _ in range(2))
        one.step(likely(one, one.reset()))
        write(tmp_path / "state", one.state())
        if forgetful:
            with pytest.raises(ValueError, match="cannot be resumed"):
                other.restore(read(tmp_path / "state"))
        else:
            other.restore(read(tmp_path / "state"))


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"space": "image"}, r"timed observes an image, \(4, 4, 3\); expected a row"),
        ({"space": "dict"}, "timed observes a Dict; expected a row"),
        ({"space": "multi"}, r"short acts in MultiDiscrete\(\[2 2\]\); expected Discrete"),
        ({"spice": 1}, "odd failed with env.make_kwargs"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        spec(section("pettingzoo", make="odd", make_kwargs=kwargs))


def test_images_are_laid_out_on_request() -> None:
    assert spec(section("pettingzoo", make="odd", flatten=True)).obs_dims[1] == 48 + 1


STEP_2 = "copy 0, episode 1, step 2"
BEGINNING = "copy 0, episode 1, step 0"
FAULTS = {
    "shape": f", agent timed, {STEP_2}: observation: got an array (2,) of float64; expected Box(-10.0, 10.0, (3,), float64)",
    "nan": f", agent timed, {STEP_2}: observation: got nan; expected finite numbers",
    "text": f", agent timed, {STEP_2}: observation: got str north (ValueError: could not convert string to float: 'north')",
    "object": f", agent timed, {STEP_2}: observation: got an array (3,) of object (TypeError: ",
    "no observation": f", agent timed, {STEP_2}: observation: got agents long, short; expected a dictionary with this agent",
    "list": f", agent long, {STEP_2}: observation: got list; expected a dictionary with this agent",
    "reward": f", agent timed, {STEP_2}: reward: got inf; expected a finite number",
    "mask": f", agent long, {STEP_2}: action mask: got 3 entries, 0 of them true; expected 3 entries at every step",
    "exception": f", {STEP_2}: step raised ZeroDivisionError: division by zero; expected no error",
    "reset": f", {BEGINNING}: reset raised FileNotFoundError: map.json; expected no error",
    "other space": f", agent timed, {BEGINNING}: observation space: got Box(-10.0, 10.0, (4,), float64); expected Box(",
    "other actions": f", agent short, {BEGINNING}: action space: got Discrete(5); expected Discrete(2, start=1), as when",
    "fewer agents": f", {BEGINNING}: agents: got long, timed; expected long, timed, short in every episode",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_names_world_agent_copy_step_and_what_was_expected(fault: str) -> None:
    one = world(make_="faulty", make_kwargs={"fault": fault}, num_envs=1)

    def play() -> None:
        obs = one.reset()
        for _ in range(2 * LENGTH):
            obs = one.step(likely(one, obs)).obs

    with pytest.raises(WorldError) as raised:
        play()
    assert str(raised.value).startswith("world 'faulty'" + FAULTS[fault])


def test_errors_about_agents_and_costs_say_what_was_expected() -> None:
    late, dear, alone = (
        world(make_="odd", make_kwargs={"space": "late"}),
        world(make_kwargs={"cost": -1.0}),
        world(presence=False),
    )
    with pytest.raises(WorldError, match="copy 0, episode 0, step 1: agents: got stranger, which joined during the episode"):
        late.step(likely(late, late.reset()))
    with pytest.raises(WorldError, match=r"agent long, copy 0, episode 0, step 1: cost of infos: got -1.0; expected 1 finite"):
        dear.step(likely(dear, dear.reset()))
    alone.reset()
    ones = [np.ones((2, width), np.float32) for width in alone.spec.act_dims]
    alone.step(ones)
    with pytest.raises(WorldError, match=r"agents: got some that end before the others; expected env\.presence=true"):
        alone.step(ones)


def test_code_is_not_run_because_a_file_names_it() -> None:
    with pytest.raises(ValueError, match=r"env\.make"):
        spec(section("pettingzoo", make="os:getcwd"))
