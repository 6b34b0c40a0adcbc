"""A network of scalar linear systems with quadratic costs, whose optimum and whose value of every further hop are known exactly.

Theory of operation. Node i keeps x_i' = alpha x_i + beta sum_{j~i} x_j + u_i + w_i and pays x_i² + r u_i² per step: the graph
of the dynamics *is* the communication graph, so influence decays with hops. For linear feedback u = -K x the average cost per
step and node is J(K) = noise² tr(P) / N, P = I + r KᵀK + MᵀPM, M = A - K. `optimal_cost` minimises over all K (Riccati),
`best_local_gain` over the K whose entry (i, j) is 0 when j is more than kappa hops from i: the ratio of the two is what a
decentralised learner with kappa hops can at best reach. Where control is limited (`control_limit`) the same answers hold at a
higher price of control: the least cost within the limit is that of the price at which the optimum spends just so much
(`limited_cost`). The exact part works on plain matrices and never touches the simulation; tests compare the two.

Source: problem as in environments note, section 5.7; gradient of J after Fazel et al. 2018 (arXiv:1801.05039), lemma 1, there
for a start distribution, here for stationary noise (Sigma is then the stationary covariance).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from envs.copies import Ahead, Copies, normal
from envs.interface import Bools, EnvSpec, Floats, Outlook, Transition, World
from envs.networks.contacts import adjacency
from envs.networks.settings import LQ
from envs.scene import Layer, Scale, Scene, ends, graph_places, upper

Matrix = NDArray[np.float64]
EPISODE = 100  # steps
DIVERGED = 1e9  # a state or control beyond this is a fault; its square still fits float32
LINE_BETA = 0.27  # beta: auto on a line, and at most elsewhere
MARGIN = 0.95  # part of the way to the edge of stability that beta: auto goes
NOISE_BLOCK = 64  # steps of noise drawn at once per copy: one Python loop over copies in 64 steps


# --- the world ------------------------------------------------------------------------------------------------------


def spec(env: LQ) -> EnvSpec:
    """Shape of the LQ network; without a graph given, `kinematic` means a path.

    Args:
        env: The scenario's section.

    Returns:
        A cost if control is limited; one number sensed (all N with `observation: full`) and one control per node; time unit 1.
    """
    n = env.n_agents
    horizon = EPISODE if env.horizon is None else env.horizon
    return EnvSpec(
        obs_dims=(n if env.observation == "full" else 1,) * n,
        act_dims=(1,) * n,
        n_discrete=(0,) * n,
        cost_limits=() if env.control_limit is None else (env.control_limit * horizon,),
        horizon=horizon,
        dt=1.0,
        edges=tuple((i, i + 1) for i in range(n - 1)),
        own_costs=env.cost == "local",
    )


def outlook(env: LQ, graph: nx.Graph) -> Outlook:
    """The coupling in force on a graph, and whether the network is stable with it.

    Args:
        env: The scenario's section.
        graph: Communication graph on 0..N-1.

    Returns:
        `env.beta` as it is used; a doubt if the network is not stable.
    """
    beta, most = coupling(graph, env), largest_stable_beta(graph, env.alpha)
    rho = max(abs(env.alpha + beta * value) for value in _extremes(graph))
    facts = f"linear network: env.beta = {beta:.4g}, spectral radius ρ(αI + βA) = {rho:.4g}, stable for 0 ≤ β < {most:.4g}"
    doubts: tuple[str, ...] = ()
    if rho > 1:
        horizon = spec(env).horizon
        with np.errstate(over="ignore"):
            growth = np.float64(rho) ** horizon
        cure = f"stable for 0 ≤ env.beta < {most:.4g}" if most > 0 else f"no β is stable with env.alpha = {env.alpha:g}"
        doubts = (
            f"the linear network is unstable with env.beta = {beta:.4g} on this graph of {len(graph)} nodes and "
            f"{graph.number_of_edges()} edges: ρ(αI + βA) = {rho:.4g}, so without control states grow {growth:.2g}-fold in an "
            f"episode of {horizon} steps; {cure}",
        )
    return Outlook(in_force={"env.beta": beta}, facts=(facts,), doubts=doubts)


class NetworkLQ(Copies):
    """E copies of the network.

    Observation of node i: x_i (or all of x). Action: u_i, not clipped. Reward: -(x_i² + r u_i²) of the state acted on, each
    node's own (`local`) or their mean over nodes (`team`). Cost, if control is limited: u_i², own or mean likewise. Ends:
    truncation at the horizon; a state or control beyond 1e9 or not finite is a fault and terminates. Start: x ~ N(0, I). The
    exact costs below are averages over an infinite run; an episode from this start pays less in its first steps wherever the
    stationary variance is above 1.
    """

    STATE: ClassVar[tuple[str, ...]] = ("_x", "_noise")

    def __init__(self, env: LQ, graph: nx.Graph, seed: int) -> None:
        """Set up all copies; call `reset` before `step`.

        Args:
            env: The scenario's section.
            graph: Communication graph on 0..N-1, which couples the states.
            seed: Root of the copies' random streams.
        """
        super().__init__(spec(env), env.num_envs, seed)
        self._full = env.observation == "full"
        self._local = env.reward == "local"
        self._limited, self._own_cost = env.control_limit is not None, env.cost == "local"
        self._price, self._noise_std = env.control_weight, env.noise_std
        self._a = dynamics(graph, env)
        n = self.spec.n_agents
        self._x = np.zeros((self.num_envs, n))
        self._noise = Ahead(self._rngs, (n,), normal, steps=NOISE_BLOCK)

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance all copies one step under each node's control, (E, 1)."""
        u = np.concatenate(actions, axis=1, dtype=np.float64)
        faults: Bools = np.any(~(np.abs(u) < DIVERGED), axis=1)
        np.clip(np.nan_to_num(u, copy=False), -DIVERGED, DIVERGED, out=u)
        paid = -(self._x**2 + self._price * u**2)
        ret = paid.mean(axis=1)
        self._x = self._x @ self._a + u + self._noise_std * self._noise.step()
        faults |= np.any(~(np.abs(self._x) < DIVERGED), axis=1)
        np.clip(self._x, -DIVERGED, DIVERGED, out=self._x)
        reward = np.empty((self.spec.n_agents, self.num_envs), np.float32)
        reward[:] = paid.T if self._local else ret
        if not self._limited:
            return self._episodes.conclude(ret, reward, faults, faults)
        squared = u**2
        spent = squared.mean(axis=1, keepdims=True)
        cost = np.empty((*reward.shape, 1), np.float32)
        cost[:, :, 0] = squared.T if self._own_cost else spent[:, 0]
        return self._episodes.conclude(ret, reward, faults, faults, spent=spent, cost=cost)

    def _restart(self, ids: NDArray[np.intp]) -> None:
        for e in ids:
            self._x[e] = self._rngs[e].standard_normal(self._x.shape[1])

    def _observe(self) -> list[Floats]:
        x = self._x.astype(np.float32)
        if self._full:
            return [x.copy() for _ in range(x.shape[1])]
        return [column.reshape(-1, 1) for column in np.ascontiguousarray(x.T)]


def scene(world: NetworkLQ, copy: int) -> Scene:
    """Nodes coloured by their states, joined where they are coupled."""
    edges = upper(np.abs(world._a))
    places = graph_places(world.spec.n_agents, edges)
    joined = Layer(scale=Scale("coupling", 0.0, 0.5), at=ends(places, edges), values=np.array([world._a[edge] for edge in edges]))
    states = Layer(scale=Scale("state", -5.0, 5.0), at=places, values=world._x[copy], size=2.0)
    return Scene(layers=[joined, states], agents=places)


WORLD: World[LQ] = World(settings=LQ, spec=spec, make=NetworkLQ, outlook=outlook, scene=scene)


# --- the exact answers ----------------------------------------------------------------------------------------------
# scipy is imported where it is used: the world's process asks for no exact answers and starts sooner without it.


def coupling(graph: nx.Graph, lq: LQ) -> float:
    """The beta in force: the scenario's, or what `auto` comes to on a graph.

    Args:
        graph: Undirected connected graph on 0..N-1.
        lq: The scenario's section.

    Returns:
        With auto 0.27 on a line, elsewhere the smaller of 0.27 and 0.95·(1 - |alpha|)/λ_max, with which ρ < 1.
    """
    if lq.beta != "auto":
        return lq.beta
    if graph.number_of_edges() == len(graph) - 1 and all(degree <= 2 for _, degree in graph.degree):
        return LINE_BETA
    return min(LINE_BETA, MARGIN * (1.0 - abs(lq.alpha)) / _extremes(graph)[1])


def largest_stable_beta(graph: nx.Graph, alpha: float) -> float:
    """The beta from 0 on below which every eigenvalue of alpha·I + beta·Adj(G) lies within ±1.

    Args:
        graph: Undirected graph on 0..N-1.
        alpha: How much of its own state a node keeps.

    Returns:
        inf without edges; 0 if alpha is not within ±1.
    """
    if abs(alpha) >= 1:
        return 0.0
    if not graph.number_of_edges():
        return float("inf")
    least, most = _extremes(graph)
    return min((1.0 - alpha) / most, (1.0 + alpha) / -least)


def _extremes(graph: nx.Graph) -> tuple[float, float]:
    """The least and the largest eigenvalue of Adj(G).

    Rounded, so that the last bits of a library's eigenvalues, which depend on the processor, do not reach the dynamics.
    """
    return _rounded_extremes(len(graph), tuple(sorted((min(edge), max(edge)) for edge in graph.edges)))


@lru_cache(maxsize=16)
def _rounded_extremes(n: int, edges: tuple[tuple[int, int], ...]) -> tuple[float, float]:
    found = np.linalg.eigvalsh(adjacency(n, edges))
    return round(float(found[0]), 9), round(float(found[-1]), 9)


def dynamics(graph: nx.Graph, lq: LQ) -> Matrix:
    """A = alpha I + beta Adj(G) with the beta in force, nodes in ascending order.

    Args:
        graph: Undirected graph on 0..N-1.
        lq: The scenario's section.

    Returns:
        (N, N), symmetric.
    """
    return lq.alpha * np.eye(len(graph)) + coupling(graph, lq) * adjacency(len(graph), graph.edges)


def optimal_cost(a: Matrix, r: float, noise_std: float = 1.0) -> tuple[float, Matrix]:
    """The least average cost of any controller that sees everything.

    P solves the Riccati equation P = I + Aᵀ P (I + P/r)⁻¹ A; K = (r I + P)⁻¹ P A.

    Args:
        a: A, (N, N).
        r: Price of a squared control, positive.
        noise_std: Standard deviation of w.

    Returns:
        J* per step and node, and the gain K (N, N) of u = -K x.

    Raises:
        ArithmeticError: The equation could not be solved.
    """
    from scipy import linalg

    eye = np.eye(len(a))
    try:
        p: Matrix = linalg.solve_discrete_are(a, eye, eye, r * eye)
    except np.linalg.LinAlgError as error:
        raise ArithmeticError(f"optimal_cost: no solution of the Riccati equation found for r={r} ({error})") from None
    gain: Matrix = np.asarray(np.linalg.solve(r * eye + p, p @ a), np.float64)
    return float(noise_std**2 * np.trace(p) / len(a)), gain


def _is_stable(m: Matrix) -> bool:
    return bool(np.abs(np.linalg.eigvals(m)).max() < 1)


def _lyapunov(m: Matrix, q: Matrix) -> Matrix:
    """S = q + mᵀ S m, for a stable m."""
    from scipy import linalg

    return np.asarray(linalg.solve_discrete_lyapunov(m.T, q), np.float64)


def gain_cost(a: Matrix, k: Matrix, r: float, noise_std: float = 1.0) -> float:
    """The average cost per step and node of u = -K x.

    Args:
        a: A, (N, N).
        k: K, (N, N).
        r: Price of a squared control.
        noise_std: Standard deviation of w.

    Returns:
        J(K); inf if A - K is not stable.
    """
    if not _is_stable(a - k):
        return float("inf")
    return float(noise_std**2 * np.trace(_lyapunov(a - k, np.eye(len(a)) + r * k.T @ k)) / len(a))


def limited_cost(a: Matrix, lq: LQ) -> tuple[float, float]:
    """The least average cost of any controller that sees everything and keeps the nodes' mean squared control within its limit.

    Lagrange: minimising E[x² + r u²] with E[u²] <= limit is minimising E[x² + r' u²] at the price r' >= r at which the optimum
    spends the limit, found by bisection of its logarithm.

    Args:
        a: A, (N, N).
        lq: The scenario's section, with a `control_limit`.

    Returns:
        J* per step and node, at the world's own price r, and what the optimum spends: E[u²] per node.

    Raises:
        ValueError: There is no limit, or no controller found within it.
    """
    limit, r, noise = lq.control_limit, lq.control_weight, lq.noise_std
    if limit is None:
        raise ValueError("env.control_limit: got null; without a limit `optimal_cost` has the answer")

    def spends(price: float) -> tuple[float, Matrix]:
        gain = optimal_cost(a, price)[1]
        states = _lyapunov((a - gain).T, noise**2 * np.eye(len(a)))
        return float(np.trace(gain @ states @ gain.T)) / len(a), gain

    low, high = np.log(r), np.log(r)
    while spends(np.exp(high))[0] > limit:
        if high - low > np.log(1e6):
            raise ValueError(f"env.control_limit: got {limit}; no controller known that spends so little")
        high += 1.0
    for _ in range(50 if high > low else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if spends(np.exp(middle))[0] > limit else (low, middle)
    spent, gain = spends(np.exp(high))
    return gain_cost(a, gain, r, noise), spent


def gain_gradient(a: Matrix, k: Matrix, r: float, noise_std: float = 1.0) -> Matrix:
    """dJ/dK = 2 (r K - P M) Sigma / N with M = A - K and Sigma the stationary covariance.

    Args:
        a: A, (N, N).
        k: K, (N, N), stabilising.
        r: Price of a squared control.
        noise_std: Standard deviation of w.

    Returns:
        (N, N).

    Raises:
        ValueError: A - K is not stable.
    """
    m = a - k
    if not _is_stable(m):
        raise ValueError("gain_gradient: A - K is not stable, the average cost is infinite")
    p = _lyapunov(m, np.eye(len(a)) + r * k.T @ k)
    sigma = _lyapunov(m.T, noise_std**2 * np.eye(len(a)))
    return np.asarray(2.0 * (r * k - p @ m) @ sigma / len(a))


def within(graph: nx.Graph, kappa: int) -> NDArray[np.bool_]:
    """Which nodes are at most kappa hops apart, (N, N), nodes in ascending order."""
    nodes = sorted(graph)
    mask = np.zeros((len(nodes), len(nodes)), bool)
    place = {node: k for k, node in enumerate(nodes)}
    for node in nodes:
        mask[place[node], [place[j] for j in nx.single_source_shortest_path_length(graph, node, cutoff=kappa)]] = True
    return mask


def best_local_gain(graph: nx.Graph, kappa: int, lq: LQ) -> tuple[float, Matrix]:
    """The best gain whose node i uses only states within kappa hops, by L-BFGS on the exact gradient.

    The cost is smooth but not convex in a structured gain: this is a local optimum, reached from the best of several stable
    starts.

    Args:
        graph: Undirected graph on 0..N-1.
        kappa: Hops, >= 0.
        lq: The scenario's section.

    Returns:
        J per step and node, and K (N, N).

    Raises:
        ValueError: None of the starts is stable, so no answer is known.
    """
    from scipy import optimize

    a, r, mask = dynamics(graph, lq), lq.control_weight, within(graph, kappa)
    _, best = optimal_cost(a, r)
    starts = (mask * best, mask * a, lq.alpha * np.eye(len(a)), 0.0 * a, (mask & ~np.eye(len(a), dtype=bool)) * a / 2)
    cost, start = min(((gain_cost(a, start, r), start) for start in starts), key=lambda pair: pair[0])
    if not np.isfinite(cost):
        raise ValueError(
            f"best_local_gain: no stabilising gain known for kappa={kappa}, alpha={lq.alpha}, beta={coupling(graph, lq)}"
        )

    def full(entries: Matrix) -> Matrix:
        k = np.zeros_like(a)
        k[mask] = entries
        return k

    def cost_and_gradient(entries: Matrix) -> tuple[float, Matrix]:
        k = full(entries)
        worth = gain_cost(a, k, r)
        if not np.isfinite(worth):  # the line search cannot interpolate with infinity; of this it knows that it went too far
            return 10.0 * cost, np.zeros_like(entries)
        return worth, gain_gradient(a, k, r)[mask]

    options = {"maxcor": 20, "maxiter": 2000, "maxfun": 10_000, "ftol": 1e-13, "gtol": 1e-9}
    found = optimize.minimize(cost_and_gradient, start[mask], method="L-BFGS-B", jac=True, options=options)
    k = full(found.x)
    return gain_cost(a, k, r, lq.noise_std), k


def kappa_curve(graph: nx.Graph, lq: LQ, kappas: Sequence[int]) -> list[float]:
    """How much worse than the optimum the best kappa-hop gain is, for each kappa.

    Args:
        graph: Undirected graph on 0..N-1.
        lq: The scenario's section.
        kappas: Hops.

    Returns:
        J_kappa / J*, each at least 1.
    """
    a, r = dynamics(graph, lq), lq.control_weight
    best, _ = optimal_cost(a, r)  # the ratio does not depend on the noise, so it exists without noise too
    return [gain_cost(a, best_local_gain(graph, kappa, lq)[1], r) / best for kappa in kappas]


def best_return(graph: nx.Graph, lq: LQ, kappa: int, horizon: int) -> float:
    """What the best kappa-hop gain is expected to return in an episode, mean over nodes, from x ~ N(0, I) on.

    The gain is the best in the long run, which for an episode of some dozens of steps is as good as its own best.

    Args:
        graph: Undirected graph on 0..N-1.
        lq: The scenario's section.
        kappa: Hops.
        horizon: Steps of an episode.
    """
    a, (_, gain) = dynamics(graph, lq), best_local_gain(graph, kappa, lq)
    price = np.eye(len(a)) + lq.control_weight * gain.T @ gain
    spread, total = np.eye(len(a)), 0.0  # covariance of the states
    for _ in range(horizon):
        total += float(np.trace(price @ spread)) / len(a)
        spread = (a - gain) @ spread @ (a - gain).T + lq.noise_std**2 * np.eye(len(a))
    return -total
