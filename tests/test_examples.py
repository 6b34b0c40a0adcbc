"""The examples in docstrings say what is true."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHOWING = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for package in ("scenarios", "topology", "envs", "node", "coordinator", "kappahop")
    for file in sorted((ROOT / package).rglob("*.py"))
    if ">>>" in file.read_text(encoding="utf-8")
]


def test_every_example_gives_what_it_shows(subtests: pytest.Subtests) -> None:
    for module in SHOWING:
        with subtests.test(module=module):
            found = doctest.testmod(import_module(module))
            assert found.attempted > 0
            assert found.failed == 0
