"""The recipe table at work in one learner: each axis on a round of samples, equalities between rows, and a constrained bandit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.learners.on_policy.learner import Learner
from node.learners.on_policy.trust_region import Region
from node.numerics.critics import Critics
from node.numerics.rollout import Rollout
from node.numerics.seeds import Purpose, stream
from node.protocol.turns import holder, semi_greedy
from scenarios.recipes import RECIPES
from scenarios.schema import Algorithm
from tests.builders import shape

Floats = NDArray[np.float32]
T, E, D = 12, 4, 5
ON_THEIR_OWN = [
    name for name, row in RECIPES.items() if row.target == "advantage" and (row.order != "simultaneous" or row.factor == "none")
]


def algorithm(**settings: Any) -> Algorithm:
    small: dict[str, Any] = {"hidden": (16,), "epochs": 2, "minibatches": 3, "input_norm": "none", "actor_lr": 1e-3}
    return Algorithm.model_validate(small | settings)


def learner_of(
    *, n_discrete: int = 0, cost_limits: tuple[float, ...] = (), agent: int = 0, reach: int = 4, **settings: Any
) -> Learner:
    act_dim = 1 if n_discrete else 2
    sizes = {"act_dim": act_dim, "n_discrete": n_discrete, "cost_limits": cost_limits, "reach": reach}
    return Learner(shape(agent=agent, steps=T, copies=E, rounds=10, width=D, **sizes), algorithm(**settings))


def rollout_of(learner: Learner, *, seed: int = 0, n_costs: int = 0, n_discrete: int = 0, round_: int = 0) -> Rollout:
    """A round of random observations, rewards, costs and ends, with the actions that the learner takes."""
    rng = np.random.default_rng(seed)
    learner.begin_round(round_)
    rollout = Rollout.make(T, E, D, 1 if n_discrete else 2, n_costs)
    rollout.observation[:] = rng.normal(size=rollout.observation.shape)
    for step in range(T):
        rollout.action[step] = learner.act(step, rollout.observation[step])
    rollout.reward[:] = rng.normal(size=rollout.reward.shape)
    rollout.cost[:] = np.random.default_rng(seed + 1000).uniform(size=rollout.cost.shape)
    end = rng.choice(3, size=(T, E), p=(0.8, 0.1, 0.1))
    rollout.terminated[:], rollout.truncated[:] = end == 1, end == 2
    rollout.cut_observation = rng.normal(size=(len(rollout.cuts()), D)).astype(np.float32)
    return rollout


def learn(learner: Learner, rollout: Rollout, earlier: Sequence[Floats] = (), *, round_: int = 0) -> dict[str, float]:
    for _ in learner.learn_values(round_, rollout, rollout.reward):
        pass
    for _ in learner.learn_policy(rollout, earlier):
        pass
    return dict(learner.end_round(rollout))


def snapshot(learner: Learner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.weights().items()}


def ratios(seed: int) -> Floats:
    return (0.2 * np.random.default_rng(seed).normal(size=T * E)).astype(np.float32)


def after(
    rounds: int = 2, *, earlier: Sequence[Floats] = (), n_costs: int = 0, n_discrete: int = 0, **settings: Any
) -> dict[str, Tensor]:
    learner = learner_of(n_discrete=n_discrete, cost_limits=(0.5,) * n_costs, **settings)
    for k in range(rounds):
        learn(learner, rollout_of(learner, seed=k, n_costs=n_costs, n_discrete=n_discrete, round_=k), earlier, round_=k)
    return snapshot(learner)


def equal(one: dict[str, Tensor], other: dict[str, Tensor], *names: str) -> bool:
    return all(torch.equal(one[name], other[name]) for name in names or one.keys() | other.keys())


# --- every row ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_discrete", [0, 3], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", ON_THEIR_OWN)
def test_every_row_learns_from_a_round_and_tells_finite_figures(name: str, n_discrete: int) -> None:
    learner = learner_of(name=name, n_discrete=n_discrete, cost_limits=(0.5, 2.0))
    before = snapshot(learner)
    for k in range(3):
        metrics = learn(learner, rollout_of(learner, seed=k, n_costs=2, n_discrete=n_discrete, round_=k), [ratios(k)], round_=k)
        assert all(np.isfinite(list(metrics.values())))
        assert {"kl", "entropy", "value_loss", "cost_value_loss_1", "advantage_std"} <= metrics.keys()
        assert ("std" in metrics) is not bool(n_discrete)
    now = snapshot(learner)
    for part in ("actor", "critic_0", "critic_1", "critic_2"):
        assert not torch.equal(before[part], now[part]), part
    assert np.isfinite(learner.log_ratio()).all()


@pytest.mark.parametrize("n_discrete", [0, 3], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", ON_THEIR_OWN)
def test_equal_seeds_give_equal_weights(name: str, n_discrete: int) -> None:
    one, other = (after(name=name, n_discrete=n_discrete, n_costs=1, earlier=[ratios(0)]) for _ in range(2))
    assert equal(one, other)


def test_choices_become_likelier_where_they_paid() -> None:
    learner = learner_of(name="happo", n_discrete=3, epochs=5, actor_lr=0.01)
    rollout = rollout_of(learner, n_discrete=3)
    rollout.terminated[:], rollout.truncated[:] = True, False
    rollout.cut_observation = np.zeros((0, D), np.float32)
    rollout.reward[:] = rollout.action[:, :, 0] == 2.0
    learn(learner, rollout)
    paid = rollout.reward.reshape(-1) == 1.0
    assert learner.log_ratio()[paid].min() > 0.0 > learner.log_ratio()[~paid].mean()


def test_a_choice_has_one_dimension_so_joint_and_separate_ratios_are_the_same() -> None:
    joint, separate = (after(name="happo", n_discrete=3, ratio=ratio) for ratio in ("joint", "per_dim"))
    assert equal(joint, separate)


# --- equalities between rows ----------------------------------------------------------------------------------------------


@pytest.mark.exact
@pytest.mark.parametrize("n_discrete", [0, 3], ids=["continuous", "discrete"])
def test_mappo_l_with_a_price_that_is_and_stays_nothing_is_happo_bit_for_bit(n_discrete: int) -> None:
    scopes: dict[str, Any] = {
        "actor_scope": "local",
        "critic_scope": "global",
        "n_discrete": n_discrete,
        "earlier": [ratios(1), ratios(2)],
    }
    happo = after(3, name="happo", **scopes)
    safe = after(3, name="mappo_l", n_costs=2, mult_init=0.0, mult_kp=0.0, mult_ki=0.0, **scopes)
    assert equal(happo, safe, "actor", "critic_0", "critic_0_returns", "actor_inputs", "critic_inputs")


def test_first_in_the_order_updates_as_mappo_does() -> None:
    assert equal(after(name="happo"), after(name="mappo"))
    assert not equal(after(name="happo", earlier=[ratios(1)]), after(name="mappo"), "actor")


def test_alternating_agent_alone_is_ppo() -> None:
    assert [holder(k, 1) for k in range(3)] == [0, 0, 0]
    assert equal(after(name="alternating_ppo"), after(name="ippo"))


def test_without_costs_macpo_is_hatrpo_and_mafocops_without_prices_a_penalty() -> None:
    assert equal(after(name="macpo", earlier=[ratios(1)]), after(name="hatrpo", earlier=[ratios(1)]))
    bound = after(name="mafocops", n_costs=1, mult_kp=0.0, mult_ki=0.0)
    assert equal(after(name="mafocops", constraint="none"), bound, "actor", "critic_0")


def test_macpo_with_costs_far_below_their_limits_is_hatrpo() -> None:
    found = []
    for name, limits in (("hatrpo", ()), ("macpo", (1e6, 1e6))):
        learner = learner_of(name=name, cost_limits=limits)
        learn(learner, rollout_of(learner, n_costs=2), [ratios(1)])
        found.append(snapshot(learner))
    assert equal(found[0], found[1], "actor")


# --- trust regions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_discrete", [0, 3], ids=["continuous", "discrete"])
@pytest.mark.parametrize("name", ["hatrpo", "macpo"])
@pytest.mark.parametrize("kl_bound", [1e-3, 0.05])
def test_divergence_stays_within_the_bound_round_after_round(name: str, kl_bound: float, n_discrete: int) -> None:
    learner = learner_of(name=name, n_discrete=n_discrete, cost_limits=(0.5,), kl_bound=kl_bound, input_norm="running")
    taken = 0
    for k in range(8):
        before = snapshot(learner)["actor"]
        metrics = learn(learner, rollout_of(learner, seed=k, n_costs=1, n_discrete=n_discrete, round_=k), [ratios(k)], round_=k)
        assert metrics["kl"] <= kl_bound
        if metrics["step_frac"] == 0.0:
            assert torch.equal(snapshot(learner)["actor"], before)
            assert not learner.log_ratio().any()
        taken += metrics["step_frac"] > 0.0
    assert taken >= 4


def test_a_rejected_step_leaves_the_policy_and_the_factor_of_later_agents_alone() -> None:
    learner = learner_of(name="hatrpo")
    rollout = rollout_of(learner)
    before = snapshot(learner)["actor"]
    metrics = learn(learner, rollout, [np.full(T * E, -200.0, np.float32)])  # nothing to gain: no sample counts
    assert metrics["step_frac"] == 0.0
    assert torch.equal(snapshot(learner)["actor"], before)
    assert not learner.log_ratio().any()


def test_macpo_waits_with_costs_until_an_episode_has_ended() -> None:
    learner, free = learner_of(name="macpo", cost_limits=(0.0,)), learner_of(name="hatrpo")
    for one, n_costs in ((learner, 1), (free, 0)):
        rollout = rollout_of(one, n_costs=n_costs)
        rollout.terminated[:], rollout.truncated[:] = False, False
        rollout.cut_observation = np.ones((E, D), np.float32)
        learn(one, rollout)
    assert equal(snapshot(learner), snapshot(free), "actor")


# --- prices and penalties -------------------------------------------------------------------------------------------------


def test_focops_prices_move_once_a_round_by_the_excess_alone_and_stay_in_their_range() -> None:
    learner = learner_of(name="mafocops", constraint="focops", cost_limits=(5.0, 500.0), mult_lr=0.1, mult_init=0.4, mult_max=1.0)
    rollout = rollout_of(learner, n_costs=2)
    rollout.cost[:] = 2.0
    rollout.terminated[:], rollout.truncated[:] = False, False
    rollout.truncated[[3, 7, 11]] = True  # episodes of four steps: 8 each
    rollout.cut_observation = np.ones((len(rollout.cuts()), D), np.float32)
    metrics = learn(learner, rollout)
    assert metrics["multiplier_0"] == pytest.approx(0.4 + 0.1 * 3.0)
    assert metrics["multiplier_1"] == 0.0
    assert learn(learner, rollout, round_=1)["multiplier_0"] == 1.0


def test_focops_stops_its_passes_at_the_bound() -> None:
    def passes(kl_bound: float) -> int:
        learner = learner_of(name="mafocops", epochs=6, actor_lr=0.03, kl_bound=kl_bound)
        rollout = rollout_of(learner)
        for _ in learner.learn_values(0, rollout, rollout.reward):
            pass
        return len(list(learner.learn_policy(rollout, [])))

    assert passes(1e-6) == 3
    assert passes(1e6) == 18


def test_dpo_remembers_its_prices_from_round_to_round() -> None:
    """Prices grow while rounds go too far, and hold the policy back."""
    told = {}
    for target in (1e-4, 1e3):
        learner = learner_of(name="dpo", kl_target=target, actor_lr=0.02, epochs=4)
        told[target] = [learn(learner, rollout_of(learner, seed=k, round_=k), round_=k)["kl"] for k in range(8)]
    assert np.mean(told[1e-4][4:]) < 0.3 * np.mean(told[1e3][4:])


def test_dpo_tells_the_prices_of_each_round() -> None:
    learner = learner_of(name="dpo", kl_target=1e-4, actor_lr=0.02, epochs=4)
    told = [learn(learner, rollout_of(learner, seed=k, round_=k), round_=k) for k in range(3)]
    assert [one["kl_price"] for one in told] == [0.05, 0.1, 0.2]
    assert told[0]["root_kl_price"] == 0.05
    assert "kl_price" not in learn(learner_of(name="ippo"), rollout_of(learner_of(name="ippo")))


# --- what public code does otherwise --------------------------------------------------------------------------------------


def test_one_return_statistic_for_all_and_heads_that_stand_still_as_public_code_has_them() -> None:
    apart, shared = after(1, name="mappo_l", n_costs=1), after(1, name="mappo_l", n_costs=1, quirks=("shared_return_norm",))
    assert not torch.equal(apart["critic_0_returns"], apart["critic_1_returns"])
    assert torch.equal(shared["critic_0_returns"], shared["critic_1_returns"])
    moved = [after(1, name="happo", critic_lr=0.0, quirks=quirks)["critic_0"] for quirks in ((), ("fixed_value_head",))]
    start = learner_of(name="happo").weights()["critic_0"]
    assert not torch.equal(moved[0], start)
    assert torch.equal(moved[1], start)


# --- corrected traces -----------------------------------------------------------------------------------------------------


def test_with_nobody_earlier_the_corrected_advantage_is_the_plain_one_after_the_critics_have_learnt() -> None:
    a2po = learner_of(name="a2po", reach=1)
    rollout = rollout_of(a2po)
    plain = learner_of(name="a2po", trace="gae", reach=1)
    learn(a2po, rollout)
    learn(plain, rollout)
    assert equal(snapshot(a2po), snapshot(plain), "critic_0", "critic_0_returns")  # same targets
    gae, preopc = (
        after(name="a2po", order="random", critic_lr=0.0, trace=trace, reach=1, value_norm=False) for trace in ("gae", "preopc")
    )
    assert equal(gae, preopc)  # and with critics that stand still the same everything


def test_critics_learn_of_the_world_as_earlier_agents_have_made_it() -> None:
    def returns(trace: str, earlier: Sequence[Floats]) -> Tensor:
        return after(1, name="a2po", trace=trace, earlier=earlier)["critic_0_returns"]

    never, often = np.full(T * E, -60.0, np.float32), np.full(T * E, 3.0, np.float32)
    assert not torch.equal(returns("preopc", [never]), returns("gae", [never]))
    assert torch.equal(returns("preopc", [often]), returns("gae", [often]))
    one_step = after(1, name="a2po", trace="gae", gae_lambda=0.0, earlier=[never])["critic_0_returns"]
    torch.testing.assert_close(returns("preopc", [never]), one_step)


def test_scores_are_mean_sizes_of_corrected_advantages_and_change_nothing() -> None:
    learner = learner_of(name="a2po")
    rollout = rollout_of(learner)
    for _ in learner.learn_values(0, rollout, rollout.reward):
        pass
    before = snapshot(learner)
    now, later = learner.score(rollout), learner.score(rollout, [np.full(T * E, -60.0, np.float32)])
    assert 0.0 < later < now  # without a trace only one step's surprise is left
    assert now == learner.score(rollout, [np.zeros(T * E, np.float32)])
    assert equal(before, snapshot(learner))


def test_order_is_a_permutation_with_the_largest_scores_at_even_places() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores = dict(enumerate(rng.random(7)))
        remaining = set(scores)
        for place in range(1, 8):
            agent = semi_greedy(remaining, scores, place, rng)
            assert agent in remaining
            assert place % 2 or scores[agent] == max(scores[j] for j in remaining)
            remaining.remove(agent)
    first = {semi_greedy(range(4), {}, 1, np.random.default_rng(seed)) for seed in range(40)}
    assert first == set(range(4))


# --- all at once on each other's ratios -----------------------------------------------------------------------------------


def coupled(learners: Sequence[Learner], rollouts: Sequence[Rollout], others: Floats | None = None) -> int:
    """What the exchange does: gather everybody's ratios before every minibatch; how often it was asked to."""
    for learner, rollout in zip(learners, rollouts, strict=True):
        for _ in learner.learn_values(0, rollout, rollout.reward):
            pass
    updates = [learner.learn_coupled(rollout) for learner, rollout in zip(learners, rollouts, strict=True)]
    told = [next(update) for update in updates]
    for asked in range(1, 1000):
        fresh = [others[: len(told[0])]] if others is not None else told
        answers = [[mine for j, mine in enumerate(fresh) if j != i] if others is None else fresh for i in range(len(updates))]
        try:
            told = [update.send(answer) for update, answer in zip(updates, answers, strict=True)]
        except StopIteration:
            for update, answer in list(zip(updates, answers, strict=True))[1:]:
                with pytest.raises(StopIteration):
                    update.send(answer)
            return asked
    pytest.fail("without end")


def test_coupled_agents_ask_for_ratios_before_every_minibatch_and_start_at_one() -> None:
    learners = [learner_of(name="coppo", agent=i) for i in range(3)]
    rollouts = [rollout_of(learner, seed=i) for i, learner in enumerate(learners)]
    for learner, rollout in zip(learners, rollouts, strict=True):
        for _ in learner.learn_values(0, rollout, rollout.reward):
            pass
        assert not next(learner.learn_coupled(rollout)).any()
    assert coupled(learners, rollouts) == 2 * 3


def test_coupled_agents_draw_the_same_minibatches_and_no_others_do() -> None:
    drawn = {}
    for name in ("coppo", "happo"):
        for agent in (0, 1):
            learner = learner_of(name=name, agent=agent)
            rollout = rollout_of(learner)
            for _ in learner.learn_values(0, rollout, rollout.reward):
                pass
            drawn[name, agent] = torch.stack(learner._permutations)
    assert torch.equal(drawn["coppo", 0], drawn["coppo", 1])
    assert not torch.equal(drawn["happo", 0], drawn["happo", 1])


def test_coupled_with_others_standing_still_is_the_plain_clip_on_the_same_minibatches() -> None:
    one, other = learner_of(name="coppo"), learner_of(name="mappo")
    rollout = rollout_of(one)
    coupled([one], [rollout], np.zeros(T * E, np.float32))
    other.begin_round(0)
    for _ in other.learn_values(0, rollout, rollout.reward):
        pass
    shared = stream(0, 0, Purpose.JOINT_SHUFFLE)
    other._permutations = [torch.from_numpy(shared.permutation(T * E)) for _ in range(2)]
    for _ in other.learn_policy(rollout, []):
        pass
    assert equal(snapshot(one), snapshot(other), "actor")


def test_others_that_move_change_the_update_and_far_ones_are_clipped() -> None:
    ends = []
    for others in (0.0, 0.05, 5.0, 50.0):
        learner = learner_of(name="coppo")
        rollout = rollout_of(learner)
        coupled([learner], [rollout], np.full(T * E, others, np.float32))
        ends.append(snapshot(learner)["actor"])
    assert not torch.equal(ends[0], ends[1])
    assert torch.equal(ends[2], ends[3])


# --- turns, and critics elsewhere -----------------------------------------------------------------------------------------


def test_round_without_a_turn_touches_nothing_but_the_books() -> None:
    learner = learner_of(name="alternating_ppo", input_norm="running", cost_limits=(1.0,))
    learn(learner, rollout_of(learner, n_costs=1))
    before = snapshot(learner)
    rollout = rollout_of(learner, seed=1, n_costs=1, round_=1)
    rollout.cost[:] = 3.0
    rollout.truncated[-1] = True
    told = learner.sit_out(rollout)
    assert equal(before, snapshot(learner))
    assert told["episode_cost_0"] > 1.0
    assert "kl" not in told
    assert not learner.log_ratio().any()


def test_advantages_from_a_central_critic_teach_what_the_agents_own_would() -> None:
    """The same critics, kept elsewhere: the actor cannot tell."""
    own = learner_of(name="happo", cost_limits=())
    rollout = rollout_of(own)
    learn(own, rollout, [ratios(1)])
    elsewhere = Critics(shape(steps=T, copies=E, rounds=10, width=D, act_dim=2), algorithm(name="happo"))
    elsewhere.begin(rollout)
    (estimate,) = elsewhere.advantages(rollout, rollout.reward)
    far = learner_of(name="happo", critic_scope="central")
    rollout_of(far)
    far.take_advantages(0, rollout, estimate.advantage, [])
    for _ in far.learn_policy(rollout, [ratios(1)]):
        pass
    far.end_round(rollout)
    assert torch.equal(snapshot(own)["actor"], snapshot(far)["actor"])
    assert "critic_0" not in far.weights()


def test_macpos_planes_hold_the_excess_per_step_of_the_episodes_that_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[float]] = []

    class Watched(Region):
        def __init__(self, **parts: Any) -> None:
            seen.append(parts["excess"])
            super().__init__(**parts)

    monkeypatch.setattr("node.learners.on_policy.policy_training.Region", Watched)
    learner = learner_of(name="macpo", cost_limits=(5.0,))
    rollout = rollout_of(learner, n_costs=1)
    rollout.cost[:] = 2.0
    rollout.terminated[:], rollout.truncated[:] = False, False
    rollout.truncated[[3, 11]] = True  # episodes of 4 and 8 steps: they cost 8 and 16
    rollout.cut_observation = np.ones((len(rollout.cuts()), D), np.float32)
    told = learn(learner, rollout)
    assert told["margin_0"] == pytest.approx(min(0.2 * (12.0 - 5.0), 0.2 * 5.0))
    assert seen == [[pytest.approx((12.0 - 5.0 + told["margin_0"]) / 6.0)]]
