"""What the last episodes cost an agent, and the multipliers that follow."""

from collections.abc import Sequence

import numpy as np
import pytest

from node.learners.on_policy.multipliers import EpisodeCosts, Margins, Multipliers
from node.numerics.rollout import Rollout
from scenarios.schema import Algorithm

E = 3


def round_of(costs: Sequence[float], ends: Sequence[Sequence[int]]) -> Rollout:
    """A round of as many steps as costs, which all copies pay alike; `ends` names the copies that end with each step."""
    rollout = Rollout.make(len(costs), E, 1, 1, 2)
    for step, (cost, copies) in enumerate(zip(costs, ends, strict=True)):
        rollout.cost[step] = cost, 10 * cost
        rollout.truncated[step, list(copies)] = True
    return rollout


def test_mean_is_over_the_last_whole_episodes_across_rounds() -> None:
    costs = EpisodeCosts(E, 2)
    assert costs.means is None
    costs.take(round_of([1.0, 2.0], [[], [0]]))  # copy 0: 3
    assert costs.means == [3.0, 30.0]
    assert (costs.mean_length, costs.fresh) == (2.0, 1)
    costs.take(round_of([4.0], [[1, 2]]))  # copies 1, 2: 7
    assert costs.means == pytest.approx([17 / 3, 170 / 3])
    assert costs.mean_length == pytest.approx(8 / 3)
    costs.take(round_of([0.0], [[0]]))  # copy 0: 4, and its 3 is forgotten
    assert costs.means == [6.0, 60.0]
    assert costs.fresh == 4


def test_a_round_with_more_episodes_than_copies_counts_with_all_of_them() -> None:
    costs = EpisodeCosts(E, 2)
    costs.take(round_of([5.0], [[0]]))
    costs.take(round_of([1.0, 2.0], [[0, 1, 2], [0, 1, 2]]))
    assert costs.means == pytest.approx([np.mean([1.0, 6.0, 6.0, 2.0, 2.0, 2.0]), np.mean([10.0, 60.0, 60.0, 20.0, 20.0, 20.0])])


def test_first_episodes_of_cut_copies_do_not_count_whatever_ends_them() -> None:
    costs = EpisodeCosts(E, 2, cut_copies=(0, 1))
    rollout = round_of([1.0, 1.0], [[0], []])
    rollout.terminated[1, 1] = True
    costs.take(rollout)
    assert costs.means is None
    assert costs.fresh == 0
    costs.take(round_of([1.0], [[0, 1, 2]]))
    assert costs.means == [2.0, 20.0]  # 2, 1 and the third copy's first, 3
    assert costs.fresh == 3


def test_episodes_that_a_fault_has_ended_do_not_count() -> None:
    """They are short, so they seem cheap, and a limit that is exceeded seems kept."""
    costs = EpisodeCosts(E, 2)
    rollout = round_of([1.0, 1.0], [[], [0, 1]])
    rollout.faults[1] = np.array([True, False, False])
    costs.take(rollout)
    assert costs.means == [2.0, 20.0]
    assert costs.fresh == 1
    costs.take(round_of([1.0], [[0, 1, 2]]))
    assert costs.fresh == 4


def test_episodes_go_on_from_their_state() -> None:
    one, other = EpisodeCosts(E, 2, cut_copies=(1,)), EpisodeCosts(E, 2, cut_copies=(1,))
    one.take(round_of([1.0, 1.0], [[0], []]))
    other.restore(one.state())
    for costs in (one, other):
        costs.take(round_of([3.0], [[0, 1, 2]]))
    assert one.means == other.means == pytest.approx([10 / 3, 100 / 3])  # 1, 3 and 5; copy 1 gives none
    assert one.mean_length == other.mean_length
    assert one.fresh == other.fresh


def multipliers(name: str = "mappo_l", **settings: float | str) -> Multipliers:
    return Multipliers(Algorithm.model_validate({"name": name, **settings}), (5.0, 100.0), E)


def test_no_multipliers_where_costs_are_not_priced() -> None:
    assert multipliers("macpo").values == []
    assert multipliers("happo").values == []
    assert multipliers("mafocops").values == [0.0, 0.0]


@pytest.mark.parametrize("constraint", ["pid_lagrangian", "focops"])
def test_one_step_per_new_episodes_and_none_without(constraint: str) -> None:
    mults, costs = multipliers(constraint=constraint, mult_lr=0.1, mult_init=0.4), EpisodeCosts(E, 2)
    mults.step(costs)
    assert mults.values == [0.4, 0.4]  # nothing is known yet
    costs.take(round_of([6.0], [[0]]))  # a third of E
    mults.step(costs)
    # J is 6 and 60: relative excess 0.2 and -0.4
    wanted = {"pid_lagrangian": [2.0 * 0.2 + 0.4 + 0.5 * 0.2 / 3, 0.0], "focops": [0.4 + 0.1 / 3, 0.0]}
    assert mults.values == pytest.approx(wanted[constraint])
    before = list(mults.values)
    costs.take(round_of([9.0], [[]]))
    mults.step(costs)
    assert mults.values == before
    mults.ascend(costs, [9.0, 9.0])
    assert mults.values == before  # only the plain rule steps with minibatches


def test_many_short_episodes_count_as_a_round_of_e() -> None:
    few, many = multipliers(), multipliers()
    for mults, rounds in ((few, [[0, 1, 2]]), (many, [[0, 1, 2]] * 4)):
        costs = EpisodeCosts(E, 2)
        costs.take(round_of([6.0] * len(rounds), rounds))
        mults.step(costs)
    assert few.values == many.values


def test_controller_goes_on_from_its_state() -> None:
    one, other = multipliers(mult_kd=1.0), multipliers(mult_kd=1.0)
    costs = EpisodeCosts(E, 2)
    costs.take(round_of([6.0], [[0, 1, 2]]))
    one.step(costs)
    other.restore(one.state())
    for mults in (one, other):
        again = EpisodeCosts(E, 2)
        again.take(round_of([9.0], [[0, 1, 2]]))
        mults.step(again)
    assert one.values == other.values
    assert one.values[0] > 0


# --- margins --------------------------------------------------------------------------------------------------------------


def test_margins_integrate_the_excess_of_new_episodes_and_stay_within_their_range() -> None:
    margins, costs = Margins((5.0, 1000.0), E), EpisodeCosts(E, 2)
    margins.step(costs)
    assert margins.values == [0.0, 0.0]
    costs.take(round_of([6.0], [[0, 1, 2]]))  # 6 and 60
    margins.step(costs)
    assert margins.values == pytest.approx([0.2 * 1.0, 0.0])
    margins.step(costs)
    assert margins.values == pytest.approx([0.2, 0.0])  # nothing new
    costs.take(round_of([9.0], [[0]]))  # 9 and the 6 of the other two: 7 on average, a third of it new
    margins.step(costs)
    assert margins.values == pytest.approx([0.2 + 0.2 * 2.0 / 3, 0.0])
    for _ in range(9):
        costs.take(round_of([99.0], [[0, 1, 2]]))
        margins.step(costs)
    assert margins.values[0] == pytest.approx(0.2 * 5.0)
    for _ in range(9):
        costs.take(round_of([0.0], [[0, 1, 2]]))
        margins.step(costs)
    assert margins.values == [0.0, 0.0]
