"""QMIX's mixer: a value of the team that rises with every agent's own value, however the state turns the dials.

Theory of operation. Q_tot(s, q) = w₂(s)·elu(q·W₁(s) + b₁(s)) + v(s), where networks of the state make all four; W₁ and w₂ are
absolute values, and elu rises. So Q_tot never falls when some q^i rises, and the joint action that is best for Q_tot is made of
the actions that each agent likes best: agents act alone on what was learnt together. The price is what such functions cannot
say: that an agent's best action depends on another's.

Source: Rashid et al. 2018 (arXiv:1803.11485), sections 4 and C; sizes of the public code: 32 units, hypernetworks of one
hidden layer of 64 for the weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from node.networks import MLP

UNITS = 32
HYPER = (64,)


class Mixer(nn.Module):
    """Q_tot of the agents' values and the state.

    Args:
        n_agents: n.
        state_width: D.
        generator: Draws the weights.
    """

    def __init__(self, n_agents: int, state_width: int, generator: torch.Generator) -> None:
        super().__init__()

        def network(hidden: tuple[int, ...], n_out: int) -> MLP:
            return MLP(
                state_width,
                hidden,
                n_out,
                activation="relu",
                layer_norm=False,
                input_layer_norm=False,
                head_gain=1.0,
                generator=generator,
            )

        self._inner = network(HYPER, n_agents * UNITS)
        self._inner_bias = network((), UNITS)
        self._outer = network(HYPER, UNITS)
        self._offset = network((UNITS,), 1)

    def forward(self, q: Float[Tensor, "B n"], state: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """Q_tot of each sample."""
        inner = self._inner(state).abs().unflatten(1, (q.shape[1], UNITS))
        hidden = functional.elu(torch.einsum("bn,bnu->bu", q, inner) + self._inner_bias(state))
        team: Tensor = (hidden * self._outer(state).abs()).sum(1) + self._offset(state).squeeze(1)
        return team
