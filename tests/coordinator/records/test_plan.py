"""Plans: every mistake that needs no process to be found is found before any process, or folder, exists."""

import json
import resource
import socket
import tempfile
from pathlib import Path

import pytest

from coordinator.records.plan import check_ports, check_start, descriptors, make_run_dir, plan
from scenarios.loading import ScenarioError, load
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.wire.keys import COORDINATOR, KEYS, WORLD_ROLE, Keyring, role_of


def lq(*overrides: str) -> Scenario:
    return load("quickstart", ["env.name=network_lq", "env.agents=4", "topology.kind=line", *overrides])


def test_a_plan_has_the_sizes_of_the_world_and_the_edges_in_order() -> None:
    ready = plan(lq("topology.kind=ring"))
    assert ready.deployment.edges == ((0, 1), (0, 3), (1, 2), (2, 3))
    assert ready.deployment.n_agents == len(ready.deployment.act_dims) == ready.spec.n_agents == 4
    assert ready.deployment.learns


def test_the_cost_limit_is_the_worlds_own_unless_the_scenario_gives_one() -> None:
    own = plan(load("quickstart")).deployment.cost_limits
    assert own == plan(load("quickstart")).spec.cost_limits
    assert plan(load("quickstart", ["algorithm.cost_limit=3.5"])).deployment.cost_limits == (3.5,) * len(own)


def refused(scenario: Scenario) -> str:
    with pytest.raises(ValueError) as told:
        plan(scenario)
    return str(told.value)


def test_processes_are_told_how_many_actions_there_are_to_choose_from() -> None:
    assert plan(load("differential_game")).deployment.n_discrete == (0, 0, 0)
    assert set(plan(load("matrix_climbing")).deployment.n_discrete) == {3}
    assert plan(load("stochastic_game", ["algorithm.name=iql"])).deployment.n_discrete == (5, 5, 5)


def test_tables_hold_choices_alone() -> None:
    table = ["algorithm.name=iql", "algorithm.off_policy.representation=table"]
    assert plan(load("stage_game", table)).deployment.n_discrete == (3, 3)
    assert "off_policy.representation: got 'table'; differential_game has continuous" in refused(load("differential_game", table))


def test_a_deployment_without_choices_is_one_of_continuous_actions() -> None:
    stored = plan(load("quickstart")).deployment.model_dump(exclude={"n_discrete"})
    assert Deployment.model_validate(stored).n_discrete == (0,) * 6


def test_graphs_that_do_not_fit_are_told(tmp_path: Path) -> None:
    path = tmp_path / "net.edges"
    keys = ("topology.kind=file", f"topology.file={path}")
    path.write_text("0 1\n1 2\n")
    assert "4" in refused(lq(*keys))
    path.write_text("0 1\n2 3\n")
    assert "falls into 2 parts" in refused(lq(*keys))
    path.write_text("0 1 5\n1 2 5\n2 nine 0.5\n")
    assert plan(lq(*keys)).deployment.labels == ("0", "1", "2", "nine")
    delays = (*keys, "topology.delay_from={attribute: weight, unit: ms}")
    assert plan(lq(*delays)).deployment.edge_latency_ms == (5, 5, 0.5)
    assert "latency_ms: got 0.5; delays would lie 1 ms around" in refused(
        lq(*delays, "network.latency_ms=3", "network.jitter_ms=1")
    )
    path.unlink()
    assert str(path) in refused(lq(*keys))
    assert "topology.rows: got 3" in refused(lq("topology.kind=grid", "topology.rows=3"))


@pytest.mark.parametrize("partition", ["4x2", "x1", "6x1 ", "four", ""])
def test_a_partition_that_the_robot_does_not_have_is_told(partition: str) -> None:
    assert "env.partition: got" in refused(load("quickstart", [f"env.partition='{partition}'"]))


def test_a_world_of_any_number_of_agents_takes_that_of_the_graphs_file(tmp_path: Path) -> None:
    path = tmp_path / "net.edges"
    path.write_text("0 1\n1 2\n2 3\n3 4\n")
    file = ["topology.kind=file", f"topology.file={path}"]
    ready = plan(load("quickstart", ["env.name=network_lq", *file]))
    assert (ready.spec.n_agents, ready.scenario.env.model_dump()["agents"]) == (5, 5)
    assert plan(load("quickstart", ["env.name=network_lq"])).scenario.env.model_dump()["agents"] == 6
    refusal = refused(load("matrix_climbing", [*file, "env.agents=null"]))
    assert "topology.file: got a graph of 5 nodes; matrix_game cannot have so many agents" in refusal
    assert "the world has 4 agents" in refused(lq(*file))  # a number that is given stays


def test_weights_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "agent-2.safetensors").touch()
    with pytest.raises(ScenarioError, match=r"no stored weights of agents \[0, 1, 3\]"):
        plan(lq(), weights=tmp_path)


def six_free_ports(start: int) -> int:
    """The first of six free ports in a row, below those (from 32768 on) that the system gives to whoever asks for any."""
    for first in range(start, 32000, 6):
        try:
            for port in range(first, first + 6):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first
    pytest.fail(f"no six free ports from {start} on")


def test_a_port_in_use_or_beyond_the_last_is_told_with_the_range_that_is_needed() -> None:
    first = six_free_ports(20000)
    with socket.create_server(("127.0.0.1", first + 3)):
        with pytest.raises(
            ScenarioError,
            match=rf"network\.port: port {first + 3} on 127\.0\.0\.1 .*needs {first}\.\.{first + 5}, or network\.port=0",
        ):
            check_ports(lq("network.transport=tcp", f"network.port={first}"), 4)
        check_ports(lq(f"network.port={first}"), 4)  # ipc: no port matters
    with pytest.raises(ScenarioError, match=r"6 ports from there end at 65536, above 65535"):
        check_ports(lq("network.transport=tcp", "network.port=65531"), 4)


def test_free_ports_are_free_again_after_the_check() -> None:
    first = six_free_ports(26000)
    for _ in range(2):
        check_ports(lq("network.transport=tcp", f"network.port={first}"), 4)


def test_a_host_that_is_not_this_machine_is_told(subtests: pytest.Subtests) -> None:
    for port in (0, 47000):
        for host in ("203.0.113.7", "no such host"):
            told = rf"network\.host: got '{host}'"
            with subtests.test(port=port, host=host), pytest.raises(ScenarioError, match=told):
                check_ports(lq("network.transport=tcp", f"network.host='{host}'", f"network.port={port}"), 4)


def test_a_temporary_folder_too_deep_for_ipc_sockets_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "d" * 90)
    with pytest.raises(ScenarioError, match=r"TMPDIR: got /ddd.*network\.transport=tcp"):
        check_ports(lq(), 4)
    check_ports(lq("network.transport=tcp"), 4)
    monkeypatch.setattr(tempfile, "tempdir", "/" + "d" * 78)
    check_ports(lq(), 4)


def test_a_run_directory_holds_all_that_its_processes_read(tmp_path: Path) -> None:
    ready = plan(lq("kappa=2"))
    run_dir = tmp_path / "deep" / "run"
    make_run_dir(run_dir, ready)
    assert load(str(run_dir / "scenario.yaml")) == ready.scenario
    assert Deployment.read(run_dir).model_copy(update={"run": ""}) == ready.deployment
    facts = json.loads((run_dir / "manifest.json").read_text())
    assert facts["seed"] == 0
    assert set(facts) == {"scenario", "seed", "commit", "python", "packages", "plugins", "system", "machine", "cores", "in_force"}
    assert facts["in_force"] == {"env.beta": 0.27}
    assert (run_dir / "logs").is_dir()


@pytest.mark.parametrize(
    ("words", "keyed"),
    [((), False), (("network.transport=tcp",), True), (("network.transport=tcp", "network.curve=false"), False)],
)
def test_a_run_over_tcp_gets_keys_for_every_role(tmp_path: Path, words: tuple[str, ...], keyed: bool) -> None:
    run_dir = tmp_path / "run"
    make_run_dir(run_dir, plan(lq(*words)))
    assert (run_dir / KEYS).is_dir() == keyed
    if keyed:
        assert Keyring.read(run_dir, COORDINATOR).others() == [WORLD_ROLE, *map(role_of, range(4))]


def test_an_occupied_or_unwritable_run_directory_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    ready = plan(lq())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ScenarioError, match=r"--out: .* already holds something; give a new or empty directory"):
        make_run_dir(tmp_path, ready)
    with pytest.raises(ScenarioError, match="already holds something"):
        make_run_dir(tmp_path / "file", ready)
    with pytest.raises(ScenarioError, match=r"--out: cannot write .*\(Not a directory\)"):
        make_run_dir(tmp_path / "file" / "below", ready)
    with pytest.raises(ScenarioError, match=r"--out: cannot write"):
        make_run_dir(tmp_path / ("x" * 300), ready)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_directory_may_be_used(tmp_path: Path) -> None:
    make_run_dir(tmp_path, plan(lq()))
    with pytest.raises(ScenarioError, match="already holds something"):
        make_run_dir(tmp_path, plan(lq()))


def test_traces_lead_to_their_file_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "up.trace").write_text("1\n2\n")
    monkeypatch.chdir(tmp_path)
    network = plan(
        load(
            "quickstart",
            [
                "network.preset=trace:up.trace",
                "network.edges=[{between: [0, 1], preset: trace:up.trace}]",
                "network.events=[{do: change, preset: trace:up.trace, from_s: 1}, {do: crash, agent: 0, from_s: 1}]",
            ],
        )
    ).scenario.network
    wanted = f"trace:{tmp_path / 'up.trace'}"
    assert (network.preset, network.edges[0].preset) == (wanted, wanted)
    assert [getattr(event, "preset", "none") for event in network.events] == [wanted, "none"]


def test_first_episodes_end_one_after_the_other_where_rounds_are_shorter(subtests: pytest.Subtests) -> None:
    rows: list[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = [
        (("env.num_envs=3", "env.horizon=100", "rollout.steps=20"), (34, 67, 100), (0, 1)),
        (("env.num_envs=1", "env.horizon=100", "rollout.steps=20"), (100,), ()),
        (("env.num_envs=3", "env.horizon=100", "rollout.steps=100"), (), ()),  # a round holds every phase anyway
        (("env.num_envs=3", "env.horizon=100", "rollout.steps=20", "env.stagger=false"), (), ()),
        (("env.num_envs=4", "env.horizon=100", "rollout.steps=20", "algorithm.preset=paper"), (), ()),
    ]
    for words, limits, cut in rows:
        with subtests.test(words=words):
            deployment = plan(lq(*words)).deployment
            assert (deployment.first_limits, deployment.cut_copies) == (limits, cut)


def test_an_evaluation_starts_all_copies_together(tmp_path: Path) -> None:
    for agent in range(6):
        (tmp_path / f"agent-{agent}.safetensors").touch()
    assert plan(load("quickstart")).deployment.first_limits
    assert plan(load("quickstart"), weights=tmp_path).deployment.first_limits == ()


def test_too_few_descriptors_are_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = plan(lq())
    needed = descriptors(ready)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, needed - 1))
    with pytest.raises(ScenarioError, match=rf"^ulimit -n: got {needed - 1}; .* need {needed} open files in one process"):
        check_start(ready, in_process=False)
    check_start(ready, in_process=True)


def test_processes_get_as_many_descriptors_as_they_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (60, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    check_start(plan(lq()), in_process=False)
    assert given == [(4096, 4096)]


@pytest.mark.parametrize("more", [[], ["routing=direct", "kappa=3"], ["algorithm.name=mappo", "algorithm.critic_scope=central"]])
def test_descriptors_grow_with_those_whom_a_process_talks_to(more: list[str]) -> None:
    few, many = (descriptors(plan(lq("topology.kind=ring", f"env.agents={n}", *more))) for n in (100, 200))
    assert many - few in (100, 300)
