"""What a network takes over from a network of another run that has other inputs.

Theory of operation. Two networks of one agent differ in their inputs when κ, the graph or a scope differs: the blocks of some
neighbours are new, those of others are gone. `InputMap` says which columns both have. The first layer then keeps the weights of
these columns, the weights of new columns are 0, and those of columns that are gone are dropped. So before the first update the
network gives what the other one gave, whatever the new columns hold. All further layers are the same in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class InputMap:
    """Which inputs of a network were inputs of another one.

    Attributes:
        here: Columns of the network that the other one had too, (C,).
        there: The same columns among the inputs of the other one, (C,).
        width: Inputs of the network.
        other_width: Inputs of the other one.
    """

    here: NDArray[np.intp]
    there: NDArray[np.intp]
    width: int
    other_width: int

    @classmethod
    def same(cls, width: int) -> "InputMap":
        """The map of two networks of the same inputs."""
        columns = np.arange(width)
        return cls(columns, columns, width, width)

    def followed_by(self, count: int) -> "InputMap":
        """The map with so many further columns behind all others, which both networks have."""
        more = np.arange(count)
        return InputMap(
            np.concatenate((self.here, self.width + more)),
            np.concatenate((self.there, self.other_width + more)),
            self.width + count,
            self.other_width + count,
        )

    def carry(self, table: Tensor, fresh: Tensor) -> Tensor:
        """Columns of the other network, (..., other_width), as those of this one, (..., width); new ones are as in `fresh`."""
        carried = fresh.detach().clone()
        carried[..., torch.from_numpy(self.here)] = table[..., torch.from_numpy(self.there)].to(carried.dtype)
        return carried


@dataclass(frozen=True, slots=True)
class Inherited:
    """An agent's weights as another run has stored them, for networks whose inputs may be others.

    Attributes:
        tensors: The weights by name.
        inputs: Which inputs the networks have in common.
        samples: How many samples the stored statistics of inputs stand for.
    """

    tensors: Mapping[str, Tensor]
    inputs: InputMap
    samples: int

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A stored tensor.

        Raises:
            ValueError: it is missing or has another shape.
        """
        found = self.tensors.get(name)
        if found is None or tuple(found.shape) != shape:
            raise ValueError(f"{name} needs shape {shape}, found {'nothing' if found is None else tuple(found.shape)}")
        return found

    def network(self, name: str, module: nn.Module, first: Tensor, *, more: int = 0) -> Tensor:
        """The weights of a module as one vector, in the order of its parameters.

        Args:
            name: What its weights are stored as.
            module: The module that is to have them.
            first: The weights (U, width) of its layer that takes the inputs.
            more: Inputs of that layer behind those of `inputs`, the same in both networks.

        Raises:
            ValueError: they are missing, or of a module of other sizes.
        """
        inputs = self.inputs.followed_by(more)
        parameters = list(module.parameters())
        sizes = [len(first) * inputs.other_width if each is first else each.numel() for each in parameters]
        parts = self.tensor(name, (sum(sizes),)).split(sizes)
        rows = (len(first), inputs.other_width)
        return torch.cat([
            inputs.carry(part.view(rows), torch.zeros_like(each)).flatten() if each is first else part
            for part, each in zip(parts, parameters, strict=True)
        ])  # fmt: skip

    def statistics(self, name: str) -> Tensor:
        """Offset and scale of the other network's inputs, (2, other_width).

        Raises:
            ValueError: as `tensor`.
        """
        return self.tensor(name, (2, self.inputs.other_width))
