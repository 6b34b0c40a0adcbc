"""Codecs: what a number becomes on the wire, against independent implementations, and how many bytes that takes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from topology.wire.codec import DType, decode, encode, row_bytes

Table = NDArray[np.float32]
TOP_BRAIN = torch.finfo(torch.bfloat16).max
shapes = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5)
anything = arrays.arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
ordinary = arrays.arrays(
    np.float32, shapes, elements=st.just(0.0) | st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda x: abs(x) > 1e-20)
)


def there_and_back(table: Table, dtype: DType) -> Table:
    rows, width = table.shape
    return decode(encode(table, dtype), rows, width, dtype)


@given(table=anything)
def test_float32_is_exact(table: Table) -> None:
    found = there_and_back(table, DType.FLOAT32)
    assert found.tobytes() == table.tobytes()
    assert not found.flags.writeable


@given(table=anything)
def test_float16_rounds_as_torch_does_and_saturates_where_torch_overflows(table: Table) -> None:
    expected = torch.from_numpy(table.clip(-65504, 65504)).to(torch.float16)
    assert encode(table, DType.FLOAT16) == expected.numpy().tobytes()
    assert there_and_back(table, DType.FLOAT16).tobytes() == expected.to(torch.float32).numpy().tobytes()
    assert np.isfinite(there_and_back(table, DType.FLOAT16)).all()


@given(table=anything)
def test_bfloat16_rounds_as_torch_does_and_saturates_where_torch_overflows(table: Table) -> None:
    expected = torch.from_numpy(table.clip(-TOP_BRAIN, TOP_BRAIN)).to(torch.bfloat16)
    assert encode(table, DType.BFLOAT16) == expected.view(torch.int16).numpy().tobytes()
    assert there_and_back(table, DType.BFLOAT16).tobytes() == expected.to(torch.float32).numpy().tobytes()


@given(bits=arrays.arrays(np.uint32, (1, 4)))
@example(bits=np.array([[0x3F808000, 0x3F818000, 0xBF808000, 0xBF818000]], np.uint32))  # halfway: to even
@example(bits=np.array([[0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0xFF7F7FFF]], np.uint32))  # largest, and about halfway to them
def test_bfloat16_rounds_every_pattern_that_is_a_number(bits: NDArray[np.uint32]) -> None:
    table = np.nan_to_num(bits.view(np.float32), nan=0.0).clip(-TOP_BRAIN, TOP_BRAIN)
    expected = torch.from_numpy(table).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(there_and_back(table, DType.BFLOAT16), expected)


@given(table=ordinary)
def test_int8_is_off_by_half_a_step_of_its_row_at_most(table: Table) -> None:
    step = np.abs(table).max(axis=1, keepdims=True).astype(np.float64) / 127
    error = np.abs(there_and_back(table, DType.INT8).astype(np.float64) - table)
    assert (error <= step * (0.5 + 1e-4)).all()


@given(table=ordinary)
def test_int8_never_changes_a_sign_and_keeps_zeros_and_the_largest(table: Table) -> None:
    found = there_and_back(table, DType.INT8)
    assert (found * np.sign(table) >= 0).all()
    assert (found[table == 0] == 0).all()
    np.testing.assert_allclose(np.abs(found).max(axis=1), np.abs(table).max(axis=1), rtol=1e-6)


def test_int8_rows_do_not_disturb_each_other() -> None:
    table = np.array([[1e6, -3.0], [1e-3, 5e-4]], np.float32)
    alone = np.concatenate([there_and_back(row[None], DType.INT8) for row in table])
    assert there_and_back(table, DType.INT8).tobytes() == alone.tobytes()


def test_int8_has_a_scale_and_then_the_steps() -> None:
    assert encode(np.array([[0.0, 254.0, -127.0]], np.float32), DType.INT8) == np.float32(2.0).tobytes() + bytes([
        0,
        127,
        256 - 64,
    ])


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16])
@given(table=anything)
def test_what_is_rounded_once_is_not_rounded_again(dtype: DType, table: Table) -> None:
    assert encode(there_and_back(table, dtype), dtype) == encode(table, dtype)


@given(table=ordinary)
def test_int8_keeps_its_steps_when_it_is_encoded_again(table: Table) -> None:
    # the scale may move by its last bit: 127·s/127 is not always s
    once = there_and_back(table, DType.INT8)
    np.testing.assert_allclose(there_and_back(once, DType.INT8), once, rtol=1e-6)


@pytest.mark.parametrize("dtype", DType)
@given(rows=st.integers(0, 5), width=st.integers(0, 9))
def test_a_table_takes_its_rows_times_a_rows_bytes(dtype: DType, rows: int, width: int) -> None:
    table = np.ones((rows, width), np.float32)
    assert len(encode(table, dtype)) == rows * row_bytes(width, dtype)
    assert there_and_back(table, dtype).shape == (rows, width)


def test_rows_take_what_their_numbers_take_and_int8_a_scale_more() -> None:
    assert [row_bytes(13, dtype) for dtype in DType] == [52, 26, 26, 17]


@pytest.mark.parametrize("dtype", DType)
@given(size=st.integers(0, 60))
def test_a_frame_of_another_size_is_refused(dtype: DType, size: int) -> None:
    if size == 2 * row_bytes(3, dtype):
        assert decode(bytes(size), 2, 3, dtype).tolist() == [[0] * 3] * 2
        return
    with pytest.raises(ValueError, match=f"expected 2 rows of 3 numbers as {dtype.name.lower()}, got {size} bytes"):
        decode(bytes(size), 2, 3, dtype)


def test_a_strided_table_is_encoded_as_its_copy(subtests: pytest.Subtests) -> None:
    for dtype in DType:
        with subtests.test(dtype=dtype):
            table = np.arange(12, dtype=np.float32).reshape(4, 3)
            for view in (table.T, table[::2], table[:, 1:]):
                assert encode(view, dtype) == encode(view.copy(), dtype)


@pytest.mark.parametrize("dtype", DType)
@given(body=st.binary(min_size=12, max_size=12))
def test_any_bytes_of_the_right_size_are_finite_numbers_or_refused(dtype: DType, body: bytes) -> None:
    width = {DType.FLOAT32: 3, DType.FLOAT16: 6, DType.BFLOAT16: 6, DType.INT8: 8}[dtype]
    with np.errstate(all="raise"):
        try:
            found = decode(body, 1, width, dtype)
        except ValueError:
            return
    assert np.isfinite(found).all()
    assert found.dtype == np.float32
    assert found.size == width == math.prod(found.shape)


def test_finite_numbers_stay_finite(subtests: pytest.Subtests) -> None:
    for dtype in DType:
        for largest in (np.finfo(np.float32).max, -np.finfo(np.float32).max):
            with subtests.test(dtype=dtype, largest=largest):
                assert np.isfinite(there_and_back(np.array([[largest, 1.0]], np.float32), dtype)).all()


def test_what_is_not_finite_is_refused_without_a_word_from_numpy(subtests: pytest.Subtests) -> None:
    """A frame of int8 with an infinite scale printed RuntimeWarnings into the node's log, and its rows were taken."""
    for bad in (np.nan, np.inf, -np.inf):
        for dtype in DType:
            with subtests.test(bad=bad, dtype=dtype):
                rows = {
                    DType.FLOAT32: np.array([[1, 2], [3, bad]], "<f4").tobytes(),
                    DType.FLOAT16: np.array([[1, 2], [3, bad]], "<f2").tobytes(),
                    DType.BFLOAT16: (np.array([[1, 2], [3, bad]], "<f4").view("<u4") >> 16).astype("<u2").tobytes(),
                    DType.INT8: encode(np.ones((1, 2), np.float32), DType.INT8) + np.float32(bad).tobytes() + bytes([0, 127]),
                }[dtype]
                with np.errstate(all="raise"), pytest.raises(ValueError, match=r"expected (finite numbers|scales from 0)"):
                    decode(rows, 2, 2, dtype)
