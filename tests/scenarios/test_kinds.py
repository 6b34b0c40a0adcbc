"""The catalogue of kinds: two tables that name the same kinds, settings that exist, and the docs made from them."""

from dataclasses import replace
from pathlib import Path

import pytest

from node.protocol.kinds import ROWS
from scenarios.kinds import FACTS, Kind, Moment, at, markdown, peer_kinds, sent_by
from scenarios.recipes import RECIPES
from scenarios.schema import Codec, Delivery

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "kinds.md"


def test_every_kind_has_one_row_in_each_table() -> None:
    assert set(FACTS) == set(Kind)
    assert tuple(ROWS) == peer_kinds()


def test_the_settings_of_a_kind_exist_and_no_setting_is_without_a_kind(subtests: pytest.Subtests) -> None:
    for kind in peer_kinds():
        with subtests.test(kind=kind):
            assert FACTS[kind].settings in Delivery.model_fields
            assert FACTS[kind].exact or FACTS[kind].settings in Codec.model_fields


def test_every_setting_of_codec_and_delivery_belongs_to_a_kind() -> None:
    assert {facts.settings for facts in FACTS.values() if facts.settings} == set(Delivery.model_fields)
    assert {facts.settings for facts in FACTS.values() if facts.settings and not facts.exact} == set(Codec.model_fields)


def test_moments_divide_the_kinds_between_agents() -> None:
    divided = [kind for moment in Moment for kind in at(moment)]
    assert sorted(divided) == sorted(peer_kinds())


def test_recipes_send_what_their_axes_need() -> None:
    assert [kind.name for kind in sent_by(RECIPES["scal_mappo_l"])] == ["STATE", "BOOTSTRAP"]
    assert [kind.name for kind in sent_by(RECIPES["a2po"])] == ["STATE", "BOOTSTRAP", "SCORE", "RATIO"]
    assert [kind.name for kind in sent_by(RECIPES["qmix"])] == ["BOOTSTRAP", "JOINT", "POLICY"]
    assert [kind.name for kind in sent_by(RECIPES["ma2ql"])] == ["TOKEN"]
    assert sent_by(RECIPES["dpo"]) == ()
    assert [kind.name for kind in sent_by(replace(RECIPES["dpo"], consensus="critic"))] == ["CONSENSUS"]


def test_the_page_is_the_one_made_from_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(markdown()), "run `make docs`"
