"""The Python API: what it gives, how it fails, and that a caller keeps its streams, its signals and its processes."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import kappahop as kh
from coordinator.evaluation.baselines import kept
from coordinator.records.plan import plan
from coordinator.study.columns import Columns
from kappahop import api
from scenarios.schema import Scenario
from topology.planes.control import Gone, RoundReport
from topology.process import StopFlag

LQ: dict[str, Any] = {
    "env": {"name": "network_lq", "agents": 3, "num_envs": 2},
    "topology": {"kind": "line"},
    "rollout": {"steps": 20},
    "budget": {"env_steps": 400},
    "algorithm": {"hidden": [8], "minibatches": 1},
    "record": {"tensorboard": False, "state_rounds": 1},
    "evaluation": {"every_rounds": 0},
}
ROUNDS = 10
ENDLESS = LQ | {"budget": {"env_steps": 100_000_000}, "record": {"tensorboard": False}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> kh.Run:
    return kh.run("quickstart", out=tmp_path_factory.mktemp("api") / "run", in_process=True, **LQ)


# ------------------------------------------------------------------- the caller


@pytest.mark.system
@pytest.mark.exact
async def test_in_a_running_event_loop_it_trains_silently_and_as_in_one_process(
    trained: kh.Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    seen: list[kh.Round] = []
    run = kh.run("quickstart", out=tmp_path / "run", on_round=seen.append, **LQ)
    assert [signal.getsignal(number) for number in numbers] == before
    assert run.is_complete
    for key in ("weights_sha256", "ledger_sha256"):
        assert run.metrics[key] == trained.metrics[key]
    assert [one.round for one in seen] == list(range(ROUNDS))
    assert {len(one.agents) for one in seen} == {3}
    assert sum(one.wire_bytes for one in seen) == run.traffic(plane="peer")["wire_bytes"].sum() > 0
    assert capfd.readouterr() == ("", "")


def test_a_callback_stops_the_run_and_what_was_recorded_is_kept(tmp_path: Path) -> None:
    run = kh.run("quickstart", out=tmp_path / "run", in_process=True, on_round=lambda one: one.round < 3, **LQ)
    assert not run.is_complete
    assert run.rounds()["round"].max() == 3
    assert run.events()["text"].tolist() == ["stopped by on_round in round 3, env step 160"]


@pytest.mark.system
def test_an_error_of_a_callback_ends_the_run_and_is_the_callers(tmp_path: Path, no_leaks: None) -> None:
    def fail(one: kh.Round) -> None:
        raise ValueError("no such axis")

    with pytest.raises(ValueError, match=r"^no such axis$") as caught:
        kh.run("quickstart", out=tmp_path / "run", on_round=fail, **ENDLESS)
    assert not isinstance(caught.value, kh.ScenarioError)
    assert kh.open_run(tmp_path / "run").events()["text"][-1].startswith("stopped by ValueError in round ")


@pytest.mark.system
def test_interrupted_while_it_waits_it_stops_cleanly_and_can_be_resumed(tmp_path: Path, no_leaks: None) -> None:
    def interrupt(one: kh.Round) -> None:
        if one.round == 2:  # a moment later, when the calling thread waits again
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt) as caught:
        kh.run("quickstart", out=tmp_path / "run", on_round=interrupt, **(LQ | {"budget": {"env_steps": 1_000_000}}))
    assert "kappahop.resume goes on" in caught.value.__notes__[0]
    run = kh.open_run(tmp_path / "run")
    assert not run.is_complete
    assert run.metrics["env_steps"] > 0
    assert run.events()["text"][-1].startswith("interrupted in round ")
    last = run.rounds()["round"].max()
    again = kh.resume(run, in_process=True, on_round=lambda one: one.round <= last)
    assert again.rounds()["round"].max() == last + 1


@pytest.mark.system
def test_a_killed_caller_leaves_no_process(tmp_path: Path, no_leaks: None) -> None:
    # a child that the caller has forked holds all its descriptors open, the fork server's input among them
    script = (
        "import kappahop as kh, multiprocessing as mp, time\n"
        "def show(one):\n"
        "    if one.round == 0:\n"
        "        mp.get_context('fork').Process(target=time.sleep, args=(60,)).start()\n"
        "        print(one.round, flush=True)\n"
        f"kh.run('quickstart', out='run', on_round=show, **{ENDLESS!r})\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, env=os.environ | here()
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"0\n"
        started = psutil.Process(caller.pid).children(recursive=True)
        assert len(started) == 6  # fork server, world, three nodes, and the caller's own
        ours = [child for child in started if child.cmdline()[0].startswith("kappahop")]
        (own,) = set(started) - set(ours)
        caller.kill()
    _, alive = psutil.wait_procs(ours, timeout=20)
    assert own.is_running()
    own.kill()
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


def test_asked_aside_what_the_work_waits_for_is_done_in_the_calling_thread() -> None:
    here = threading.get_ident()
    where: list[int] = []

    def work(aside: Any) -> str:
        assert threading.get_ident() != here
        aside(lambda: where.append(threading.get_ident()), wait=True)
        assert where == [here]
        return "done"

    assert api._conduct(work, StopFlag()) == "done"


def test_torch_that_has_computed_before_is_told_and_processes_are_exact_all_the_same(tmp_path: Path) -> None:
    script = (
        "import torch; torch.ones(64, 64) @ torch.ones(64, 64)\n"
        "import kappahop as kh\n"
        "from node.numerics.products import mode\n"
        f"run = kh.run('quickstart', out='run', **{LQ!r})\n"
        "print(mode(), run.metrics['weights_sha256'], run.policy(0).is_exact)\n"
        "try:\n"
        f"    kh.run('quickstart', out='alone', in_process=True, **{LQ!r})\n"
        "except kh.ScenarioError as error: print(error)\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"} | here()
    told = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    ).stdout
    mode, digest, is_exact, *rest = told.split(maxsplit=3)
    if mode != "1":
        pytest.skip("torch multiplies without MKL here")
    assert digest == kh.run("quickstart", out=tmp_path / "other", in_process=True, **LQ).metrics["weights_sha256"]
    assert is_exact == "False"
    assert rest[0].startswith("in_process: results would depend on memory addresses")
    assert not (tmp_path / "alone").exists()


def here() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(kh.__file__).parents[1])}


# -------------------------------------------------------------------- what it gives


def test_importing_it_costs_neither_torch_nor_pydantic_and_every_name_is_there() -> None:
    script = "import sys, kappahop; print(*sorted({'torch', 'pydantic', 'networkx', 'zmq'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", script], env=os.environ | here(), capture_output=True, text=True, check=True)
    assert told.stdout == "\n"
    assert all(getattr(kh, name).__doc__ for name in kh.__all__)
    assert set(kh.__all__) <= set(dir(kh))
    with pytest.raises(AttributeError, match="no attribute 'walk'"):
        kh.walk  # noqa: B018


def test_a_runs_tables_say_what_its_metrics_say(trained: kh.Run) -> None:
    metrics, curves = trained.metrics, trained.curves()
    assert curves.n_rows == ROUNDS
    assert curves["env_step"][-1] == metrics["env_steps"] == 400
    assert curves["wire_bytes"][-1] == trained.traffic(plane="peer")["wire_bytes"].sum() == metrics["wire_bytes"]
    assert curves["return"][-1] == pytest.approx(metrics["return_mean"])
    state = trained.traffic(kind="STATE")
    assert set(state["kind"]) == {"STATE"}
    assert 0 < state["wire_bytes"].sum() < metrics["wire_bytes"]
    assert np.isfinite(trained.rounds()["kl"]).sum() == 3 * ROUNDS
    assert trained.returns().shape == trained.violations()["exceeds"].shape
    assert trained.episodes().to_pandas()["return"].tolist() == trained.returns().tolist()
    with pytest.raises(kh.ScenarioError, match=r"^kind: got 'STAT'; the run has .*STATE"):
        trained.traffic(kind="STAT")


def test_violations_are_counted_against_the_limit(tmp_path: Path) -> None:
    run = kh.run("lq_limited", out=tmp_path / "run", in_process=True, **LQ)
    found = run.violations()
    limit = run.metrics["cost_limit"]
    assert limit is not None
    assert found["exceeds"].tolist() == [cost > limit for cost in run.episodes()["cost_0"]]


def test_without_pandas_a_sentence_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="to_pandas needs pandas, which is not installed here: pip install pandas"):
        Columns({}).to_pandas()


def test_an_evaluation_is_a_run_that_learns_nothing(trained: kh.Run) -> None:
    calm = kh.evaluate(trained, in_process=True, episodes=4, seed=5)
    lossy = kh.evaluate(trained, in_process=True, episodes=4, seed=5, network={"loss_prob": 0.9})
    assert calm.folder.parent == trained.folder
    assert len(calm.returns()) == len(lossy.returns()) == 4
    assert lossy.traffic(kind="STATE")["dropped"].sum() > 0 == calm.traffic(kind="STATE")["dropped"].sum()


def test_a_baseline_plays_in_a_scenario_and_is_kept_beside_a_run(tmp_path: Path) -> None:
    env = {"horizon": 4, "num_envs": 2}
    alone = kh.evaluate("voltage_33", policy="droop", episodes=3, env=env)
    assert isinstance(alone, kh.Played)
    assert alone == kh.evaluate(kh.load_scenario("voltage_33", env=env), policy="droop", episodes=3)
    assert (alone.policy, alone.episodes) == ("droop", 3)
    small: dict[str, Any] = {
        "rollout": {"steps": 4},
        "budget": {"env_steps": 8},
        "algorithm": {"hidden": [4]},
        "evaluation": {"every_rounds": 0},
    }
    run = kh.run("voltage_33", out=tmp_path / "run", in_process=True, env=env, **small)
    assert kh.evaluate(run, policy="droop", episodes=3) == alone
    assert list(kept(run.folder)) == ["droop"]
    for wrong, told in (
        ({"policy": "drop"}, "policy: got 'drop', did you mean 'droop'"),
        ({"policy": "droop", "in_process": True}, "in_process: means nothing with policy"),
    ):
        with pytest.raises(kh.ScenarioError, match=told):
            kh.evaluate(run, **wrong)
    with pytest.raises(kh.ScenarioError, match="run: got a scenario; expected a run or its folder"):
        kh.evaluate(kh.load_scenario("voltage_33"))  # type: ignore[call-overload]


def test_settings_are_sections_dotted_keys_and_arrays(tmp_path: Path) -> None:
    dotted: dict[str, Any] = {"algorithm.clip": np.float64(0.25)}
    first = kh.load_scenario("quickstart", network={"codec": {"state": "float16"}}, **dotted)
    assert (first.network.codec.state, first.algorithm.clip) == ("float16", 0.25)
    second = kh.load_scenario(first, kappa=np.int64(0), algorithm={"hidden": (16, 16)})
    assert (second.kappa, second.algorithm.hidden, second.algorithm.clip) == (0, (16, 16), 0.25)
    assert isinstance(second, Scenario)
    for wrong, told in (
        ({"routing": "straight"}, "routing: got 'straight'"),
        ({"network": {"delivry": 1}}, "network.delivry: unknown key, did you mean 'network.delivery"),
        ({"kappa": True}, "kappa: got true"),
    ):
        with pytest.raises(kh.ScenarioError, match=told.replace("?", r"\?")):
            kh.load_scenario("quickstart", **wrong)


def test_errors_name_the_cause_and_the_folder_in_words_of_python(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("taken")
    with pytest.raises(kh.ScenarioError, match=r"^out: .*file already holds something"):
        kh.run("quickstart", out=tmp_path / "file", in_process=True, **LQ)
    wild = LQ | {"algorithm": {"hidden": [8], "minibatches": 1, "actor_lr": 1e12}}
    with pytest.raises(kh.RunFailedError, match="diverged at step") as caught:
        kh.run("quickstart", out=tmp_path / "run", in_process=True, **wild)
    assert caught.value.folder == tmp_path / "run"
    assert caught.value.cause.startswith("agent ")
    with pytest.raises(kh.ScenarioError, match="it would again"):
        kh.resume(tmp_path / "run")
    with pytest.raises(kh.ScenarioError, match="a folder of runs, not a run"):
        kh.open_run(tmp_path)


def test_doubts_are_logged_and_printed_only_with_the_bar(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    tight = LQ | {"network": {"rate_bps": 100}}
    with caplog.at_level(logging.WARNING, "kappahop"):
        kh.run("quickstart", out=tmp_path / "quiet", in_process=True, **tight)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages
    kh.run("quickstart", out=tmp_path / "shown", in_process=True, progress=True, **tight)
    out, err = capfd.readouterr()
    assert out == ""
    assert caplog.messages[0].split()[0] in err
    assert "400 of 400 steps" in err


# ----------------------------------------------------------------------- policies


GAME: dict[str, Any] = {
    "env": {"name": "sharing_game", "agents": 3, "num_envs": 2},
    "topology": {"kind": "line"},
    "rollout": {"steps": 20},
    "budget": {"env_steps": 200},
    "record": {"tensorboard": False},
    "evaluation": {"every_rounds": 0},
}


def test_a_policy_acts_on_rows_as_its_module_says(trained: kh.Run) -> None:
    policy = trained.policy(1)
    env = kh.make_env(trained.scenario, num_envs=5)
    rows = policy.gather(env.reset())
    env.close()
    assert (policy.agents, rows.shape) == ((0, 1, 2), (5, policy.width))
    actions = policy(rows)
    assert actions.dtype == np.float32
    assert (policy(rows) == actions).all()
    assert policy(rows[3]) == pytest.approx(actions[3], rel=1e-5)
    import torch

    assert policy.module(torch.from_numpy(rows)).detach().numpy() == pytest.approx(actions, rel=1e-5)
    drawn = policy(rows, deterministic=False)
    assert (drawn != actions).all()
    assert (trained.policy(1)(rows, deterministic=False) == drawn).all()
    assert (policy(rows, deterministic=False) != drawn).all()
    with pytest.raises(ValueError, match=r"observation: got shape \(5, 2\); expected \(B, 3\)"):
        policy(rows[:, :2])
    with pytest.raises(kh.ScenarioError, match="agent: got 3; expected 0 to 2"):
        trained.policy(3)
    with pytest.raises(kh.ScenarioError, match=r"no weights in .*; there are final \(checkpoint\)"):
        trained.policy(1, "best")


@pytest.mark.parametrize("representation", ["network", "table"])
def test_policies_made_of_values_act_and_draw_nothing(tmp_path: Path, representation: str) -> None:
    algorithm = {"name": "ma2ql", "off_policy": {"representation": representation}}
    run = kh.run("quickstart", out=tmp_path / "run", in_process=True, algorithm=algorithm, **GAME)
    policy = run.policy(0)
    rows = np.eye(policy.width, dtype=np.float32)
    chosen = policy(rows)
    assert set(chosen.ravel()) <= set(range(policy.n_discrete))
    with pytest.raises(ValueError, match="draws nothing"):
        policy(rows, deterministic=False)
    if representation == "network":
        import torch

        assert (policy.module(torch.from_numpy(rows)).argmax(1).numpy() == chosen[:, 0]).all()
    else:
        with pytest.raises(LookupError):
            policy.module  # noqa: B018


# -------------------------------------------------------------------------- sweeps


def test_a_sweep_goes_on_compares_and_reports(tmp_path: Path) -> None:
    settings = {**LQ, "record": {"tensorboard": False}}
    both = kh.sweep("quickstart", {"kappa": (0, 1)}, seeds=[3], out=tmp_path / "sweep", in_process=True, **settings)
    made = [(run.folder / "run.sqlite").stat().st_mtime_ns for run in both.runs]
    both = kh.sweep("quickstart", {"kappa": (0, 1)}, seeds=[3], out=tmp_path / "sweep", in_process=True, **settings)
    assert [(run.folder / "run.sqlite").stat().st_mtime_ns for run in both.runs] == made
    table = both.table()
    assert table["kappa"].tolist() == [0, 1]
    assert table["return_mean"].tolist() == [run.metrics["return_mean"] for run in both.runs]
    assert [row.cell.name for row in both.compare().rows] == ["kappa=0", "kappa=1"]
    assert kh.compare(*both.runs).rows[1].iqm == both.compare().rows[1].iqm
    assert both.report(tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(kh.ScenarioError, match="kappa: got -1"):
        kh.sweep("quickstart", {"kappa": [-1]}, seeds=[3], out=tmp_path / "other", **settings)
    with pytest.raises(kh.ScenarioError, match="a sweep, not a run"):
        kh.open_run(tmp_path / "sweep")


def test_rounds_are_told_whole_and_in_order_however_reports_overtake_each_other() -> None:
    ready = plan(kh.load_scenario("quickstart", **LQ))
    told: list[kh.Round] = []
    rounds = api._Rounds(ready, told.append)

    def reported(*pairs: tuple[int, int]) -> None:
        for agent, number in pairs:
            report = RoundReport(
                role=f"node-{agent}", agent=agent, round=number, virtual_s=1.0, metrics={"kl": float(agent)}, traffic=()
            )
            for tell in rounds.take(report):
                tell()

    reported((0, 0), (1, 0), (0, 1), (1, 1))
    assert told == []
    reported((2, 0))
    assert [(one.round, one.env_step, sorted(one.agents), one.metrics) for one in told] == [(0, 40, [0, 1, 2], {"kl": 1.0})]
    for tell in rounds.take(Gone(agent=2)):
        tell()
    assert [(one.round, sorted(one.agents)) for one in told[1:]] == [(1, [0, 1])]
