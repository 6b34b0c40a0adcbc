"""Codecs: how many bytes a number takes on a link.

Theory of operation. What a peer message carries is a table of numbers, one row per environment copy or per sample, which
leaves as float32 or, to save bytes, as something smaller. A codec is chosen per kind of message by the scenario
(`network.codec`) and named in the header of every frame. `int8` scales each row by its largest magnitude and carries
that scale as a float32 before the row; the others round each number by itself, to nearest even. Decoding gives float32
again; what a relay passes on is the frame as it came, so a number is rounded once however far it travels.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from topology.finite import is_finite


class DType(IntEnum):
    """The closed list of element types on the wire."""

    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4


_ITEM_BYTES = {DType.FLOAT32: 4, DType.FLOAT16: 2, DType.BFLOAT16: 2, DType.INT8: 1}
_SCALE_BYTES = 4
_TOP_HALF = 65504.0  # largest finite float16
_TOP_BRAIN = float(np.array(0x7F7F0000, "<u4").view("<f4"))  # largest finite bfloat16
_TOP_SCALE = float(np.finfo(np.float32).max) / 128  # times any int8 still finite


def row_bytes(width: int, dtype: DType) -> int:
    """Bytes of one row of `width` numbers.

    Example:
        >>> row_bytes(13, DType.FLOAT32), row_bytes(13, DType.INT8)
        (52, 17)
    """
    return width * _ITEM_BYTES[dtype] + (_SCALE_BYTES if dtype is DType.INT8 else 0)


def encode(table: NDArray[np.float32], dtype: DType) -> bytes:
    """The bytes of a table (rows, width) of finite numbers, row by row, little-endian; what a codec cannot reach saturates."""
    if dtype is DType.FLOAT32:
        return table.tobytes()
    if dtype is DType.FLOAT16:
        return np.clip(table, -_TOP_HALF, _TOP_HALF).astype("<f2").tobytes()
    if dtype is DType.BFLOAT16:
        bits = np.ascontiguousarray(np.clip(table, -_TOP_BRAIN, _TOP_BRAIN), "<f4").view("<u4")
        rounded: NDArray[np.uint32] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return rounded.astype("<u2").tobytes()
    scale = np.minimum(np.abs(table).max(axis=1, initial=0.0) / 127.0, _TOP_SCALE).astype("<f4")
    steps = np.rint(table / np.where(scale > 0, scale, 1.0)[:, None]).clip(-127, 127).astype(np.int8)
    return np.concatenate((scale[:, None].view(np.uint8), steps.view(np.uint8)), axis=1).tobytes()


def decode(body: bytes, rows: int, width: int, dtype: DType) -> NDArray[np.float32]:
    """The table (rows, width) of finite numbers in a frame; read-only where it needs no conversion.

    Raises:
        ValueError: the frame has another size, or a number in it is not finite.
    """
    found = _decoded(body, rows, width, dtype)
    if not is_finite(found):
        raise ValueError("expected finite numbers, got NaN or infinity")
    return found


def _decoded(body: bytes, rows: int, width: int, dtype: DType) -> NDArray[np.float32]:
    if len(body) != rows * row_bytes(width, dtype):
        raise ValueError(f"expected {rows} rows of {width} numbers as {dtype.name.lower()}, got {len(body)} bytes")
    if dtype is DType.FLOAT32:
        return np.frombuffer(body, "<f4").reshape(rows, width)
    if dtype is DType.FLOAT16:
        return np.frombuffer(body, "<f2").reshape(rows, width).astype(np.float32)
    if dtype is DType.BFLOAT16:
        bits = np.frombuffer(body, "<u2").astype("<u4") << 16
        return bits.view("<f4").reshape(rows, width)
    raw = np.frombuffer(body, np.uint8).reshape(rows, _SCALE_BYTES + width)
    scale = np.ascontiguousarray(raw[:, :_SCALE_BYTES]).view("<f4")
    if not (scale.min(initial=0.0) >= 0.0 and scale.max(initial=0.0) <= _TOP_SCALE):  # NaN is neither
        raise ValueError(f"expected scales from 0 to {_TOP_SCALE:g}, got {scale.min():g} to {scale.max():g}")
    table: NDArray[np.float32] = raw[:, _SCALE_BYTES:].view(np.int8) * scale
    return table
