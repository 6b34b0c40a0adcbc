"""Matrix products that depend on the numbers alone, and not on where in memory these lie.

MKL, with which torch multiplies on x86, picks a kernel by the addresses of its operands, and each kernel rounds differently.
Addresses come from the allocator and from the offset of a number in a received frame, so they differ between a run and its
repetition. MKL's conditional numerical reproducibility (CNR) mode makes it pick kernels by shape alone. MKL reads the mode
from the environment when it first computes, and keeps it for the life of the process. So this module asks for the mode
when it is imported, which is early, and `check` looks whether MKL has taken it, which is never too late: no network is made
without that look. Other libraries of torch, and numpy's OpenBLAS, do not look at addresses (docs/decisions/0019-same-bytes.md).

Source:
    oneMKL Developer Guide 2024.2, "Obtaining Numerically Reproducible Results".
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from pathlib import Path

# AUTO keeps the widest instructions that the processor has. STRICT asks besides that products of transposed operands, and
# of several threads, round as others do, where MKL can (its AVX2 and AVX-512 kernels); neither costs time that we could see
MODE = "AUTO,STRICT"
_OFF = 1
_ANY = -1  # of `get`: the mode with its flags
_TOLERANT = ContextVar("_TOLERANT", default=False)

os.environ.setdefault("MKL_CBWR", MODE)


def check() -> None:
    """Make sure that products in this process do not depend on addresses; costs nothing from the second time on.

    Raises:
        ValueError: MKL computed in this process before it was asked to be reproducible, or the environment forbids it.
    """
    if mode() == _OFF and not _TOLERANT.get():
        raise ValueError(
            "results would depend on memory addresses: torch has computed in this process before kappahop was imported, or "
            "MKL_CBWR is empty. Import kappahop before the first computation, start Python with MKL_CBWR=" + MODE + " in the "
            "environment, or run with processes"
        )


@contextlib.contextmanager
def tolerated() -> Iterator[bool]:
    """A block in which `check` passes: for what is not to repeat to the last bit; gives whether it would have passed anyway."""
    before = _TOLERANT.set(True)
    try:
        yield mode() != _OFF
    finally:
        _TOLERANT.reset(before)


@cache
def mode() -> int | None:
    """MKL's mode as its headers number it (1 is off), fixed from now on; None where torch multiplies without MKL."""
    import torch  # where this module is read by what does without torch, it costs nothing

    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return int(library.mkl_serv_cbwr_get(_ANY))
    except (OSError, AttributeError):
        return None
