"""Stored states: every kind of leaf comes back bit for bit, random streams go on, and a broken file is told from a good one."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import array_shapes, arrays

from topology.snapshot import State, Stateful, read, restore_streams, streams, write

NUMBERS = some.none() | some.booleans() | some.integers(-(2**130), 2**130) | some.floats(allow_nan=False) | some.text(max_size=5)
ARRAYS = some.sampled_from([np.float64, np.float32, np.int64, np.int8, np.uint64, np.bool_]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
NAMES = some.text(max_size=4)
LEAVES = NUMBERS | ARRAYS
TREES = some.recursive(
    LEAVES, lambda below: some.lists(below, max_size=3) | some.dictionaries(NAMES, below, max_size=3), max_leaves=8
)


def same(one: object, two: object) -> bool:
    if isinstance(one, np.ndarray):
        assert isinstance(two, np.ndarray)
        return (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())
    if isinstance(one, dict):
        assert isinstance(two, dict)
        return list(one) == list(two) and all(same(below, two[name]) for name, below in one.items())
    if isinstance(one, list):
        assert isinstance(two, list)
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return type(one) is type(two) and one == two


@given(state=some.dictionaries(NAMES, TREES, max_size=4))
def test_what_is_stored_comes_back_bit_for_bit(state: State, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("state") / "below" / "node-0.safetensors"
    write(path, state)
    assert same(state, read(path))
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_an_array_that_lies_elsewhere_in_memory_is_stored_as_it_reads(tmp_path: Path) -> None:
    table = np.arange(12.0).reshape(3, 4)
    write(tmp_path / "a", {"part": table.T[:, ::2]})
    found = read(tmp_path / "a")["part"]
    assert np.array_equal(found, table.T[:, ::2])
    found[:] = 0.0  # what is restored is written to again


def test_streams_go_on_where_they_were(tmp_path: Path) -> None:
    one, other = np.random.default_rng(1), np.random.default_rng(2)
    one.random(5)
    one.integers(10, dtype=np.int32)  # leaves half a word for later
    write(tmp_path / "a", {"streams": streams([one, other])})
    again = [np.random.default_rng(3), np.random.default_rng(4)]
    restore_streams(again, read(tmp_path / "a")["streams"])
    for before, after in zip((one, other), again, strict=True):
        assert before.integers(10, size=3, dtype=np.int32).tolist() == after.integers(10, size=3, dtype=np.int32).tolist()
        assert before.standard_normal(5).tobytes() == after.standard_normal(5).tobytes()


def test_a_broken_file_is_refused_by_name(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for content in (b"", b"abc", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 100):
        with subtests.test(content=content):
            path = tmp_path / "node-0.safetensors"
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"node-0\.safetensors: not a stored state"):
                read(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere: not a stored state"):
        read(tmp_path / "nowhere")


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write(tmp_path / "a", {"thing": object()})
    assert list(tmp_path.iterdir()) == []


class Count(Stateful):
    STATE: ClassVar[tuple[str, ...]] = ("_count",)

    def __init__(self, count: int) -> None:
        self._count = count


class Everything(Count):
    STATE = ("rows", "pair", "nothing", "_vector", "_draws", "_parts", "_first_part")

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.rows = np.arange(seed)
        self.pair, self.nothing = (seed, f"{seed}"), None
        self._vector = torch.full((2,), float(seed), requires_grad=True)
        self._draws = [np.random.default_rng(seed + i) for i in range(2)]
        self._parts = [Count(seed + 1), Count(seed + 2)]

    @property
    def _first_part(self) -> Count:
        return self._parts[0]


def test_named_attributes_come_back_and_shared_ones_stay_the_same_objects(tmp_path: Path) -> None:
    one, two = Everything(3), Everything(5)
    write(tmp_path / "states" / "one", one.state())
    shared, part = two._vector.detach(), two._parts[1]
    two.restore(read(tmp_path / "states" / "one"))
    assert same(two.rows, one.rows)
    assert (two._count, two.pair, two.nothing) == (3, (3, "3"), None)
    assert shared.tolist() == [3.0, 3.0]
    assert part._count == 5
    assert [draw.random() for draw in two._draws] == [draw.random() for draw in one._draws]


def test_a_state_is_a_copy() -> None:
    one = Everything(3)
    state = one.state()
    one.rows[:] = 9
    one._vector.detach().fill_(9.0)
    assert same(state["rows"], np.arange(3))
    assert same(state["vector"], np.full(2, 3.0, np.float32))


def test_a_class_that_names_no_state_says_so() -> None:
    class Forgetful(Stateful):
        pass

    with pytest.raises(NotImplementedError, match=r"Forgetful\.STATE: missing; expected the names"):
        Forgetful().state()
