"""QMIX's mixer: what it promises for every state, and the game that no such function can describe."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch

from benchmarks.values import mixed_fit
from node.mixer import Mixer

N, WIDTH, ACTIONS = 3, 4, 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a node: for networks of this size more threads cost ten times the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def mixer(seed: int) -> tuple[Mixer, torch.Generator]:
    draw = torch.Generator().manual_seed(seed)
    return Mixer(N, WIDTH, draw), draw


@pytest.mark.parametrize("seed", range(5))
def test_the_team_never_loses_where_an_agent_gains(seed: int) -> None:
    mix, draw = mixer(seed)
    q = (3.0 * torch.randn(200, N, generator=draw)).requires_grad_()
    mix(q, torch.randn(200, WIDTH, generator=draw)).sum().backward()
    assert q.grad is not None
    assert (q.grad >= 0).all()
    assert (q.grad > 0).any(dim=0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_best_joint_action_is_what_each_agent_likes_best(seed: int) -> None:
    mix, draw = mixer(seed)
    state, own = torch.randn(50, WIDTH, generator=draw), torch.randn(50, N, ACTIONS, generator=draw)
    joint = list(product(range(ACTIONS), repeat=N))
    with torch.no_grad():
        values = torch.stack([mix(own[:, range(N), list(action)], state) for action in joint], dim=1)
        greedy = mix(own.max(dim=2).values, state)
    assert (values <= greedy[:, None]).all()
    assert torch.equal(values.max(dim=1).values, greedy)


def test_value_depends_on_the_state_and_the_state_turns_the_weights() -> None:
    mix, draw = mixer(0)
    q = torch.randn(1, N, generator=draw)
    with torch.no_grad():
        gains = [mix(q + 1.0, state[None]) - mix(q, state[None]) for state in torch.randn(5, WIDTH, generator=draw)]
    assert len({round(float(gain), 4) for gain in gains}) == 5


def test_no_mixer_describes_the_game_of_minus_twenty() -> None:
    payoff = np.array([[8.0, -20.0, -20.0], [-20.0, 0.0, 0.0], [-20.0, 0.0, 0.0]])
    table = mixed_fit(payoff, 0)
    error = float(((table - payoff) ** 2).sum())
    assert 627.1 <= error < 660.0  # 627.2: the best that any monotone function does
    assert payoff.flat[table.argmax()] == 0.0
    easy = np.add.outer([0.0, 1.0, 5.0], [2.0, 0.0, -3.0])
    assert np.abs(mixed_fit(easy, 0) - easy).max() < 0.1
