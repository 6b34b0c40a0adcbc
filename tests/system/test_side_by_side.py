"""The comparison of the on-policy family: which rows it has, what it keeps, what a row tells."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.family import Row, doing_nothing, family, make, table
from scenarios.loading import load
from scenarios.recipes import RECIPES
from tests.system.stage import SMALL

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def test_it_has_every_on_policy_algorithm_and_each_row_can_be_run() -> None:
    on_policy = [name for name, recipe in RECIPES.items() if recipe.target == "advantage" and recipe.model == "none"]
    rows = family(both=True)
    assert [row.algorithm for row in rows if row.critic == "own"] == on_policy
    assert {"mappo", "happo"} <= {row.algorithm for row in rows if row.critic == "central"}
    assert [row.algorithm for row in family()] == on_policy
    assert {row.critic for row in family() if row.algorithm in ("mappo", "happo")} == {"central"}
    for row in rows:
        assert load("safe_halfcheetah_6x1", row.words).algorithm.name == row.algorithm


def test_rows_have_settings_of_their_own_and_those_that_take_turns_the_steps_for_as_many_updates() -> None:
    rows = {row.algorithm: row for row in family(settings={"ippo": ["algorithm.clip=0.1"]}, turn_steps=4000)}
    common = ["safe_ant_4x2", "budget.env_steps=1000"]
    loaded = {name: load(common[0], [*common[1:], *row.words]) for name, row in rows.items()}
    assert (loaded["ippo"].algorithm.clip, loaded["mappo"].algorithm.clip) == (0.1, 0.2)
    assert {name for name, one in loaded.items() if one.budget.env_steps == 4000} == {"alternating_ppo"}
    with pytest.raises(ValueError, match="--settings: got ipo; no such row"):
        family(settings={"ipo": []})


def test_the_first_row_is_a_team_that_does_nothing() -> None:
    still = doing_nothing(["safe_ant_4x2", "env.horizon=30"], 0)
    assert still.return_mean == pytest.approx(30, abs=5)
    assert still.progress_mean == pytest.approx(0, abs=5)
    assert (still.cost_mean, still.cost_limit) == (0.0, 50.0)
    assert (
        table([still])
        .splitlines()[-1]
        .startswith(f"| does nothing | – | {still.return_mean:.0f} | {still.progress_mean:.0f} | 0.0 | 50 |")
    )
    assert doing_nothing(["quickstart", "env.horizon=30"], 0).progress_mean is None


@pytest.mark.slow
def test_a_finished_run_is_kept_and_a_failed_one_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    common = ["quickstart", *SMALL, "record.tensorboard=false"]
    row = Row("mappo", ("algorithm.name=mappo", "algorithm.critic_scope=central"))
    assert make(row, [*common, "env.agents=nonsense"], 0, tmp_path) is None
    found = make(row, common, 3, tmp_path)
    assert found is not None
    assert (found.critic, found.seed, found.peer_bytes) == ("central", 3, 0.0)
    # JOINT 3 numbers a sample and ADVANTAGE 1, and what frames them
    assert found.central_bytes > 4 * (3 + 1)
    assert found.cost_limit is None
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("run again"))
    assert make(row, common, 3, tmp_path) == found
    assert f"| mappo | central | {found.return_mean:.0f} | – | 0.0 | – | 0.0 |" in table([found])
