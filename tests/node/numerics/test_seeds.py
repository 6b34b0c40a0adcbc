"""Random streams: equal keys give equal streams, and no two keys that a run uses share one."""

import numpy as np
import torch

from node.numerics.networks import torch_stream
from node.numerics.seeds import Purpose, stream

KEYS = [
    *((seed, purpose, agent, index) for seed in (0, 1, 2**32 - 1) for purpose in (Purpose.INIT, Purpose.NOISE, Purpose.SHUFFLE)
      for agent in (0, 1, 2, 1023) for index in (0, 1, 2, 3, 1000)),
    *((seed, round_, purpose) for seed in (0, 1, 2**32 - 1) for round_ in (0, 1, 2, 3, 1000)
      for purpose in (Purpose.ORDER, Purpose.JOINT_SHUFFLE)),
    *((seed, Purpose.MODEL, agent, part, index) for seed in (0, 1, 2**32 - 1) for agent in (0, 1, 2, 1023) for part in (0, 1)
      for index in (0, 1, 2, 3, 1000)),
]  # fmt: skip


def test_equal_keys_give_equal_streams_however_many_others_were_drawn() -> None:
    first = stream(0, Purpose.NOISE, 3, 7).random(5)
    stream(0, Purpose.NOISE, 3, 8).random(1000)
    np.testing.assert_array_equal(stream(0, Purpose.NOISE, 3, 7).random(5), first)
    assert torch.equal(
        torch.rand(5, generator=torch_stream(0, Purpose.INIT, 3, 0)), torch.rand(5, generator=torch_stream(0, Purpose.INIT, 3, 0))
    )


def test_no_two_keys_of_a_run_share_a_stream() -> None:
    assert len({tuple(stream(*key).integers(2**63, size=2)) for key in KEYS}) == len(KEYS)
    torch_draws = {tuple(torch.randint(2**62, (2,), generator=torch_stream(*key)).tolist()) for key in KEYS}
    assert len(torch_draws) == len(KEYS)


def test_streams_of_neighbouring_keys_are_uncorrelated() -> None:
    draws = np.stack([stream(0, Purpose.NOISE, agent, round_).standard_normal(4000) for agent in range(4) for round_ in range(4)])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)  # five standard errors, 120 pairs


def test_global_generators_are_neither_read_nor_moved() -> None:
    state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    first = stream(5, Purpose.SHUFFLE, 0, 0).permutation(10)
    torch.rand(3, generator=torch_stream(5, Purpose.INIT, 0, 0))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.rand(1)
    np.testing.assert_array_equal(stream(5, Purpose.SHUFFLE, 0, 0).permutation(10), first)
