"""Baselines: they meet the chance that evaluated teams meet, are kept beside a run, and stand in tables and figures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.evaluation.baselines import BASELINES_FILE, keep, kept, play
from coordinator.records.plan import Plan, plan
from coordinator.report.panels import Curves, gathered, sections
from coordinator.report.tables import cell_words
from coordinator.session import Session, Spectator
from coordinator.study.comparison import compare
from envs.registry import make
from scenarios.loading import ScenarioError, load

FEEDER = ["env.horizon=6", "env.num_envs=2", "env.cost=team", "evaluation.episodes=3"]


@pytest.fixture(scope="module")
def ready() -> Plan:
    return plan(load("voltage_33", FEEDER))


def test_means_are_those_of_the_first_episode_of_each_copy(ready: Plan) -> None:
    found = play(ready, "none", 3)
    env = ready.scenario.env.model_copy(update={"num_envs": 3})
    still = ready.deployment.model_copy(update={"learns": False})  # an evaluation's random streams
    world = make(env, ready.deployment.graph(), still.seed(ready.scenario))
    world.reset()
    steps = [world.step([np.zeros((3, 1), np.float32)] * 6) for _ in range(6)]
    episodes = steps[-1].episodes
    assert found.ret.mean == pytest.approx(np.mean([episode.ret for episode in episodes]))
    assert found.costs[0].mean == pytest.approx(np.sum([step.cost[0, :, 0] for step in steps], axis=0).mean(), rel=1e-5)
    assert list(found.measures) == [measure.name for measure in ready.spec.measures]
    assert found.measures["reactive power"].mean == 0.0
    assert found.measures["out of limits"].mean == pytest.approx(found.costs[0].mean / 6)


def test_policy_that_the_world_does_not_have_is_refused_with_those_it_has(ready: Plan) -> None:
    with pytest.raises(ScenarioError, match=r"'drop', did you mean 'droop'\?; expected one of none, droop, central, frugal"):
        play(ready, "drop", 1)
    with pytest.raises(ScenarioError, match="got 'droop'; network_lq has no policies of its own"):
        play(plan(load("lq_line20")), "droop", 1)


def test_what_baselines_came_to_is_kept_beside_a_run_and_shown_in_its_table_and_its_figures(
    recorded: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["env.name=voltage_33", "env.agents=2", "topology.kind=kinematic", "env.horizon=6"]
    folder = recorded(tmp_path / "run", *words, returns=[-1.0, -2.0], round_bytes=(10,))
    ready = plan(load(str(folder / "scenario.yaml")))
    droop, none = (play(ready, policy, 2) for policy in ("droop", "none"))
    for played in (none, replace(droop, episodes=99), droop):
        keep(played, folder, ready)
    assert kept(folder) == {"none": none, "droop": droop}
    found = compare([folder])
    assert found.baselines[""]["droop"] == (droop.ret.mean, droop.costs[0].mean)
    assert [name for name, _ in cell_words(found)[1]][-2:] == ["baseline none", "baseline droop"]
    panel = next(section for section in sections(gathered([folder])) if section.key == "return").panels[0]
    assert isinstance(panel, Curves)
    lines = {line.name: line for line in panel.over["steps"]}
    assert lines["baseline droop"].y.tolist() == [droop.ret.mean] * 2
    with pytest.raises(ScenarioError, match="another voltage_33"):
        keep(droop, folder, plan(load(str(folder / "scenario.yaml"), ["env.pv_mw=2"])))
    (folder / BASELINES_FILE).write_text('{"droop": 3}')
    with pytest.raises(ScenarioError, match="cannot be read"):
        kept(folder)


def test_evaluations_report_the_worlds_own_figures(ready: Plan, tmp_path: Path) -> None:
    words = [*FEEDER, "env.agents=2", "rollout.steps=6", "budget.env_steps=24", "algorithm.hidden=[4]", "algorithm.minibatches=1"]
    with Session(plan(load("voltage_33", words)), tmp_path / "run", in_process=True) as session:
        ended = session.run(Spectator())
    assert ended.metrics is not None
    means, cost = ended.metrics["eval_measures"], ended.metrics["eval_cost_mean"]
    assert cost is not None
    assert means.keys() == {measure.name for measure in ready.spec.measures}
    assert means["out of limits"] == pytest.approx(cost / 6)
