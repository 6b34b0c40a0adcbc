"""The pages of the algorithms: what they link to exists, and the settings they tell are those of the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from scenarios.recipes import PAPER, RECIPES
from scenarios.schema import Scenario

FOLDER = Path(__file__).parent.parent / "docs" / "algorithms"
MADE_FROM_RUNS = "results.md"  # may be missing while the code is new


def test_every_algorithm_has_its_page() -> None:
    assert {page.stem for page in FOLDER.glob("*.md")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_links_lead_somewhere_and_the_names_beside_them_are_there(name: str) -> None:
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    assert targets
    for target in targets:
        assert target.endswith(MADE_FROM_RUNS) or (FOLDER / target).exists(), target
    for target, names in re.findall(r"\[`[^`]+\.py`\]\(([^)]+)\)((?:,? `\w+`)+)", text):
        code = (FOLDER / target).read_text(encoding="utf-8")
        for named in re.findall(r"\w+", names):
            assert re.search(rf"^(?:def|class) {named}\b", code, re.MULTILINE), f"{target} has no {named}"


def test_table_of_settings_is_the_schema_and_the_preset() -> None:
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.+?) \| (.+?) \|$", (FOLDER / "scal_mappo_l.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    told = {key: (default, paper) for key, default, paper in rows}
    defaults: dict[str, Any] = Scenario().model_dump(mode="json")
    for key, found in told.items():
        section, knob = key.split(".")
        wanted = (words(defaults[section][knob]), words(PAPER[section][knob]) if knob in PAPER[section] else "–")
        assert found == wanted, f"docs/algorithms/scal_mappo_l.md: the row should be | `{key}` | {wanted[0]} | {wanted[1]} |"
    assert {f"{section}.{knob}" for section, knobs in PAPER.items() for knob in knobs} <= told.keys()


def words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
