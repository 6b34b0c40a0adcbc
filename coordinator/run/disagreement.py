"""How far agents that average their networks are from agreeing: a figure of the run that no agent can know.

Every agent's report of a round holds the weights that neighbours average. When all reports of a round are here, the distance of
each agent's weights from the mean over agents is ‖w_i - mean‖, the Euclidean norm.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from topology.planes.control import RoundReport

PREFIX = "disagreement_"  # of the metric, before the name of the network


class Disagreement:
    """Weights of the rounds that not all agents have ended.

    Args:
        n_agents: n.
    """

    def __init__(self, n_agents: int) -> None:
        self._n = n_agents
        self._rounds: dict[int, dict[int, Mapping[str, bytes]]] = {}

    def take(self, report: RoundReport) -> None:
        """Take in a report, if there are weights in it."""
        if report.agreeing and report.agent < self._n:
            self._rounds.setdefault(report.round, {})[report.agent] = report.agreeing

    def known(self, gone: Collection[int] = ()) -> Iterator[tuple[tuple[int, int], dict[str, float]]]:
        """The metrics of every agent in rounds that all agents have ended, but for those that are `gone`; each once.

        Yields:
            Round and agent, and their metrics by name.
        """
        for round_ in sorted(self._rounds):
            if self._rounds[round_].keys() | set(gone) >= set(range(self._n)):
                yield from _distances(round_, self._rounds.pop(round_))


def _distances(round_: int, told: Mapping[int, Mapping[str, bytes]]) -> Iterator[tuple[tuple[int, int], dict[str, float]]]:
    agents = sorted(told)
    found: dict[int, dict[str, float]] = {agent: {} for agent in agents}
    for name in told[agents[0]]:
        bodies = [told[agent].get(name, b"") for agent in agents]
        if len({len(body) for body in bodies}) > 1 or len(bodies[0]) % 4:
            continue  # not what nodes of this version report
        weights: NDArray[np.float64] = np.stack([np.frombuffer(body, "<f4") for body in bodies]).astype(np.float64)
        for agent, distance in zip(agents, np.linalg.norm(weights - weights.mean(axis=0), axis=1), strict=True):
            found[agent][f"{PREFIX}{name}"] = float(distance)
    for agent, metrics in found.items():
        yield (round_, agent), metrics
