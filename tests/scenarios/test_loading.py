"""Scenarios: what is written is what runs, and every mistake is told in one line that names key, value and the right one."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from scenarios.loading import ScenarioError, all_keys, check, dotted_keys, dump, load, shipped, world_settings
from scenarios.recipes import AXES, PAPER, RECIPES, Recipe
from scenarios.registry import WORLDS
from scenarios.schema import Algorithm, Scenario, in_world


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def mistake(source: str, *overrides: str) -> str:
    with pytest.raises(ScenarioError) as told:
        load(source, overrides)
    assert "\n" not in str(told.value)
    return str(told.value)


# ------------------------------------------------------------------------------------------------------------ what is shipped


def test_every_shipped_scenario_loads_and_says_what_it_shows(subtests: pytest.Subtests) -> None:
    for name in shipped():
        with subtests.test(name=name):
            scenario = load(name)
            assert scenario.name == name
            assert scenario.description.endswith(".")
            assert len(scenario.description) > 20


def test_a_dumped_scenario_loads_back_to_itself(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name in shipped():
        with subtests.test(name=name):
            scenario = load(name)
            again = load(written(tmp_path, dump(scenario), "other.yaml"))
            assert again == scenario
            assert dump(again) == dump(scenario)


def test_a_dump_names_every_setting(tmp_path: Path) -> None:
    data = yaml.safe_load(dump(load("quickstart")))
    for key in dotted_keys(type(load("quickstart"))):
        here = data
        for part in key.split("."):
            assert part in here, key
            here = here[part]


def fields(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found


def test_every_setting_has_a_default_a_unit_and_a_meaning(subtests: pytest.Subtests) -> None:
    known = fields(Scenario)
    for name in WORLDS.own:
        known |= fields(in_world(world_settings(name)))
    for key in all_keys():
        with subtests.test(key=key):
            field = known[key]
            assert not field.is_required()
            assert field.description.endswith(".")
            assert field.json_schema_extra["unit"]


def test_every_recipe_can_be_named_and_every_axis_overridden() -> None:
    for name, row in RECIPES.items():
        assert Algorithm.model_validate({"name": name}).recipe == row
        assert row.conflict() is None
    recipe = load(
        "quickstart", ["algorithm.name=mappo_l", "algorithm.factor=none", "algorithm.critic_scope=khop"]
    ).algorithm.recipe
    assert (recipe.factor, recipe.critic_scope, recipe.actor_scope) == ("none", "khop", "global")


def test_axes_that_do_not_go_together_are_refused_by_name(subtests: pytest.Subtests) -> None:
    rows: list[dict[str, str]] = [
        {"constraint": "cpo"},
        {"order": "simultaneous", "factor": "khop"},
        {"order": "alternating", "factor": "khop"},
        {"order": "simultaneous", "trace": "preopc"},
        {"critic_scope": "central", "trace": "preopc"},
        {"name": "qmix", "target": "ideal_q"},
        {"name": "qmix", "order": "alternating"},
        {"name": "qmix", "actor_scope": "khop"},
        {"name": "qmix", "constraint": "lagrangian"},
    ]
    for axes in rows:
        with subtests.test(axes=axes):
            first = next(axis for axis in ("constraint", "factor", "trace", "target", "order", "actor_scope") if axis in axes)
            with pytest.raises(ValueError, match=rf"{first}: got '{axes[first]}' with"):
                Algorithm.model_validate(axes)


# ------------------------------------------------------------------------------------------------------------ how it is read


def test_overrides_stand_above_the_file_and_the_file_above_the_defaults(tmp_path: Path) -> None:
    source = written(tmp_path, "kappa: 2\nenv: {num_envs: 7}\n")
    scenario = load(source, ["env.num_envs=9"])
    assert (scenario.kappa, scenario.env.num_envs, scenario.seed, scenario.name) == (2, 9, 0, "mine")


def test_a_million_may_be_written_as_people_write_it(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for text in ("1e6", "1E6", "1.0e+6", "1_000_000", "1000000", "1000000.0"):
        with subtests.test(text=text):
            assert load("quickstart", [f"budget.env_steps={text}"]).budget.env_steps == 1_000_000
            assert load(written(tmp_path, f"budget: {{env_steps: {text}}}")).budget.env_steps == 1_000_000


def test_small_numbers_too(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, float]] = [("5e-4", 5e-4), (".5", 0.5), ("1", 1.0), ("0.25", 0.25), ("3e-07", 3e-7)]
    for text, value in rows:
        with subtests.test(text=text):
            assert load("quickstart", [f"algorithm.actor_lr={text}"]).algorithm.actor_lr == value
            assert load(written(tmp_path, f"algorithm: {{actor_lr: {text}}}")).algorithm.actor_lr == value


def test_lists_null_flags_and_words_are_read_from_overrides() -> None:
    scenario = load(
        "quickstart", ["algorithm.hidden=[8, 4]", "env.horizon=null", "record.tensorboard=false", "env.partition=3x2"]
    )
    assert scenario.algorithm.hidden == (8, 4)
    assert scenario.env.horizon is None
    assert scenario.record.tensorboard is False
    assert scenario.env.model_dump()["partition"] == "3x2"


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing\n")) == check({"name": "mine"}, where="here")


def test_the_paper_preset_lies_beneath_the_values_of_file_and_overrides(tmp_path: Path) -> None:
    source = written(tmp_path, "algorithm: {preset: paper, clip: 0.17}\nenv: {num_envs: 3}\n")
    scenario = load(source, ["algorithm.epochs=2"])
    assert (scenario.algorithm.clip, scenario.env.num_envs, scenario.algorithm.epochs) == (0.17, 3, 2)
    assert scenario.rollout.steps == PAPER["scal_mappo_l"]["rollout"]["steps"]
    assert load("quickstart", ["algorithm.preset=paper"]).algorithm.std == "sigmoid"
    assert load("quickstart").algorithm.std != "sigmoid"


def test_the_paper_preset_is_that_of_the_algorithm(subtests: pytest.Subtests) -> None:
    for name in PAPER:
        with subtests.test(name=name):
            found = load("safe_halfcheetah_6x1", [f"algorithm.name={name}", "algorithm.preset=paper"]).model_dump(mode="json")
            for section, settings in PAPER[name].items():
                assert {setting: found[section][setting] for setting in settings} == settings
            assert (
                load("safe_halfcheetah_6x1", [f"algorithm.name={name}"]).algorithm
                != load("safe_halfcheetah_6x1", [f"algorithm.name={name}", "algorithm.preset=paper"]).algorithm
            )


def test_what_no_paper_gives_settings_for_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm\.preset: got 'paper' with algorithm\.name iql"):
        load("quickstart", ["algorithm.name=iql", "algorithm.preset=paper"])
    with pytest.raises(ScenarioError, match=r"algorithm\.name: got 'none'"):
        load("quickstart", ["algorithm.name=none", "algorithm.preset=paper"])


def test_the_preset_does_not_seep_into_other_scenarios() -> None:
    before = repr(PAPER)
    load("quickstart", ["algorithm.preset=paper", "algorithm.hidden=[3]", "env.num_envs=2"])
    assert repr(PAPER) == before


def test_rounds_are_what_the_budget_buys_rounded_up() -> None:
    def rounds(steps: int) -> int:
        return load("quickstart", ["env.num_envs=2", "rollout.steps=50", f"budget.env_steps={steps}"]).n_rounds

    assert [rounds(steps) for steps in (1, 99, 100, 101, 1000)] == [1, 1, 1, 2, 10]


# ------------------------------------------------------------------------------------------------------------ the network

EVENTS = """
compute: {forward_ms: 1}
network:
  preset: wifi-campus
  delivery: {state: reliable}
  codec: {ratio: bfloat16}
  edges:
    - {between: [0, 1], preset: lan, one_way: true, reorder: true}
  random_outages: {mean_up_s: 60, mean_down_s: 5}
  churn: {mean_on_s: 600, mean_off_s: 60}
  events:
    - {do: outage, between: [0, 1], from_s: 1, until_s: 2, one_way: true}
    - {do: outage, agents: [2], from_s: 1}
    - {do: partition, agents: [0, 1], from_s: 3, until_s: 4, one_way: in}
    - {do: change, from_s: 5, until_s: 6, loss_prob: 0.5}
    - {do: crash, agent: 1, from_s: 7}
    - {do: slow, agent: 1, factor: 2.5, from_s: 8, until_s: 9}
"""


def test_a_network_with_edges_and_events_is_read_and_dumped(tmp_path: Path) -> None:
    scenario = load(written(tmp_path, EVENTS))
    network = scenario.network
    assert [event.do for event in network.events] == ["outage", "outage", "partition", "change", "crash", "slow"]
    assert (network.events[0].from_s, network.events[0].until_s, network.events[4].until_s) == (1, 2, None)
    assert (network.edges[0].between, network.edges[0].preset, network.edges[0].loss_prob) == ((0, 1), "lan", None)
    assert (network.delivery.state, network.delivery.ratio, network.codec.ratio) == ("reliable", "reliable", "bfloat16")
    assert network.churn is not None
    assert network.churn.weibull_shape == 0.6
    again = load(written(tmp_path, dump(scenario), "again.yaml"))
    assert again.network == network


def test_lists_of_events_may_be_given_on_the_command_line() -> None:
    events = "network.events=[{do: outage, between: [0,1], from_s: 1, until_s: 2}]"
    network = load("quickstart", [events, "network.random_outages={mean_up_s: 3, mean_down_s: 1}"]).network
    assert network.events[0].model_dump(exclude_unset=True) == {"do": "outage", "between": (0, 1), "from_s": 1, "until_s": 2}
    assert network.random_outages is not None
    assert network.random_outages.mean_up_s == 3


def test_states_are_datagrams_and_all_else_is_reliable_by_default() -> None:
    network = load("quickstart", []).network
    assert network.delivery.model_dump() == {
        "state": "datagram", "bootstrap": "reliable", "reward": "reliable", "ratio": "reliable", "score": "reliable",
        "token": "reliable", "joint": "reliable", "advantage": "reliable", "policy": "reliable", "consensus": "reliable",
        "multiplier": "reliable",
    }  # fmt: skip
    assert set(network.codec.model_dump().values()) == {"float32"}
    assert (network.preset, network.state_threshold, network.on_missing, network.events) == ("ideal", 0, "hold_last", ())


def test_a_network_that_cannot_be_is_told(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str]] = [
        ("network.loss_prob=1.5", "network.loss_prob: got 1.5; input should be less than or equal to 1"),
        ("network.loss_burst=0.5", "network.loss_burst: got 0.5; a burst has at least 1 fragment (0: no bursts)"),
        ("network.rate_bps=-1", "network.rate_bps: got -1; input should be greater than or equal to 0"),
        ("network.duty=0", "network.duty: got 0; input should be greater than 0"),
        ("network.mtu_bytes=0", "network.mtu_bytes: got 0"),
        ("network.retries=101", "network.retries: got 101"),
        ("network.latency_ms=-1", "network.latency_ms: got -1"),
        ("network.delivery.state=tcp", "network.delivery.state: got 'tcp'; input should be 'datagram'"),
        ("network.codec.state=int4", "network.codec.state: got 'int4', did you mean 'int8'?; input should be 'float32'"),
        ("network.state_threshold=-1", "network.state_threshold: got -1"),
        ("network.on_missing=wait", "network.on_missing: got 'wait'; input should be 'hold_last'"),
        ("network.events=[{do: flood, from_s: 1}]", "network.events.0.do: got 'flood'; input should be one of 'outage', "),
        ("network.events=[{do: crsh, from_s: 1}]", "network.events.0.do: got 'crsh', did you mean 'crash'?; input should be "),
        ("network.edges=foo", "network.edges: got 'foo'; input should be a list, e.g. [a, b]"),
        ("network.random_outages=5", "network.random_outages: got 5; input should be keys with values, e.g. {key: value}"),
        ("network.events=[{from_s: 1}]", "network.events.0: got {'from_s': 1}; unable to extract tag"),
        ("network.events=[{do: crash, from_s: 1}]", "network.events.0.crash.agent: missing"),
        ("network.events=[{do: crash, agent: 0, from_s: 2, until_s: 2}]", "until_s: got 2.0; it must be later than from_s, 2.0"),
        ("network.events=[{do: crash, agent: 0, from_s: 2, fromm_s: 2}]", "network.events.0.crash.fromm_s: unknown key"),
        ("network.events=[{do: slow, agent: 0, factor: 0, from_s: 2}]", "network.events.0.slow.factor: got 0"),
        ("network.events=[{do: outage, from_s: 2}]", "between: got nothing; an outage needs 'between' or 'agents'"),
        ("network.events=[{do: outage, agents: [1], between: [0,1], from_s: 2}]", "'between' and 'agents' do not go together"),
        ("network.events=[{do: outage, agents: [1], one_way: true, from_s: 2}]", "one_way: got true; it needs 'between'"),
        ("network.events=[{do: outage, between: [1,1], from_s: 2}]", "between: got [1, 1]; the two agents of an edge differ"),
        ("network.events=[{do: partition, agents: [], from_s: 2}]", "network.events.0.partition.agents: got []"),
        ("network.events=[{do: change, loss_burst: 0.5, from_s: 2}]", "loss_burst: got 0.5; a burst has at least 1 fragment"),
        ("network.edges=[{between: [0, 1], loss_prob: true}]", "network.edges.0.loss_prob: got true; Probability that"),
        ("network.edges=[{between: [0, 1], one_way: 1.5}]", "network.edges.0.one_way: got 1.5"),
        ("network.events=[{do: crash, agent: true, from_s: 1}]", "network.events.0.crash.agent: got true; Which agent."),
        ("network.edges=[{between: [0]}]", "network.edges.0.between.1: "),
        ("network.edges=[{between: [2,2]}]", "network.edges.0.between: got [2, 2]; the two agents of an edge differ"),
        ("network.edges=[{preset: lan}]", "network.edges.0.between: "),
        ("network.churn={mean_on_s: 0, mean_off_s: 1}", "network.churn.mean_on_s: got 0"),
        ("network.random_outages={mean_up_s: 1}", "network.random_outages.mean_down_s: "),
    ]
    for override, told in rows:
        with subtests.test(override=override):
            assert told in mistake("quickstart", override)


# --------------------------------------------------------------------------------------------------------------- mistakes


def test_a_wrong_override_is_told_with_key_value_and_what_is_allowed(subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str]] = [
        ("kapa=1", "kapa: unknown key, did you mean 'kappa'?"),
        ("env.num_env=1", "env.num_env: unknown key, did you mean 'env.num_envs'?"),
        ("algorithm.lr=1", "algorithm.lr: unknown key"),
        ("env=3", "env: a section; override its keys one by one, e.g. env.name=safe_halfcheetah"),
        ("kappa.x=3", "kappa.x: unknown key"),
        ("kappa", "override 'kappa': expected key=value, e.g. kappa=2 or algorithm.clip=0.1"),
        ("=3", "override '=3': expected key=value"),
        ("kappa=[", "override value '[' cannot be read as YAML"),
        ("kappa=!!python/name:os.system", "cannot be read as YAML"),
        ("kappa=" + "[" * 5000, "cannot be read as YAML"),
        ("kappa=-1", "kappa: got -1; input should be greater than or equal to 0 [hops"),
        ("kappa=two", "kappa: got 'two'; input should be a valid integer"),
        ("kappa=1.5", "kappa: got 1.5; input should be a valid integer"),
        ("kappa=nan", "kappa: got 'nan'; input should be a valid integer"),
        ("kappa=.nan", "kappa: got nan; input should be a finite number"),
        ("kappa=.inf", "kappa: got inf; input should be a finite number"),
        ("kappa=", "kappa: got None; input should be a valid integer"),
        ("kappa=[1]", "kappa: got [1]; input should be a valid integer"),
        ("kappa=true", "kappa: got true; κ: from how far away agents receive states."),
        ("kappa=yes", "kappa: got 'yes'; input should be a valid integer"),
        ("kappa=1e9", "kappa: got 1000000000.0; input should be less than or equal to 1024"),
        ("seed=4294967296", "seed: got 4294967296; input should be less than 4294967296"),
        ("env.num_envs=0", "env.num_envs: got 0; input should be greater than or equal to 1 [copies]"),
        ("algorithm.clip=1", "algorithm.clip: got 1; input should be less than 1"),
        ("algorithm.hidden=[8, 0]", "algorithm.hidden.1: got 0"),
        ("algorithm.name=ppo", "algorithm.name: got 'ppo', did you mean 'ippo'?; expected one of scal_mappo_l"),
        ("env.name=safe_dog", "env.name: got 'safe_dog', did you mean 'safe_ant'?; expected one of safe_ant"),
        ("env.reward=teem", "env.reward: got 'teem', did you mean 'team'?; input should be 'team'"),
        ("supervision.deadline_s=0", "supervision.deadline_s: got 0; input should be greater than 0 [s]"),
        ("algorithm.minibatches=99999999", "algorithm.minibatches: got 99999999; a round has only"),
        ("algorithm.constraint=cpo", "constraint: got 'cpo' with objective 'clip'; it goes with objective 'trust_region' alone"),
        ("topology.kind=file", "topology.file: got None with topology.kind=file"),
        ("topology.file=x.edges", "got 'x.edges' with topology.kind=kinematic; it belongs to kind 'file'"),
        ("topology.schedule_period_s=3", "topology.schedule_period_s: got 3 without topology.schedule, which it repeats"),
        ("topology.kind=file topology.file=x topology.rate_from={attribute: a, unit: bit}", "unit: got 'bit'"),
        ("clock=wall topology.kind=file topology.schedule=x", "clock: got 'wall'; on the real network nothing is modelled"),
        ("kappa_unit=agents kappa=0", ""),
    ]
    for override, told in rows:
        with subtests.test(override=override):
            assert told in mistake("quickstart", *re.split(r" (?=[\w.]+=)", override))


def test_what_agents_could_not_agree_on_is_refused(subtests: pytest.Subtests) -> None:
    rows: list[tuple[list[str], str]] = [
        (["algorithm.name=a2po", "clock=wall"], "algorithm.order: got 'semi_greedy' with clock 'wall'"),
        (
            ["algorithm.name=a2po", "supervision.on_node_death=continue"],
            "'semi_greedy' with supervision.on_node_death 'continue'",
        ),
        (
            ["algorithm.critic_scope=central", "algorithm.order=semi_greedy", "algorithm.factor=khop"],
            "order: got 'semi_greedy' with",
        ),
        (["algorithm.critic_scope=central", "clock=wall"], "clock: got 'wall'; with critic_scope 'central' it must be 'virtual'"),
        (["algorithm.critic_scope=central", "routing=direct"], "routing: got 'direct'"),
        (["algorithm.critic_scope=central", "supervision.on_node_death=continue"], "supervision.on_node_death: got 'continue'"),
        (["algorithm.name=i2q", "algorithm.off_policy.representation=recurrent"], "got 'recurrent'; ideal values need the state"),
        (
            ["algorithm.name=qmix", "algorithm.off_policy.representation=recurrent"],
            "got 'recurrent'; with critic_scope 'central'",
        ),
        (["algorithm.critic_scope=central", "algorithm.reward=khop_mean"], "algorithm.reward: got 'khop_mean'"),
    ]
    for overrides, told in rows:
        with subtests.test(overrides=overrides):
            assert told in mistake("quickstart", *overrides)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = mistake(written(tmp_path, "kapa: 3\nenv: {num_envs: -2, nam: x}\n"))
    assert "kapa: unknown key, did you mean 'kappa'?" in told
    assert "env.num_envs: got -2" in told
    assert "env.nam: unknown key, did you mean 'env.name'?" in told


def test_a_wrong_file_is_told_with_its_name(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows: list[tuple[str, str]] = [
        ("kappa: [1", "cannot be read as YAML"),
        ("kappa: 1\n\tseed: 2", "cannot be read as YAML"),
        ("kappa 1", "expected a mapping of keys to values, got str"),
        ("- kappa: 1", "expected a mapping of keys to values, got list"),
        ("3", "expected a mapping of keys to values, got int"),
        ("kappa: 1\nkappa: 2", "key 'kappa' is given twice"),
        ("env: {copies: 1, copies: 2}", "key 'copies' is given twice"),
        ("env: 3", "env: got 3; input should be keys with values, e.g. "),
        ("env:", "env: got None; input should be keys with values, e.g. {key: value}"),
        ("kappa: {a: 1}", "kappa: got {'a': 1}; input should be a valid integer"),
        ("1: 2", "1: got 1; keys should be strings"),
        ("kappa: true", "kappa: got true"),
        ("algorithm: {epochs: false}", "algorithm.epochs: got false"),
        ("x: !!python/object/apply:os.system ['true']", "cannot be read as YAML"),
        ("x: !!python/name:os.system", "cannot be read as YAML"),
        ("x: !mine 3", "cannot be read as YAML"),
        ("[" * 20_000, "cannot be read as YAML"),
        ("a: 1\n---\nb: 2\n", "cannot be read as YAML"),
        ("kappa: *nobody", "cannot be read as YAML"),
    ]
    for text, told in rows:
        with subtests.test(text=text):
            source = written(tmp_path, text)
            message = mistake(source)
            assert told in message
            assert message.startswith(source)


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mistake(written(tmp_path, f"x: !!python/object/apply:os.mkdir ['{mark}']"))
    assert not mark.exists()


def test_a_nest_of_aliases_is_told_briefly_and_soon(tmp_path: Path) -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)
    ]
    told = mistake(written(tmp_path, "\n".join([*layers, "kappa: *a11"])))
    assert len(told) < 3000


def test_a_refusal_on_the_axes_names_every_single_change_that_mends_it() -> None:
    refused = 0
    for name, row in RECIPES.items():
        for axis in AXES:
            for value in get_args(Recipe.__dataclass_fields__[axis].type):
                words = [f"algorithm.name={name}", f"algorithm.{axis}={value}"]
                if (conflict := replace(row, **{axis: value}).conflict()) is None:
                    continue
                refused += 1
                told = mistake("quickstart", *words)
                assert conflict in told
                if "change another axis (" not in told:
                    continue
                for other in told.partition("change another axis (")[2].rstrip(")").split("; "):
                    changed, values = other.split(": ")
                    for choice in values.split(", "):
                        algorithm = Algorithm(**{"name": name, axis: value, changed: choice})
                        assert getattr(algorithm.recipe, changed) == choice
    assert refused > 50
    words = ["algorithm.name=ippo", "algorithm.factor=khop"]
    assert "change another axis (order: fixed, random, semi_greedy; objective: double_clip)" in mistake("quickstart", *words)


def nested(layer: str) -> str:
    """Nine layers, each of which refers ten times to the one before."""
    first = "a0: &a0 {x: 1}"
    return "\n".join([first, *(f"a{i}: &a{i} " + layer % ", ".join([f"*a{i - 1}"] * 10) for i in range(1, 10))])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(nested("{<<: [%s]}"), "more than 100,000 values", id="merge keys"),
        pytest.param(nested("[%s]"), "more than 100,000 values", id="aliases"),
        pytest.param("a: &a [*a]", "more than 100,000 values", id="an alias of what it is part of"),
        pytest.param("\n".join(f"k{i}: 1" for i in range(80_000)), "more than 100,000 values", id="keys"),
        pytest.param("\n".join(f"k{i}: 1" for i in range(45_000)), "k9: unknown key; and 44990 more", id="fewer keys"),
        pytest.param("network: {edges: [" + "{a: 1}," * 20_000 + "]}", "; and 39990 more", id="edges"),
        pytest.param("algorithm: {hidden: [" + "8," * 90_000 + "]}", "a list of at most 16, not of 90,000", id="layers"),
    ],
)
def test_a_small_file_takes_no_time_to_refuse(tmp_path: Path, text: str, told: str) -> None:
    source = written(tmp_path, text)
    began = time.process_time()
    message = mistake(source)
    assert time.process_time() - began < 2  # seconds of the processor; half a one on an idle machine
    assert told in message
    assert len(message) < 3000


def test_a_merge_key_is_a_key_as_any(tmp_path: Path) -> None:
    assert "env.<<: unknown key" in mistake(written(tmp_path, "kappa: 1\nenv: {<<: {copies: 2}}"))


def test_a_value_that_does_not_fit_its_tag_is_told(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for kind in ("timestamp", "bool", "int", "set", "omap", "binary"):
        with subtests.test(kind=kind):
            assert f"tag tag:yaml.org,2002:{kind} is not taken" in mistake(written(tmp_path, f"kappa: !!{kind} word"))
            assert load(written(tmp_path, "name: !!str 5")).name == "5"


def test_a_name_is_no_path(subtests: pytest.Subtests) -> None:
    rows: list[str] = ["/tmp/x", "../../x", "a/b", ".", "..", ".hidden", "", "a\0b", "a\nb", "\x1b[31m", "x" * 151, "κ" * 80]
    for name in rows:
        with subtests.test(name=name):
            assert re.search(
                r"name: got .*(printable|at least 1 character)",
                mistake("quickstart", f"name={json.dumps(name, ensure_ascii=False)}"),
            )


def test_names_of_people_are_taken(subtests: pytest.Subtests) -> None:
    for name in ("mein Lauf κ=1 – größer 🐆", "[red]x [@click=y] :smile:", "x" * 150, "-x", "a.b"):
        with subtests.test(name=name):
            assert load("quickstart", [f"name={json.dumps(name, ensure_ascii=False)}"]).name == name


@pytest.mark.parametrize("compute", [[], ["compute.devices.pi.policy_ms=0", "compute.agents=[pi]", "compute.forward_ms=3"]])
def test_an_event_that_slows_down_what_takes_no_time_is_refused(compute: list[str]) -> None:
    slow = "network.events=[{do: slow, agent: 0, factor: 2, from_s: 1}]"
    told = mistake("quickstart", slow, *compute)
    assert "network.events.0.do: got 'slow' for agent 0, whose computing takes no virtual time" in told
    for something in ("compute.policy_ms=1", "compute.mode=measured"):
        assert load("quickstart", [slow, something]).network.events


def test_devices_that_no_agent_has_are_refused() -> None:
    told = mistake("quickstart", "compute.devices.pi.forward_ms=3")
    assert "compute.devices: got pi, which no agent has; say in compute.agents which device each has" in told


def test_keys_below_sections_that_may_be_null_can_be_typed(tmp_path: Path) -> None:
    source = written(tmp_path, "network: {churn: null}")
    network = load(source, ["network.churn.mean_on_s=3", "network.churn.mean_off_s=2"]).network
    assert network.churn is not None
    assert (network.churn.mean_on_s, network.churn.mean_off_s) == (3.0, 2.0)
    compute = load("quickstart", ["compute.devices.pi.forward_ms=3", "compute.agents=[pi,pi,pi,pi,pi,pi]"]).compute
    assert compute.devices["pi"].forward_ms == 3.0
    assert "network.churn.mean_of_s: unknown key" in mistake("quickstart", "network.churn.mean_of_s=3")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert mistake(str(tmp_path / "none.yaml")) == f"{tmp_path}/none.yaml: no such file"
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml: a folder, not a scenario; give the path of a .yaml file" in mistake(str(tmp_path / "folder.yaml"))
    assert mistake(str(tmp_path)).startswith(f"{tmp_path}: a folder, not a scenario")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"description: \xff\n")
    assert "cannot be read as YAML" in mistake(str(latin))
    assert "larger than 1048576 bytes" in mistake(written(tmp_path, "# " + "x" * (1 << 20), "large.yaml"))


def test_an_unknown_name_is_told_with_the_nearest_and_all_others() -> None:
    told = mistake("quikstart")
    assert told.startswith("unknown scenario 'quikstart', did you mean 'quickstart'?; shipped: ")
    assert all(name in told for name in shipped())


plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(key=st.sampled_from(all_keys()), value=plain)
def test_any_value_under_any_key_is_taken_or_told(key: str, value: Any) -> None:
    data = value
    for part in reversed(key.split(".")):
        data = {part: data}
    try:
        scenario = check(data, where="here")
    except ScenarioError as error:
        told = str(error)
    else:
        assert check(yaml.safe_load(dump(scenario)), where="again") == scenario
        return
    assert told.startswith("here: ")


@given(text=st.text(max_size=40))
def test_any_text_as_an_override_is_taken_or_told(text: str) -> None:
    for override in (text, f"kappa={text}", f"description={text}"):
        try:
            load("quickstart", [override])
        except ScenarioError as error:
            told = str(error)
        else:
            continue
        assert told


def test_learners_refuse_what_they_do_not_know(subtests: pytest.Subtests) -> None:
    rows: list[tuple[list[str], str]] = [
        (["algorithm.name=ma2ql", "algorithm.factor=khop"], "factor: got 'khop' with order 'alternating'"),
        (["algorithm.name=iql", "algorithm.order=fixed", "algorithm.factor=khop"], "factor: got 'khop' with target 'q'"),
        (["algorithm.name=i2q", "algorithm.constraint=lagrangian"], "constraint: got 'lagrangian' with target 'ideal_q'"),
        (["algorithm.name=iql", "algorithm.critic_scope=khop"], "critic_scope: got 'khop' with target 'q'"),
        (["algorithm.name=iql", "algorithm.off_policy.turn_accuracy=0.1"], "turn_accuracy: got 0.1; only tables"),
        (
            ["algorithm.name=i2q", "algorithm.off_policy.representation=table", "algorithm.off_policy.turn_accuracy=0.1"],
            "turn_accuracy: got 0.1; ideal values",
        ),
        (["algorithm.name=iql", "algorithm.model=latent"], "target: got 'q' with model 'latent'"),
        (["algorithm.name=mdpo", "algorithm.order=fixed", "algorithm.factor=khop"], "factor: got 'khop' with model 'latent'"),
        (["algorithm.name=mdpo", "algorithm.constraint=lagrangian"], "constraint: got 'lagrangian' with model 'latent'"),
        (["algorithm.name=mdpo", "algorithm.order=fixed", "algorithm.trace=preopc"], "trace: got 'preopc' with model 'latent'"),
        (["algorithm.name=mdpo", "algorithm.critic_scope=khop"], "critic_scope: got 'khop' with model 'latent'"),
        (["algorithm.name=mdpo", "algorithm.critic_scope=central"], "critic_scope: got 'central' with model 'latent'"),
    ]
    for words, told in rows:
        with subtests.test(words=words), pytest.raises(ScenarioError, match=told):
            load("stage_game", words)


def test_what_is_nested_without_end_is_told_in_one_line(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for opening in ("[", "- ", "{a: ", "? "):
        with subtests.test(opening=opening):
            path = tmp_path / "deep.yaml"
            path.write_text(opening * 200_000)
            with pytest.raises(ScenarioError, match=r"deep\.yaml: cannot be read as YAML: nested more than 100 deep$"):
                load(str(path))
            with pytest.raises(ScenarioError, match=r"cannot be read as YAML: nested more than 100 deep$"):
                load("quickstart", [f"kappa={opening * 200_000}"])


def test_relative_paths_in_a_file_start_at_its_folder_and_those_of_overrides_at_the_present_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "here.yaml").write_text(
        "topology: {kind: file, file: g.edges}\n"
        "network:\n"
        "  preset: trace:up\n"
        "  edges: [&edge {between: [0, 1], preset: trace:a/b}]\n"
        "  events: [{do: change, from_s: 1, preset: trace:/abs}, {do: crash, agent: 0, from_s: 1}]\n"
    )
    monkeypatch.chdir(tmp_path)
    found = load("mine/here.yaml")
    assert found.topology.file == str(folder / "g.edges")
    assert (found.network.preset, found.network.edges[0].preset) == (f"trace:{folder}/up", f"trace:{folder}/a/b")
    assert getattr(found.network.events[0], "preset", None) == "trace:/abs"
    typed = load("mine/here.yaml", ["topology.file=g.edges", "network.preset=trace:up"])
    assert (typed.topology.file, typed.network.preset) == ("g.edges", "trace:up")


def test_a_description_goes_when_what_it_describes_is_overridden() -> None:
    said = load("quickstart").description
    assert load("quickstart", ["seed=3", "budget.env_steps=10", "record.tensorboard=false", "name=other"]).description == said
    assert load("quickstart", ["kappa=2"]).description == ""
    assert load("quickstart", ["kappa=2", "description=mine"]).description == "mine"
    assert load("quickstart", ["kappa=1"]).is_same_as(load("quickstart"))
    assert not load("quickstart", ["kappa=2"]).is_same_as(load("quickstart"))
    assert load("quickstart", ["label=mine"]).is_same_as(load("quickstart"))
