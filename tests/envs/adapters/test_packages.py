"""Environments of other packages as worlds, where these are installed."""

import warnings
from typing import Any

import networkx as nx
import numpy as np
import pytest

from envs.adapters.imported import ImportedWorld
from envs.interface import Floats, Transition
from envs.registry import make, section, spec
from envs.robots.mujoco_world import MujocoWorld
from scenarios.registry import ENVIRONMENTS

pytestmark = pytest.mark.filterwarnings("ignore")  # what other packages warn of is theirs


def world(name: str, target: str, **settings: Any) -> ImportedWorld:
    with warnings.catch_warnings(action="ignore"):
        pytest.importorskip(target.partition(":")[0].partition(".")[0])
    if target not in ENVIRONMENTS.names():
        ENVIRONMENTS.register(target, target)
    env = section(name, make=target, **{"num_envs": 1, **settings})
    made = make(env, nx.path_graph(spec(env).n_agents), 0)
    assert isinstance(made, ImportedWorld)
    return made


def played(one: ImportedWorld, steps: int) -> list[Transition]:
    rng = np.random.default_rng(0)
    one.reset()
    kinds = list(zip(one.spec.n_discrete, one.spec.act_dims, strict=True))

    def drawn(count: int, width: int) -> Floats:
        draw = rng.integers(count, size=(one.num_envs, 1)) if count else rng.uniform(-1, 1, (one.num_envs, width))
        return draw.astype(np.float32)

    outs = [one.step([drawn(*kind) for kind in kinds]) for _ in range(steps)]
    one.close()
    return outs


def test_mpe2_with_unequal_agents() -> None:
    one = world("pettingzoo", "mpe2.simple_speaker_listener_v4:parallel_env", num_envs=2)
    assert (one.spec.obs_dims, one.spec.n_discrete, one.spec.horizon) == ((3 + 1, 11 + 1), (3, 5), 25)
    outs = played(one, 26)
    assert [out.truncated.all() for out in outs] == [False] * 24 + [True, False]


def test_magent2_in_which_agents_die() -> None:
    one = world("pettingzoo", "magent2.environments.gather_v5:parallel_env", make_kwargs={"max_cycles": 16}, flatten=True)
    gone = [sum(1 - out.obs[i][0, -1] for i in range(one.spec.n_agents)) for out in played(one, 15)]
    assert gone == sorted(gone)
    assert 0 < gone[-1] < one.spec.n_agents


@pytest.mark.parametrize(
    ("package", "kwargs", "n"),
    [
        ("rware", {"id": "rware:rware-tiny-2ag-v2"}, 2),
        ("lbforaging", {"id": "lbforaging:Foraging-8x8-2p-3f-v3"}, 2),
        ("mobile_env", {"id": "mobile_env:mobile-small-ma-v0"}, 5),
    ],
)
def test_gymnasium_environments_of_several_agents(package: str, kwargs: dict[str, Any], n: int) -> None:
    with warnings.catch_warnings(action="ignore"):
        pytest.importorskip(package)
    one = world("gymnasium", "gymnasium:make", make_kwargs=kwargs)
    assert one.spec.n_agents == n
    outs = played(one, 200)
    assert any(out.obs[0].any() for out in outs)
    assert sum(len(out.episodes) for out in outs) == 200 // one.spec.horizon


def test_multi_agent_mujoco_is_what_our_world_is() -> None:
    target = "gymnasium_robotics:mamujoco_v1.parallel_env"
    theirs = world("pettingzoo", target, make_kwargs={"scenario": "HalfCheetah", "agent_conf": "6x1"}, presence=False)
    env = section("mamujoco_halfcheetah", num_envs=1, partition="6x1", observation="reference", action_map="reference")
    ours = make(env, nx.path_graph(6), 0)
    assert isinstance(ours, MujocoWorld)
    ours.reset()
    theirs.reset()
    inner: Any = theirs._instances[0].unwrapped.single_agent_env.unwrapped  # type: ignore[attr-defined]
    inner.set_state(ours.batch.bind("qpos")[0].copy(), ours.batch.bind("qvel")[0].copy())
    rng = np.random.default_rng(0)
    for _ in range(200):
        actions = [rng.uniform(-1, 1, (1, 1)).astype(np.float32) for _ in range(6)]
        mine, other = ours.step(actions), theirs.step(actions)
        assert other.reward[:, 0] == pytest.approx(mine.reward[:, 0], abs=1e-6)
    for name in ("qpos", "qvel"):
        assert getattr(inner.data, name) == pytest.approx(ours.batch.bind(name)[0], abs=1e-6)
