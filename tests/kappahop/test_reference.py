"""The page about the Python API names what there is, and no more."""

import re
from pathlib import Path

import kappahop

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"


def test_the_page_lists_every_name_and_every_member_that_it_names_is_there() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(kappahop.__all__)
    run = {name for name in vars(kappahop.Run) if not name.startswith("_")} - {"is_complete", "n_agents"}
    assert set(re.findall(r"`(\w+)`", dict(rows)["Run"])) == run
