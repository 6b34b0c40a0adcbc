"""What a process must remember to go on as if it had never stopped, as one file: numbers in safetensors, the rest in JSON.

Theory of operation. A `State` is a tree: dicts by name and lists, with arrays, numbers, texts, booleans and None as leaves.
Each part of a process gives its own (`state`) and takes it back (`restore`); a part whose contents follow from something
else (random streams are keyed by purpose and round, noise is drawn when a round begins) has none. In the file every array is
a tensor with a number for its name, and the tree itself, with that number in the place of each array, is JSON in the
file's metadata. Numbers come back bit for bit: JSON writes a float by its shortest exact digits and an integer in full.

Most parts only name the attributes that make up their state (`Stateful`).

A file appears whole or not at all (`topology.files`), and its digest tells later whether it is still what was written.
"""

import hashlib
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

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


class Stateful:
    """A part of a process whose state is some of its attributes.

    A class names them in `STATE`, none by an empty one; those of the classes that it derives from come first. An attribute is a
    number, text, bool or None, an array, a tensor of the processor, a `numpy.random.Generator`, a part that itself has `state`
    and `restore`, or a list or tuple of these. Parts, tensors and generators are restored in place, so that all that refer to
    them see it.
    """

    STATE: ClassVar[tuple[str, ...]]

    def state(self) -> State:
        """All that later rounds depend on, as a copy.

        Raises:
            NotImplementedError: neither the class nor one that it derives from has `STATE`.
        """
        return {name.lstrip("_"): _stored(getattr(self, name)) for name in _attributes(type(self))}

    def restore(self, state: State) -> None:
        """Take the state of a part that was made with the same arguments."""
        for name in _attributes(type(self)):
            value = getattr(self, name)
            restored = _restored(value, state[name.lstrip("_")])
            if restored is not value:
                setattr(self, name, restored)


def _attributes(kind: type) -> list[str]:
    named = [vars(base)["STATE"] for base in reversed(kind.__mro__) if "STATE" in vars(base)]
    if not named:
        raise NotImplementedError(f"{kind.__name__}.STATE: missing; expected the names of the attributes that make up its state")
    return [name for names in named for name in names]


def _stored(value: Any) -> Any:
    if hasattr(value, "restore"):
        return value.state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if hasattr(value, "detach"):  # a tensor; this module does without torch
        return value.detach().numpy().copy()
    if isinstance(value, list | tuple):
        return [_stored(each) for each in value]
    return value.copy() if isinstance(value, np.ndarray) else value


def _restored(value: Any, stored: Any) -> Any:
    if hasattr(value, "restore"):
        value.restore(stored)
    elif isinstance(value, np.random.Generator):
        value.bit_generator.state = stored
    elif hasattr(value, "detach"):
        value.detach().numpy()[...] = stored
    elif isinstance(value, list | tuple):
        restored = [_restored(mine, its) for mine, its in zip(value, stored, strict=True)]
        return value if all(map(operator.is_, value, restored)) else type(value)(restored)
    else:
        return stored
    return value


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
