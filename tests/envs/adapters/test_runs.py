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


@pytest.mark.parametrize("name", ["scal_mappo_l", "iql"])
def test_a_run_with_unequal_agents_that_end_early_learns_and_resumes_exactly(name: str, tmp_path: Path) -> None:
    learner = {"name": name, "hidden": [8]} | ({"minibatches": 1} if name != "iql" else {})
    if name == "iql":
        with pytest.raises(kh.ScenarioError, match=r"algorithm\.off_policy\.representation: got 'recurrent'"):
            kh.run("quickstart", algorithm=learner | {"off_policy": {"representation": "recurrent"}}, **SMALL)
    whole = kh.run("quickstart", out=tmp_path / "whole", in_process=True, algorithm=learner, **SMALL)
    assert set(whole.episodes()["length"]) == {LENGTH}
    cut = kh.run(
        "quickstart", out=tmp_path / "cut", in_process=True, algorithm=learner, on_round=lambda one: one.round < 2, **SMALL
    )
    assert not cut.is_complete
    again = kh.resume(cut, in_process=True)
    assert again.metrics["weights_sha256"] == whole.metrics["weights_sha256"]
    assert np.array_equal(again.episodes()["return"], whole.episodes()["return"])


def test_central_critics_are_refused_where_agents_may_end_early() -> None:
    with pytest.raises(kh.ScenarioError, match=r"algorithm\.critic_scope: got 'central'; in pettingzoo agents may end"):
        kh.run("quickstart", algorithm={"name": "mappo", "critic_scope": "central"}, **SMALL)


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
