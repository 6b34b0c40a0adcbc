"""The grid of a sweep: what is typed becomes these cells, and what cannot be is told in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.study.grid import MAX_NAME, cells, seeds, split
from scenarios.loading import ScenarioError

LQ = ["env.name=network_lq", "env.agents=4"]


@given(ranges=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=4))
def test_seeds_are_every_number_of_every_range_once_and_ascending(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}..{first + more}" if more else str(first) for first, more in ranges)
    meant = [seed for first, more in ranges for seed in range(first, first + more + 1)]
    if len(set(meant)) < len(meant):
        with pytest.raises(ScenarioError, match="a seed comes twice"):
            seeds(text)
    else:
        assert seeds(text) == sorted(meant)


def test_what_is_no_list_of_seeds_is_refused(subtests: pytest.Subtests) -> None:
    rows: list[str] = ["", "a", "1,,2", "3..1", "-1", "1.5", "0..4294967296", "0..999999", "0...2", "99999999999"]
    for text in rows:
        with subtests.test(text=text), pytest.raises(ScenarioError, match=r"^--seeds: got "):
            seeds(text)


def test_commas_within_brackets_and_quotes_divide_nothing() -> None:
    assert split("1,2") == ["1", "2"]
    assert split("[64,64],[32, {a: 1, b: 2}]") == ["[64,64]", "[32, {a: 1, b: 2}]"]
    assert split("'a,]',\"b,\"") == ["'a,]'", '"b,"']
    assert split("a: 1 , b") == ["a: 1", "b"]
    assert split("") == [""]


@given(
    parts=st.lists(st.recursive(st.just("a"), lambda inner: st.lists(inner).map(lambda some: f"[{','.join(some)}]")), min_size=1)
)
def test_parts_joined_by_commas_come_apart_again(parts: list[str]) -> None:
    assert split(",".join(parts)) == parts


def test_what_is_no_list_of_values_is_refused(subtests: pytest.Subtests) -> None:
    for text in ("[1,2", "1,2]", "[1,2}", "'a,b", "1],[2", "1,,2", ",", "a, #b", "[" * 5000 + ","):
        with subtests.test(text=text), pytest.raises(ScenarioError, match=r"^got .*; expected values with commas between them"):
            split(text)


def test_cells_are_all_combinations_the_last_setting_fastest() -> None:
    found = cells("quickstart", [*LQ, "topology.kind=line,ring,star", "kappa=0,2"], [3, 5])
    assert [(cell.scenario.topology.kind, cell.scenario.kappa) for cell in found] == [
        (kind, kappa) for kind in ("line", "ring", "star") for kappa in (0, 2)
    ]
    assert [cell.name for cell in found][:2] == ["topology.kind=line,kappa=0", "topology.kind=line,kappa=2"]
    assert all(cell.scenario.seed == 3 and cell.n_agents == 4 for cell in found)
    assert found[0].seeded(5).seed == 5
    assert found[5].overrides == (*LQ, "topology.kind=star", "kappa=2")
    assert found[5].keys == {"env.name": "network_lq", "env.agents": 4, "topology.kind": "star", "kappa": 2}


def test_a_list_is_one_value() -> None:
    found = cells("quickstart", [*LQ, "topology.kind=line", "algorithm.hidden=[8,8],[4]"], [0])
    assert [cell.scenario.algorithm.hidden for cell in found] == [(8, 8), (4,)]
    assert [cell.name for cell in found] == ["algorithm.hidden=8-8", "algorithm.hidden=4"]


def test_a_range_is_its_whole_numbers() -> None:
    found = cells("quickstart", [*LQ, "topology.kind=line", "kappa=0..2,5"], [0])
    assert [cell.scenario.kappa for cell in found] == [0, 1, 2, 5]
    assert [cell.name for cell in found] == ["kappa=0", "kappa=1", "kappa=2", "kappa=5"]
    (one,) = cells("quickstart", [*LQ, "network.host=../a..b"], [0])
    assert one.scenario.network.host == "../a..b"


def test_labels_name_cells_in_their_order() -> None:
    grid = [*LQ, "topology.kind=line", "network.edges=[{between: [0, 1], latency_ms: 5}],[]", "kappa=0,1"]
    found = cells("quickstart", [*grid, "label=slow deaf,slow,deaf,near"], [0])
    assert [cell.name for cell in found] == ["slowdeaf", "slow", "deaf", "near"]
    assert [(cell.scenario.label, cell.scenario.kappa) for cell in found] == [
        ("slow deaf", 0), ("slow", 1), ("deaf", 0), ("near", 1)
    ]  # fmt: skip
    assert found[0].overrides[-1] == "label=slow deaf"
    assert found[0].keys["label"] == "slow deaf"
    assert {cell.scenario.label for cell in cells("quickstart", [*grid, "label=all"], [0])} == {"all"}


def test_without_anything_varied_there_is_one_cell_named_as_the_scenario() -> None:
    (cell,) = cells("quickstart", [*LQ, "topology.kind=line"], [0])
    assert cell.name == "quickstart"


def test_folders_are_told_apart_and_not_too_long() -> None:
    long = "x" * 200
    found = cells("quickstart", [*LQ, f"network.host='a/b','a b','a-b','ab',{long},{long}y"], [0])
    names = [cell.name for cell in found]
    assert names[:4] == ["network.host=a-b", "network.host=ab", "network.host=a-b-2", "network.host=ab-2"]
    assert len(set(names)) == 6
    assert max(map(len, names)) <= MAX_NAME + 2


def test_a_cell_that_cannot_be_run_is_told_before_anything_starts(subtests: pytest.Subtests) -> None:
    rows: list[tuple[list[str], str]] = [
        (["kappa"], "'kappa': expected key=value"),
        (["=1,2"], "'=1,2': expected key=value"),
        (["kappa=1,,2"], "kappa: got '1,,2'; expected values with commas between them"),
        (["kappa=1,2,1"], "kappa: value '1' is given twice"),
        (["kappa=1", "kappa=2"], "kappa: given twice"),
        (["algorithm.clip=0.1,0.10"], "algorithm.clip=0.10: the same as algorithm.clip=0.1"),
        (["name=x,y"], "name=y: the same as name=x"),
        (["seed=1,2"], "seed: give seeds with --seeds"),
        (["kapa=1,2"], "kapa=1: kapa: unknown key, did you mean 'kappa'?"),
        (["kappa=0..2,1"], "kappa: value '1' is given twice"),
        (["kappa=2..0"], "kappa: got '2..0'; expected an ascending range"),
        (["kappa=0..200000"], "kappa: got '0..200000'; expected an ascending range of at most 100,000 numbers"),
        (["kappa=0,1", "label=a,b,c"], "label: got 3 for 2 cells; give one for each, or one for all"),
        (["kappa=0,1", "label=a,a"], "label: value 'a' is given twice"),
        (["kappa=1,-2"], "kappa=-2: quickstart: kappa: got -2"),
        (["topology.kind=line,moon"], "topology.kind=moon: quickstart: topology.kind: got 'moon'"),
        (["topology.kind=line,grid", "topology.rows=3"], "topology.kind=grid: topology.rows: got 3"),
        (
            [f"algorithm.{setting}=" + ",".join(f"0.{i:03}" for i in range(1, 251)) for setting in ("gamma", "clip")],
            "125,000 runs",
        ),
    ]
    for words, told in rows:
        with subtests.test(words=words):
            with pytest.raises(ScenarioError) as refused:
                cells("quickstart", [*LQ, *words], [0, 1])
            assert str(refused.value).startswith(told)
            assert "\n" not in str(refused.value)
