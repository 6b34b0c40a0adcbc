"""The pages say what the code says."""

import re
from pathlib import Path

import pytest

from coordinator.cli.app import app
from coordinator.cli.reference import markdown as command_line
from coordinator.study.grid import cells
from scenarios.loading import all_keys, load, shipped
from scenarios.reference import markdown
from topology.link.presets import PRESETS

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("coordinator", "node", "envs", "topology", "scenarios")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def modules(room: str) -> dict[str, set[str]]:
    """The modules of each alcove of a room, by the alcove's path below it."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / room).rglob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            found.setdefault(str(path.parent.relative_to(ROOT / room)), set()).add(path.stem)
    return found


def test_scenario_reference_is_the_one_made_from_the_schema() -> None:
    assert (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_command_line_reference_is_the_one_made_from_the_command() -> None:
    assert (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8") == command_line(app), "run `make docs`"


def test_network_page_ends_with_every_attribute_and_lists_every_preset() -> None:
    page = (ROOT / "docs" / "reference" / "links.md").read_text(encoding="utf-8")
    assert page.endswith(markdown("network")), "run `make docs`"
    told = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 8}
    assert told.keys() == PRESETS.keys()
    for name, preset in PRESETS.items():
        assert preset.source in told[name]
        assert f"| {preset.trust} |" in told[name]
        assert f"{preset.spec.loss_prob * 100:.3g} %" in told[name]
        assert f"| {preset.spec.mtu_bytes} |" in told[name]


def test_architecture_page_names_every_module_and_no_other(subtests: pytest.Subtests) -> None:
    for room in ROOMS:
        with subtests.test(room=room):
            page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
            _, _, section = page.partition(f"\n### {room}\n")
            rows = [
                [cell.strip() for cell in line.split("|")[1:4]]
                for line in section.partition("\n#")[0].splitlines()
                if line[:1] == "|"
            ]
            named = {alcove.strip("`/") or ".": set(re.findall(r"`([a-z_]+)`", names)) for alcove, _, names in rows[2:]}
            assert {alcove: names for alcove, names in named.items() if names} == modules(room)


def test_links_between_pages_lead_somewhere(subtests: pytest.Subtests) -> None:
    for page in PAGES:
        with subtests.test(page=page):
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
                if "://" not in target:
                    assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_scenarios_and_keys_in_commands_exist(subtests: pytest.Subtests) -> None:
    keys = set(all_keys())
    for page in PAGES:
        with subtests.test(page=page):
            for words in re.findall(r"kappahop (?:run|graph|links) ([^`\n#]+)", page.read_text(encoding="utf-8")):
                scenario, *rest = words.split()
                if scenario.isupper() or scenario.startswith("(") or scenario.endswith(".yaml"):
                    continue
                assert scenario in shipped()
                overrides = [word for word in rest if re.fullmatch(r"[a-z_.]+=\S+", word)]
                assert {word.partition("=")[0] for word in overrides} <= keys
                load(scenario, overrides)


def test_sweeps_in_commands_can_be_planned(subtests: pytest.Subtests) -> None:
    for page in PAGES:
        with subtests.test(page=page):
            for words in re.findall(r"kappahop sweep ([^`\n#]+)", page.read_text(encoding="utf-8")):
                scenario, *rest = words.split()
                if scenario not in shipped() or "topology.file=" in words:  # a placeholder, or a file that the page makes first
                    continue
                assert cells(scenario, [word for word in rest if re.fullmatch(r"[a-z_.]+=\S+", word)], [0])


def test_decisions_are_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.name for path in folder.glob("[0-9]*.md")}


def test_every_oracle_is_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "explanation" / "oracles.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", page.partition("|---|")[2])
    assert len(named) > 30
    for file, name in named:
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in source, f"{file}::{name}"
