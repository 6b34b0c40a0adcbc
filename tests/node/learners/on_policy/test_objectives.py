"""Objectives: slopes by closed forms, each algorithm's rules, and exact games through the objects that training uses."""

import math
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from node.learners.on_policy.objectives import Clip, DoubleClip, Focops, KLPenalty, objective_of
from node.numerics.advantage import gae
from node.numerics.losses import (
    adapted_price,
    clip_objective,
    divergence_price,
    double_clip_objective,
    focops_objective,
    ramped_clip,
)
from node.numerics.policies import Categorical
from scenarios.schema import Algorithm

Floats = NDArray[np.float64]


def objective(kind: str, **settings: Any) -> Clip:
    axes: dict[str, Any] = {"name": "ippo", "objective": kind}
    return objective_of(Algorithm.model_validate(axes | settings))


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def slope(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), of)[0]


# --- double clip and its room ----------------------------------------------------------------------------------------------


def test_with_others_standing_still_the_double_clip_is_the_clip_with_its_slope() -> None:
    advantage = normals(500, seed=1)
    found = []
    for kind, factor in (("clip", None), ("double_clip", torch.ones(500, dtype=torch.float64)), ("double_clip", None)):
        rho = torch.exp(normals(500)).requires_grad_()
        gain = objective(kind).gain(rho, advantage, factor)
        found.append((gain.detach(), slope(gain, rho)))
    for gain, its_slope in found[1:]:
        torch.testing.assert_close(gain, found[0][0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(its_slope, found[0][1], rtol=1e-12, atol=1e-12)


def test_of_two_agents_the_others_ratio_is_clipped_alone_and_small_ratios_multiply() -> None:
    rho, other, advantage = torch.exp(0.02 * normals(300)), torch.exp(0.02 * normals(300, seed=1)), normals(300, seed=2)
    joint = double_clip_objective(rho, other, advantage, clip=0.2, clip_others=0.1)
    torch.testing.assert_close(joint, rho * other * advantage, rtol=1e-12, atol=0.0)
    far = double_clip_objective(torch.ones(2), torch.tensor([5.0, 0.01]), torch.tensor([1.0, -1.0]), clip=0.2, clip_others=0.1)
    torch.testing.assert_close(far, torch.tensor([1.1, -0.9]))


@given(clip=st.floats(0.01, 0.9), ramp=st.floats(0, 1), n=st.integers(1, 30))
def test_room_grows_with_the_place_and_the_last_has_it_all(clip: float, ramp: float, n: int) -> None:
    widths = [ramped_clip(clip, place=k, n=n, ramp=ramp) for k in range(1, n + 1)]
    assert widths[-1] == pytest.approx(clip, rel=1e-15)
    assert widths == sorted(widths)
    assert widths[0] == pytest.approx(clip * (ramp + (1 - ramp) / n))


def test_double_clip_in_turn_gives_the_others_half_of_its_own_room() -> None:
    turn = DoubleClip(Algorithm.model_validate({"name": "a2po", "clip": 0.2}))
    turn.begin(1, 4)
    assert turn.width == pytest.approx(0.125)
    found = turn.gain(torch.tensor([1.0]), torch.tensor([1.0]), torch.tensor([9.0]))
    assert float(found) == pytest.approx(1.0625)
    with pytest.raises(AssertionError, match="3 agents updated earlier"):
        turn.begin(4, 2)


# --- DPO's prices -------------------------------------------------------------------------------------------------------------


def test_price_of_no_divergence_is_nothing_and_has_no_slope() -> None:
    logits = normals(20, 4).requires_grad_()
    old = Categorical.of(logits.detach().clone())
    price = divergence_price(old.kl(Categorical.of(logits)).clamp(min=0.0), root_coef=3.0, coef=2.0)
    torch.testing.assert_close(price.detach(), torch.full((20,), 3e-6, dtype=torch.float64), rtol=1e-2, atol=1e-8)
    assert slope(price, logits).abs().max() < 1e-8


def test_divergence_that_rounding_has_made_negative_costs_nothing() -> None:
    kl = torch.tensor([-1e-7, 0.0], requires_grad=True)
    price = divergence_price(kl, root_coef=1.0, coef=1.0)
    torch.testing.assert_close(price.detach(), torch.full((2,), 1e-6))
    assert float(slope(price, kl)[0]) == 0.0


def test_prices_follow_their_own_statistics() -> None:
    penalty = objective("kl_penalty", kl_target=0.01)
    assert isinstance(penalty, KLPenalty)
    assert penalty.metrics() == {"root_kl_price": 0.05, "kl_price": 0.05}
    path = []
    for kl in ([0.02, 0.02], [0.0, 0.02], [0.0, 0.0], [0.01, 0.01]):  # root's target 0.1
        penalty.end(torch.tensor(kl))
        path.append((penalty.root_coef, penalty.coef))
    assert path == [(0.05, 0.1), (0.05, 0.1), (0.025, 0.05), (0.025, 0.05)]


@given(st.lists(st.floats(0, 10), max_size=40))
def test_prices_stay_within_a_million(measured: list[float]) -> None:
    price = 1.0
    for kl in measured:
        before, price = price, adapted_price(price, kl, 0.01)
        assert 1e-3 <= price <= 1e3
        assert price / before in (0.5, 1.0, 2.0) or price in (1e-3, 1e3)


# --- FOCOPS -------------------------------------------------------------------------------------------------------------------


def test_slope_is_that_of_the_divergence_from_the_best_policy() -> None:
    """Tabular, over all actions: -∇ mean_s[E_old(rho·H/λ) - KL(new ‖ old)] = ∇ mean_s KL(new ‖ best)."""
    lam, states, actions = 2.0, 5, 4
    old = Categorical.of(normals(states, actions))
    advantage = normals(states, actions, seed=1)
    logits = (normals(states, actions) + 0.05 * normals(states, actions, seed=2)).requires_grad_()
    new = Categorical.of(logits)
    gain = (old.log_p.exp() * torch.exp(new.log_p - old.log_p) * advantage).sum(-1)
    focops = Focops(Algorithm.model_validate({"name": "mafocops", "focops_temperature": lam, "kl_bound": 1.0}))
    found = slope(focops.priced(gain, old, new), logits)
    best = Categorical.of(old.log_p + advantage / lam)
    expected = slope(-Categorical.of(logits).kl(best), logits)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_samples_beyond_the_bound_neither_pull_nor_push() -> None:
    gain, kl = torch.tensor([1.0, 1.0], requires_grad=True), torch.tensor([0.005, 0.02], requires_grad=True)
    found = focops_objective(gain, kl, temperature=2.0, bound=0.01)
    torch.testing.assert_close(found.detach(), torch.tensor([0.495, 0.0]))
    torch.testing.assert_close(torch.stack(torch.autograd.grad(found.sum(), (gain, kl))), torch.tensor([[0.5, 0.0], [-1.0, 0.0]]))


def test_as_printed_the_divergence_beyond_the_bound_still_counts() -> None:
    gain, kl = torch.ones(2), torch.tensor([0.005, 0.02])
    found = focops_objective(gain, kl, temperature=2.0, bound=0.01, masks_kl=False)
    torch.testing.assert_close(found, torch.tensor([0.495, -0.02]))
    far = [Categorical.of(torch.tensor([[x, 0.0]])) for x in (0.0, 3.0)]
    priced = [objective("focops", quirks=quirks).priced(torch.ones(1), *far) for quirks in ((), ("unmasked_divergence",))]
    assert float(priced[0]) == 0.0
    assert float(priced[1]) == pytest.approx(-float(far[1].kl(far[0])))


def test_passes_end_where_the_mean_divergence_exceeds_the_bound() -> None:
    focops = objective("focops", kl_bound=0.1)
    old, near, far = (Categorical.of(torch.tensor([[x, 0.0]])) for x in (0.0, 0.2, 2.0))
    assert float(near.kl(old)) < 0.1 < float(far.kl(old))
    assert not focops.is_done(old, near)
    assert focops.is_done(old, far)


@pytest.mark.parametrize("temperature", [1e-2, 1e4])
def test_a_high_temperature_holds_still_and_a_low_one_is_greedy(temperature: float) -> None:
    focops = objective("focops", kl_bound=100.0, focops_temperature=temperature)
    advantage = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    old = Categorical.of(torch.zeros(1, 3, dtype=torch.float64))
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    ascent = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        ascent.zero_grad()
        new = Categorical.of(logits)
        (-focops.priced((new.log_p.exp() * advantage).sum(-1), old, new)).sum().backward()
        ascent.step()
    p = torch.softmax(logits.detach(), -1)[0]
    assert float(p[0]) > 0.99 if temperature < 1 else float((p - 1 / 3).abs().max()) < 1e-3


# --- exact games: one state or few, all joint actions as weighted samples ------------------------------------------------------


class Team:
    """A random game of n agents on few states, with its policies and, by `gae` of every transition, its advantages."""

    GAMMA = 0.9

    def __init__(self, seed: int, *, n: int = 2, states: int = 3, actions: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.n, self.states, self.actions = n, states, actions
        self.shape = (actions,) * n
        self.reward = rng.uniform(-1, 1, (states, *self.shape))
        self.move = rng.dirichlet(np.ones(states), (states, *self.shape))
        self.logits = torch.from_numpy(rng.normal(size=(n, states, actions)))
        self.value = self.value_of(self.logits)
        s, *_, t = np.indices(self.move.shape).reshape(n + 2, -1)
        never = np.zeros((1, len(s)), np.bool_)
        paid = np.repeat(self.reward.reshape(-1), states)[None]
        errors = gae(paid, self.value[s][None], self.value[t][None], never, never, gamma=self.GAMMA, lam=0.7)
        self.advantage = torch.from_numpy((errors.reshape(self.move.shape) * self.move).sum(-1))

    def policies(self, logits: Tensor) -> list[Tensor]:
        return [Categorical.of(table).log_p.exp() for table in logits]

    def joint(self, policies: list[Tensor]) -> Tensor:
        found = torch.ones(self.states, *[1] * self.n, dtype=torch.float64)
        for agent, policy in enumerate(policies):
            found = found * self.spread(policy, agent)
        return found

    def spread(self, table: Tensor, agent: int) -> Tensor:
        """A table (state, own action) over all joint actions."""
        shape = [self.states, *[1] * self.n]
        shape[1 + agent] = self.actions
        return table.reshape(shape).expand(self.states, *self.shape)

    def value_of(self, logits: Tensor) -> Floats:
        joint = self.joint(self.policies(logits)).numpy()
        flat = joint.reshape(self.states, -1)
        passage = np.einsum("sa,sat->st", flat, self.move.reshape(self.states, -1, self.states))
        paid = (flat * self.reward.reshape(self.states, -1)).sum(-1)
        return np.asarray(np.linalg.solve(np.eye(self.states) - self.GAMMA * passage, paid))

    def visits(self, logits: Tensor) -> Tensor:
        """Discounted visits from a uniform start, their sum 1/(1 - gamma)."""
        flat = self.joint(self.policies(logits)).numpy().reshape(self.states, -1)
        passage = np.einsum("sa,sat->st", flat, self.move.reshape(self.states, -1, self.states))
        start = np.full(self.states, 1 / self.states)
        return torch.from_numpy(np.linalg.solve(np.eye(self.states) - self.GAMMA * passage.T, start))

    def mean(self, table: Tensor, policies: list[Tensor]) -> Tensor:
        """Per state, the expectation of a table over joint actions, (S,)."""
        return (self.joint(policies) * table).reshape(self.states, -1).sum(-1)


@pytest.mark.parametrize("seed", range(3))
def test_sequential_advantages_decompose_the_joint_one_in_every_order(seed: int) -> None:
    """E[(rho_m - 1)·F_m·A | s] is agent m's advantage given what those before it do now; they add up to the joint gain."""
    team = Team(seed, n=3)
    old = team.policies(team.logits)
    new = team.policies(team.logits + 0.5 * normals(*team.logits.shape, seed=seed + 10))
    unclipped = objective("kl_penalty")
    for order in permutations(range(3)):
        factor = torch.ones(team.states, *team.shape, dtype=torch.float64)
        total = torch.zeros(team.states, dtype=torch.float64)
        mixed = list(old)
        for agent in order:
            rho = team.spread(new[agent] / old[agent], agent)
            term = team.mean(unclipped.gain(rho, team.advantage, factor) - factor * team.advantage, old)
            before = team.mean(team.advantage, mixed)
            mixed[agent] = new[agent]
            torch.testing.assert_close(term, team.mean(team.advantage, mixed) - before, rtol=0, atol=1e-12)
            total, factor = total + term, factor * rho
        torch.testing.assert_close(total, team.mean(team.advantage, new), rtol=0, atol=1e-12)


def test_lower_bounds_hold_on_random_pairs_of_policies() -> None:
    """TRPO's of the joint policy, MAPPO's, CoPPO's and DPO's; and DPO's theoretical step is to stay put."""
    rng = np.random.default_rng(0)
    for seed in range(320):
        team = Team(seed, n=2 + seed % 2, states=2, actions=2)
        n, gamma = team.n, team.GAMMA
        scale = 10 ** rng.uniform(-3, 0.5)
        moved = team.logits + scale * torch.from_numpy(rng.normal(size=team.logits.shape))
        old, new = team.policies(team.logits), team.policies(moved)
        gained = float((team.value_of(moved) - team.value).mean())
        visits = team.visits(team.logits)
        top = float(team.advantage.abs().max())
        tv = [float(0.5 * (a - b).abs().sum(-1).max()) for a, b in zip(old, new, strict=True)]
        kl = torch.stack([
            Categorical.of(a).kl(Categorical.of(b)).max().clamp(min=0) for a, b in zip(team.logits, moved, strict=True)
        ])
        joint = float(visits @ team.mean(team.advantage, new))
        own = []
        for agent in range(n):
            rho = team.spread(new[agent] / old[agent], agent)
            own.append(float(visits @ team.mean(objective("kl_penalty").gain(rho, team.advantage, None), old)))
        joint_tv = float(0.5 * (team.joint(old) - team.joint(new)).abs().reshape(team.states, -1).sum(-1).max())
        tiny = 1e-12
        assert abs(gained - joint) <= 4 * gamma * top * joint_tv**2 / (1 - gamma) ** 2 + tiny
        assert abs(gained - sum(own) / n) <= 4 * top * sum(tv) / (1 - gamma) + tiny
        assert abs(gained - joint) <= 4 * top * sum(tv) * (1 / (1 - gamma) - 1 / (1 - gamma * (1 - sum(tv)))) + tiny
        root = math.sqrt(2) * (n - 1) / n * top / (1 - gamma)
        price = divergence_price(kl, root_coef=root, coef=4 * gamma * top / (1 - gamma) ** 2)
        brackets = torch.tensor(own, dtype=torch.float64) / n - price
        assert gained >= float(brackets.sum())
        assert (brackets <= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_agents_of_their_own_reach_what_a_shared_policy_cannot(n: int) -> None:
    """Reward 1 for one vector with ⌊n/2⌋ zeros and for its complement: sharing 2/2ⁿ, one after the other 1."""
    target = np.array([0] * (n // 2) + [1] * (n - n // 2))
    vectors = np.array(list(product((0, 1), repeat=n)))
    payoff = torch.from_numpy(((vectors == target).all(1) | (vectors == 1 - target).all(1)).astype(float))
    grid = np.linspace(0, 1, 2001)
    shared = max((p ** vectors.sum(1) * (1 - p) ** (n - vectors.sum(1))) @ payoff.numpy() for p in grid)
    assert shared == pytest.approx(2 / 2**n, abs=1e-6)

    n_discrete = torch.from_numpy(vectors)
    candidates = torch.linspace(0, 1, 201, dtype=torch.float64)
    clip = objective("clip", clip=0.2)
    reached = []
    for seed in range(20):
        p = torch.from_numpy(np.random.default_rng([n, seed]).uniform(0.3, 0.7, n))
        for _ in range(60):
            old = torch.where(n_discrete == 1, p, 1 - p)
            weight = old.prod(-1)
            advantage = payoff - weight @ payoff
            factor = torch.ones(len(vectors), dtype=torch.float64)
            for agent in range(n):
                ratios = torch.where(n_discrete[:, agent] == 1, candidates[:, None], 1 - candidates[:, None]) / old[:, agent]
                gains = (weight * clip.gain(ratios, advantage, factor)).sum(-1)
                best = int(gains.argmax())
                if float(gains[best]) > float((weight * factor * advantage).sum()) + 1e-15:
                    p[agent] = candidates[best].clamp(1e-6, 1 - 1e-6)
                    factor = factor * torch.where(n_discrete[:, agent] == 1, p[agent], 1 - p[agent]) / old[:, agent]
        reached.append(float(torch.where(n_discrete == 1, p, 1 - p).prod(-1) @ payoff))
    assert np.mean(np.array(reached) > 0.99) >= 0.95


def test_clip_is_the_pure_function() -> None:
    rho, advantage, factor = torch.exp(normals(50)), normals(50, seed=1), torch.exp(normals(50, seed=2))
    assert torch.equal(objective("clip").gain(rho, advantage, factor), clip_objective(rho, advantage * factor, clip=0.2))


# --- DPO on a random stochastic game, exactly ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_practical_dpo_comes_close_to_the_optimum_of_a_random_game_and_hardly_ever_falls() -> None:
    """30 states, 3 agents, 5 actions, exact values, all at once: at least 0.93 of the optimum, no fall above 0.002 of it."""
    n, states, actions, gamma = 3, 30, 5, 0.99
    rng = np.random.default_rng(0)
    reward = rng.uniform(-5, 5, (states, *[actions] * n)).reshape(states, -1)
    raw = rng.uniform(-2, 2, (states, *[actions] * n, states))
    move = (np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)).reshape(states, -1, states)
    best = np.zeros(states)
    for _ in range(2500):
        best = (reward + gamma * move @ best).max(-1)
    assert best[0] == pytest.approx(492.947, abs=1e-3)

    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, (n, states, actions)))
    penalties = [objective("kl_penalty", kl_target=0.01) for _ in range(n)]
    reached = []
    for _ in range(150):
        old = [Categorical.of(table) for table in logits]
        p = [distribution.log_p.exp() for distribution in old]
        joint = torch.einsum("sa,sb,sc->sabc", *p).reshape(states, -1).numpy()
        passage = np.einsum("sa,sat->st", joint, move)
        value = np.linalg.solve(np.eye(states) - gamma * passage, (joint * reward).sum(-1))
        reached.append(value[0] / best[0])
        visits = np.linalg.solve(np.eye(states) - gamma * passage.T, np.eye(states)[0]) * (1 - gamma)
        advantage = reward + gamma * move @ value - value[:, None]
        advantage /= np.sqrt((visits[:, None] * joint * advantage**2).sum())
        table = torch.from_numpy(advantage).reshape(states, *[actions] * n)
        marginal = [torch.einsum(f"sabc,s{x},s{y}->s{own}", table, *(p[j] for j in range(n) if j != i))
                    for i, (own, x, y) in enumerate((("a", "b", "c"), ("b", "a", "c"), ("c", "a", "b")))]  # fmt: skip
        weight, counts = torch.from_numpy(visits), torch.from_numpy(np.round(visits * 10_000).astype(np.int64))
        for i, penalty in enumerate(penalties):
            mine = logits[i].clone().requires_grad_()
            adam = torch.optim.Adam([mine], lr=0.05)
            for _ in range(15):
                adam.zero_grad()
                new = Categorical.of(mine)
                gain = (p[i] * penalty.gain(torch.exp(new.log_p - old[i].log_p), marginal[i], None)).sum(-1)
                (-(weight * penalty.priced(gain, old[i], new)).sum()).backward()
                adam.step()
            logits[i] = mine.detach()
            penalty.end(torch.repeat_interleave(old[i].kl(Categorical.of(logits[i])), counts))
    assert reached[-1] >= 0.93
    assert min(np.diff(reached)) >= -0.002
