"""What a process must remember to go on as if it had never stopped, as one file: numbers in safetensors, the rest in JSON.

Theory of operation. A `State` is a tree: dicts by name and lists, with arrays, numbers, texts, booleans and None as leaves.
Each part of a process says its own (`state`) and takes it back (`restore`); a part whose contents follow from something
else (random streams are keyed by purpose and round, noise is drawn when a round begins) has none. In the file every array is
a tensor with a number for its name, and the tree itself, with that number in the place of each array, is JSON in the
file's metadata. Numbers come back bit for bit: JSON writes a float by its shortest exact digits and an integer in full.

A file appears whole or not at all (`topology.files`), and its digest tells later whether it is still what was written.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from topology.files import replace

State = dict[str, Any]
_TREE = "state"  # key of the metadata
_BROKEN = (OSError, SafetensorError, KeyError, ValueError, TypeError)  # what a file that is none of ours raises
_ARRAY = "array"  # {"array": number} stands for an array; so no dict of a tree may have this for its only key


def write(path: Path, state: State) -> str:
    """Store a state; its folder is made, and the one above it, but no run's folder that was deleted.

    Returns:
        The file's SHA-256.

    Raises:
        OSError: it cannot be written.
        TypeError: a leaf is none of those that a tree may have.
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = json.dumps(_taken_apart(state, arrays))
    content = save(arrays, metadata={_TREE: tree})
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(exist_ok=True)
    replace(path, content)
    return hashlib.sha256(content).hexdigest()


def read(path: Path) -> State:
    """A stored state.

    Raises:
        ValueError: the file is not there, or is none that `write` wrote.
    """
    try:
        arrays, metadata = _opened(path)
        state = _put_together(json.loads(metadata[_TREE]), arrays)
    except (*_BROKEN, RecursionError) as error:
        raise ValueError(f"{path}: not a stored state ({' '.join(str(error).split())[:200]})") from None
    assert isinstance(state, dict), "a state is written as a dict"
    return state


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file of weights, by name.

    Raises:
        ValueError: the file is not there, or holds no tensors.
    """
    try:
        return _opened(path)[0]
    except _BROKEN as error:
        raise ValueError(f"{path}: no stored weights ({' '.join(str(error).split())[:200]})") from None


def _opened(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  (no dict)


def streams(generators: Sequence[np.random.Generator]) -> list[Any]:
    """Where random streams are."""
    return [generator.bit_generator.state for generator in generators]


def restore_streams(generators: Sequence[np.random.Generator], states: Sequence[Any]) -> None:
    """Take random streams back to where they were."""
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state


def _taken_apart(part: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(part, np.ndarray):
        number = str(len(arrays))
        arrays[number] = np.asarray(part, order="C")
        return {_ARRAY: number}
    if isinstance(part, dict):
        return {name: _taken_apart(below, arrays) for name, below in part.items()}
    if isinstance(part, list | tuple):
        return [_taken_apart(below, arrays) for below in part]
    return part


def _put_together(part: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(part, list):
        return [_put_together(below, arrays) for below in part]
    if not isinstance(part, dict):
        return part
    if part.keys() == {_ARRAY}:
        return arrays[part[_ARRAY]]
    return {name: _put_together(below, arrays) for name, below in part.items()}
