from pathlib import Path

import pytest

from scenarios.registry import ENVIRONMENTS

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environments of fakes.py under registered names."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(ENVIRONMENTS, "_added", {})  # what a test registers is gone after it
    monkeypatch.setattr(ENVIRONMENTS, "_resolved", {})
    for name, place in (("uneven", "Uneven"), ("odd", "Odd"), ("faulty", "Faulty"), ("handover", "Handover"), ("pair", "Pair")):
        ENVIRONMENTS.register(name, f"fakes:{place}")
