"""The yardstick of worlds that know their optimum."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coordinator.study.optimum import optimum
from coordinator.study.runs import find
from envs.networks.lq import best_local_gain, best_return, dynamics
from envs.networks.settings import LQ
from topology.deployment import Deployment

RecordRun = Callable[..., Path]


def test_of_a_linear_network_it_is_what_the_best_gain_of_its_hops_returns(tmp_path: Path, record_run: RecordRun) -> None:
    for kappa in (0, 1):
        words = ["env.agents=3", "env.horizon=30", f"kappa={kappa}"]
        record_run(tmp_path / str(kappa), *words, returns=[1.0] * 8)
    near, far = (run for run in find([tmp_path]))
    graph, lq = Deployment.read(near.folder).graph(), near.scenario.env
    assert isinstance(lq, LQ)
    rng = np.random.default_rng(0)
    for run, kappa in ((near, 0), (far, 1)):
        a, (_, gain) = dynamics(graph, lq), best_local_gain(graph, kappa, lq)
        x, total = rng.standard_normal((40_000, 3)), np.zeros(40_000)
        for _ in range(30):
            u = -x @ gain.T
            total -= (x**2 + lq.control_weight * u**2).mean(axis=1)
            x = x @ a.T + u + lq.noise_std * rng.standard_normal(x.shape)
        found = optimum(run)
        assert found == best_return(graph, lq, kappa, 30)
        assert found == pytest.approx(total.mean(), abs=4 * total.std() / 200)
    assert (optimum(near) or 0.0) < (optimum(far) or 0.0)


def test_of_an_older_run_that_does_not_say_its_horizon_it_is_not_known(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path, returns=[1.0] * 8)
    Deployment.read(tmp_path).model_copy(update={"horizon": 0}).write(tmp_path)
    (run,) = find([tmp_path])
    assert optimum(run) is None


@pytest.mark.parametrize(
    ("words", "hops"),
    [
        (["env.observation=full"], 3),
        (["algorithm.actor_scope=global", "algorithm.critic_scope=global"], 3),
        (["algorithm.name=ippo"], 0),
    ],
)
def test_of_a_linear_network_it_goes_by_what_actors_see(
    words: list[str], hops: int, tmp_path: Path, record_run: RecordRun
) -> None:
    record_run(tmp_path, "env.agents=3", "env.horizon=30", "kappa=1", *words, returns=[1.0] * 8)
    (run,) = find([tmp_path])
    assert optimum(run) == best_return(Deployment.read(run.folder).graph(), LQ(agents=3), hops, 30)


def test_of_a_game_it_is_the_best_of_all_and_elsewhere_there_is_none(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "game", "env.name=matrix_game", "env.agents=2", "algorithm.name=ippo", returns=[1.0] * 8)
    record_run(tmp_path / "limited", "env.control_limit=0.1", returns=[1.0] * 8)
    game, limited = find([tmp_path])
    assert optimum(game) == 11.0  # the climbing game's best joint action
    assert optimum(limited) is None
