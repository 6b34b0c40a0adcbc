"""Runs in environments of other packages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

import kappahop as kh
from coordinator.report.film import HIGH, TITLE, WIDE
from tests.envs.adapters.fakes import LENGTH

SMALL: dict[str, Any] = {
    "env": {"name": "pettingzoo", "make": "uneven", "num_envs": 2},
    "rollout": {"steps": 14},
    "budget": {"env_steps": 112},
    "record": {"tensorboard": False, "state_rounds": 1},
    "evaluation": {"every_rounds": 0, "episodes": 1},
}


VALUES: dict[str, Any] = {"off_policy": {"warm_up_steps": 28, "batch": 16}}
LEARNERS: dict[str, dict[str, Any]] = {
    "scal_mappo_l": {"minibatches": 1},
    "mappo": {"critic_scope": "central", "minibatches": 1},
    "iql": VALUES,
    "qmix": VALUES,
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_with_unequal_agents_that_end_early_learns_and_resumes_exactly(name: str, tmp_path: Path) -> None:
    learner = {"name": name, "hidden": [8]} | LEARNERS[name]
    settings = SMALL | {"env": SMALL["env"] | {"make_kwargs": {"chooses": name == "qmix"}}}
    whole = kh.run("quickstart", out=tmp_path / "whole", in_process=True, algorithm=learner, **settings)
    assert set(whole.episodes()["length"]) == {LENGTH}
    cut = kh.run(
        "quickstart", out=tmp_path / "cut", in_process=True, algorithm=learner, on_round=lambda one: one.round < 2, **settings
    )
    assert not cut.is_complete
    assert np.nanmax(cut.rounds()["value_loss"]) > 0
    again = kh.resume(cut, in_process=True)
    assert again.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    assert np.array_equal(again.episodes()["return"], whole.episodes()["return"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"algorithm": {"name": "mdpo"}}, r"algorithm\.model: got '.*'; in pettingzoo agents may end"),
        (
            {"algorithm": {"name": "iql", "off_policy": {"representation": "recurrent"}}},
            r"algorithm\.off_policy\.representation: got 'recurrent'; in pettingzoo agents may end",
        ),
        (
            {"algorithm": {"name": "qmix"}, "network": {"codec": {"joint": "int8"}}},
            r"network\.codec\.joint: got 'int8', which rounds small numbers to 0",
        ),
    ],
)
def test_what_does_not_know_agents_that_end_early_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(kh.ScenarioError, match=told):
        kh.run("quickstart", **SMALL | {"env": SMALL["env"] | {"make_kwargs": {"chooses": True}}} | settings)


def test_a_film_shows_what_the_environment_renders(tmp_path: Path) -> None:
    run = kh.run("quickstart", out=tmp_path / "run", in_process=True, algorithm={"name": "ippo", "hidden": [8]}, **SMALL)
    kh.evaluate(run, film=tmp_path / "film.gif", episodes=2, in_process=True, env={"horizon": LENGTH})
    with Image.open(tmp_path / "film.gif") as film:
        frames = [np.asarray(frame.convert("RGB"), np.int64) for frame in ImageSequence.Iterator(film)]
    middle, above = (TITLE + HIGH // 2, WIDE // 2), (TITLE + 20, WIDE // 2)  # 30 x 90 pixels are a band 160 high
    assert [int(frame[middle].mean()) for frame in frames] == pytest.approx([40 * step for step in range(LENGTH)], abs=8)
    assert all(frame[above].min() > 240 for frame in frames)
    blind = {"make_kwargs": {"render_mode": "human"}}
    with pytest.raises(kh.ScenarioError, match=r"film: world 'uneven', copy 0: frame: got NoneType; expected a picture"):
        kh.evaluate(run, film=tmp_path / "blind.gif", env=blind, in_process=True)
    assert not (tmp_path / "blind.gif").exists()


OF_VALUES = {"epsilon_start": 1, "epsilon_end": 1, "warm_up_steps": 0, "updates_per_step": 0.2, "target_keep": 0.95}


@pytest.mark.parametrize("learner", [
    {"name": "qmix", "critic_lr": 0.02, "max_grad_norm": 1000, "off_policy": OF_VALUES},
    {"name": "mappo", "critic_scope": "central", "actor_lr": 0.02, "critic_lr": 0.02, "minibatches": 1},
])  # fmt: skip
def test_a_team_learns_the_best_where_one_ends_before_the_other(learner: dict[str, Any], tmp_path: Path) -> None:
    settings = SMALL | {
        "env": {"name": "pettingzoo", "make": "handover", "num_envs": 10},
        "rollout": {"steps": 20},
        "budget": {"env_steps": 1600},
    }
    algorithm = {"hidden": [16], "gamma": 1.0, "input_norm": "none"} | learner
    run = kh.run("quickstart", out=tmp_path / "run", in_process=True, algorithm=algorithm, **settings)
    assert set(kh.evaluate(run, episodes=10, in_process=True).returns()) == {4.0}
