"""What is said of processes that do not come up."""

import pytest

from coordinator.run.supervisor import not_up
from scenarios.schema import Supervision


def test_the_wait_for_processes_grows_with_their_number_unless_it_is_set() -> None:
    assert Supervision().start_limit_s(0) == 60.0
    assert Supervision().start_limit_s(256) == pytest.approx(136.8)
    assert Supervision(start_s=7.0).start_limit_s(256) == 7.0


def test_few_absent_processes_are_named_and_of_many_the_first_and_the_number() -> None:
    assert "2 of 258 processes not up within 136.8 s: node 3, node 181;" in not_up(["node 3", "node 181"], 258, 136.8)
    many = not_up([f"node {i}" for i in range(181, 256)], 258, 136.8)
    assert many == "75 of 258 processes not up within 136.8 s: first node 181; supervision.start_s gives them longer"
