"""Names from outside: registered by a program, named by import path, used by a scenario, and known to the processes it starts."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from coordinator.cli.app import app
from coordinator.records.plan import check_start, plan, register_as
from coordinator.records.plan import make_run_dir as make
from scenarios import registry
from scenarios.loading import ScenarioError, dump, load
from scenarios.plugins import allowance, register_objective, register_preset, register_recipe, used_by
from scenarios.recipes import RECIPES, Recipe
from scenarios.registry import LINK_PRESETS, REGISTRIES, RegistryError, allowing_code, environment
from topology.link.model import LinkSpec
from topology.link.presets import PRESETS, named

LQ = ["env.name=network_lq", "env.agents=3"]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = [(one, dict(one._registered()), dict(one._resolved)) for one in REGISTRIES.values()]
    path = list(sys.path)
    yield
    for one, added, resolved in before:
        one._added, one._resolved = added, resolved
    sys.path[:] = path


def test_the_tables_of_names_are_those_of_the_code(subtests: pytest.Subtests) -> None:
    assert [*registry.ALGORITHMS.own] == [*RECIPES]
    assert {*LINK_PRESETS.own} == {*PRESETS, "5g"}
    for one in REGISTRIES.values():
        for name in one.own:
            with subtests.test(kind=one.kind, name=name):
                assert one.resolve(name) is not None


def test_a_registered_recipe_is_an_algorithm_and_a_preset_a_medium() -> None:
    register_recipe("mine", Recipe(actor_scope="local", critic_scope="khop", order="fixed", factor="none", source="here"))
    register_preset("road", {"preset": "lan", "latency_ms": 7})
    chosen = load("quickstart", [*LQ, "algorithm.name=mine", "network.preset=road"])
    assert chosen.algorithm.recipe.critic_scope == "khop"
    assert named("road").delay_s == 0.007
    assert [(one.kind, one.name, one.target) for one in used_by(chosen)] == [("recipe", "mine", ""), ("link preset", "road", "")]
    with pytest.raises(RegistryError, match="recipe 'mine': registered as an object that other processes cannot import; put it"):
        check_start(plan(chosen), in_process=False)
    check_start(plan(chosen), in_process=True)
    with pytest.raises(ScenarioError, match=r"algorithm\.name: got 'mien', did you mean 'mine'\?"):
        load("quickstart", ["algorithm.name=mien"])


def test_what_a_name_stands_for_is_checked() -> None:
    register_recipe("odd", {"actor_scope": "local"})
    with pytest.raises(ScenarioError, match=r"name: recipe 'odd': got dict; expected scenarios\.recipes\.Recipe"):
        load("quickstart", ["algorithm.name=odd"])
    register_recipe("typo", Recipe(actor_scope="loca", critic_scope="khop", order="fixed", factor="none", source=""))  # type: ignore[arg-type]
    with pytest.raises(ScenarioError, match="recipe 'typo': actor_scope: got 'loca'; expected one of local, khop, global"):
        load("quickstart", ["algorithm.name=typo"])
    register_preset("wrong", 3)
    register_preset("slow", {"latency_s": 1})
    register_preset("fine", LinkSpec(delay_s=1.0))
    assert named("fine").delay_s == 1.0
    with pytest.raises(ValueError, match="preset: 'wrong' stands for int; expected a Preset, a LinkSpec or link attributes"):
        named("wrong")
    with pytest.raises(ValueError, match="preset: 'slow': latency_s: Extra inputs are not permitted"):
        named("slow")


def test_presets_of_a_scenario_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("network: {preset: near}\npresets: {near: {preset: lte, latency_ms: 5, jitter_ms: 0}}\n")
    chosen = load(str(path), LQ)
    assert named("near", chosen.presets).delay_s == 0.005
    assert plan(chosen).scenario.presets == chosen.presets
    assert used_by(chosen) == ()
    for words, told in (
        ("presets.lan={preset: lte}", "presets: got 'lan', a name that is taken"),
        ("presets.far={preset: near}", "presets.far.preset: got 'near'; it must not start from a preset of"),
        (
            "network.presets.far={preset: lte}",
            "no longer a setting; link presets stand at the top level .* presets.far ",
        ),
    ):
        with pytest.raises(ScenarioError, match=told):
            load(str(path), [*LQ, words])


def test_presets_that_an_older_run_kept_in_its_section_network_are_read(tmp_path: Path) -> None:
    near = {"near": {"preset": "lte", "latency_ms": 5}}
    kept = yaml.safe_load(dump(load("quickstart", [*LQ, "network.preset=near", "presets.near={preset: lte, latency_ms: 5}"])))
    assert kept.pop("presets")["near"]["latency_ms"] == 5
    path = tmp_path / "kept.yaml"
    path.write_text(yaml.safe_dump(kept | {"network": kept["network"] | {"presets": near}}))
    assert load(str(path)).presets["near"].latency_ms == 5
    path.write_text(yaml.safe_dump({"network": {"presets": near}}))
    with pytest.raises(ScenarioError, match=r"network\.presets: no longer a setting; .* so write presets instead"):
        load(str(path))


def test_code_is_named_by_import_path_only_where_the_caller_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_recipe_of_a_test.py").write_text(
        "from pathlib import Path\nfrom scenarios.recipes import RECIPES\nPath('ran').touch()\nMINE = RECIPES['ippo']\n"
    )
    words = [*LQ, "algorithm.name=my_recipe_of_a_test:MINE"]
    with pytest.raises(ScenarioError, match=r"code by its import path; reading a scenario must not run code.*--allow-code"):
        load("quickstart", words)
    assert not (tmp_path / "ran").exists()
    with allowing_code():
        chosen = load("quickstart", words)
    assert (tmp_path / "ran").exists()
    assert chosen.algorithm.recipe == RECIPES["ippo"]
    make(tmp_path / "run", plan(chosen))
    facts = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert facts["plugins"] == [
        {"kind": "recipe", "name": words[-1][15:], "target": words[-1][15:], "origin": "module my_recipe_of_a_test"}
    ]


def test_a_process_that_is_started_knows_what_was_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment() == {}
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "objectives_of_a_test.py").write_text("class Mine: ...\n")
    register_objective("mine", "objectives_of_a_test:Mine")
    code = "from scenarios.registry import OBJECTIVES as o; print(o.origin('mine'), o.resolve('mine').__name__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment(), cwd=tmp_path.parent, check=True, capture_output=True, text=True
    )
    assert done.stdout == "module objectives_of_a_test Mine\n"


def test_names_that_a_run_had_registered_are_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "recipe_of_a_test.py").write_text("from scenarios.recipes import RECIPES\nMINE = RECIPES['ippo']\n")
    register_recipe("mine", "recipe_of_a_test:MINE")
    make(tmp_path / "run", plan(load("quickstart", [*LQ, "algorithm.name=mine"])))
    registry.ALGORITHMS._added.clear()
    registry.ALGORITHMS._resolved.clear()
    scenario = str(tmp_path / "run" / "scenario.yaml")
    with pytest.raises(ScenarioError, match=r"algorithm\.name: got 'mine'"):
        load(scenario)
    register_as(tmp_path / "run")
    again = load(scenario)
    assert again.algorithm.recipe == RECIPES["ippo"]
    assert (allowance(again), allowance(load("quickstart"))) == (["--allow-code"], [])
    (tmp_path / "run" / "manifest.json").write_text('{"plugins": [{"kind": "recipe"}]}')
    with pytest.raises(ScenarioError, match="it is not as a run writes it"):
        register_as(tmp_path / "run")


def test_runs_of_a_world_that_is_not_here_are_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("env: {name: elsewhere, num_envs: 3, rooms: 7}\n")
    with pytest.raises(ScenarioError, match=r"env\.name: got 'elsewhere'"):
        load(str(path))
    assert load(str(path), resolve_worlds="if known").env.model_dump()["rooms"] == 7
    path.write_text("env: {name: network_lq, rooms: 7}\n")
    with pytest.raises(ScenarioError, match=r"env\.rooms: unknown key"):
        load(str(path), resolve_worlds="if known")


def test_list_shows_names_and_where_they_come_from() -> None:
    def listed(*words: str) -> Any:
        return CliRunner().invoke(app, ["list", *words])

    register_preset("road", "my_roads:ROAD")
    assert re.search(r"lora-sf7 +│ kappahop", listed("presets").output)
    assert re.search(r"road +│ module my_roads", listed("presets").output)
    (row,) = [line for line in listed("plugins").output.splitlines() if "road" in line]
    assert row.split("│")[1:4] == [" link preset ", " road ", " module my_roads "]
    assert "network_lq" in listed("worlds").output
    assert "hatrpo" in listed("algorithms").output
    assert "quickstart" in listed().output
    refused = listed("wrlds")
    assert refused.exit_code == 2
    assert "got 'wrlds', did you mean 'worlds'?" in refused.stderr
