"""The exchange: what an agent acts on and learns from when messages are late, lost or say nothing new."""

from types import SimpleNamespace

import numpy as np
import pytest

from coordinator.records.plan import plan
from node.protocol.routing import AgentRouting
from node.runtime.clock import Clock
from node.runtime.exchange import Exchange
from node.runtime.mailbox import Mailbox, Received
from scenarios.kinds import Kind
from scenarios.loading import load
from topology.wire.codec import DType
from topology.wire.frame import VERSION, Delivery, Header

WORDS = ["env.name=network_lq", "env.agents=3", "topology.kind=line", "kappa=1", "env.num_envs=2", "rollout.steps=4"]
MIDDLE, LEFT, RIGHT = 1, 0, 2  # agents on the line; the exchange is that of the middle one
NEVER = np.inf


class Parts:
    """The exchange of the middle agent, its mailbox and its clock."""

    def __init__(self, *words: str) -> None:
        ready = plan(load("quickstart", [*WORDS, *words]))
        routing = AgentRouting(ready.scenario, ready.deployment, MIDDLE)
        self.clock = Clock(lockstep=True, patience_s=2.0)
        self.mailbox = Mailbox(ready.scenario, ready.deployment)
        learner = SimpleNamespace(permutations=lambda round_: [np.arange(8)])
        self.exchange = Exchange(ready.scenario, ready.deployment, MIDDLE, routing, learner, self.mailbox, self.clock)  # type: ignore[arg-type]
        self.places = routing.observation.places

    def receive(self, kind: Kind, origin: int, rows: object, *arrive: float, step: int = 0) -> None:
        """A message comes that arrives in each copy at a time of its own."""
        data = np.array(rows, np.float32)
        delivery = Delivery(np.array(arrive), np.zeros(2, np.bool_))
        header = Header(VERSION, int(kind), int(DType.FLOAT32), origin, origin, 0, step, 0, 0, float(step))
        self.mailbox.keep(kind, header, Received(data.tobytes(), DType.FLOAT32, float(step), origin, delivery, data))

    def end_rollout(self) -> None:
        """No episode has ended in either copy, so both are cut at the last step."""
        self.exchange.rollout.cut_blocks[3] = np.array([[7.0], [8.0]], np.float32)
        self.exchange.close(SimpleNamespace(obs=np.zeros((2, 1), np.float32)))  # type: ignore[arg-type]


def test_a_state_is_news_where_it_differs_from_the_last_that_was_sent() -> None:
    exchange = Parts("network.state_threshold=0.5").exchange
    told = []
    for sensed in ([0.0, 0.0], [0.3, 0.6], [0.6, 0.6], [0.6, 0.6]):
        exchange.sense(np.array(sensed, np.float32)[:, None])
        told.append(None if exchange.null is None else exchange.null.tolist())
    assert told == [None, [True, False], [False, True], [True, True]]


def test_an_agent_acts_on_its_own_state_and_on_the_last_that_has_arrived_in_each_copy() -> None:
    parts, seen = Parts(), np.zeros((2, 3), np.float32)
    for step, arrives, value in ((0, (0.0, 0.0), 1.0), (1, (1.0, NEVER), 2.0)):
        parts.clock.now = float(step)
        parts.exchange.sense(np.full((2, 1), 5.0, np.float32))
        parts.receive(Kind.STATE, LEFT, [[value]] * 2, *arrives, step=step)
        parts.exchange.let_in(0, step)
        seen = parts.exchange.observe(step, parts.clock.now)
    assert seen[:, parts.places[MIDDLE]].tolist() == [[5.0], [5.0]]
    assert seen[:, parts.places[LEFT]].tolist() == [[2.0], [1.0]]
    assert seen[:, parts.places[RIGHT]].tolist() == [[0.0], [0.0]]
    assert parts.exchange.observe_nothing(2, 2.0).tolist() == [[0.0], [0.0]]
    assert not parts.exchange.rollout.observation[2].any()


def test_the_mean_reward_is_that_of_the_agents_whose_rewards_have_come() -> None:
    parts = Parts("algorithm.reward=khop_mean")
    parts.exchange.rollout.reward[:] = 1.0
    parts.end_rollout()
    parts.receive(Kind.REWARD, LEFT, np.full((2, 4), 3.0), 0.5, NEVER)
    assert parts.exchange.put_together(0).tolist() == [[2.0, 1.0]] * 4
    assert parts.clock.now == 2 * parts.clock.patience_s  # for BOOTSTRAP, of which none came, then for REWARD
    assert parts.mailbox.missing["missing_reward"] == 1 + 2


def test_at_a_cut_a_state_that_has_not_come_is_the_last_that_was_held() -> None:
    parts = Parts()
    parts.receive(Kind.STATE, LEFT, [[1.0], [1.0]], 0.0, 0.0)
    parts.exchange.let_in(0, 0)
    parts.exchange.observe(0, 0.0)
    parts.end_rollout()
    parts.receive(Kind.BOOTSTRAP, LEFT, [[4.0], [4.0]], NEVER, 0.5)
    parts.exchange.put_together(0)
    at_cuts = parts.exchange.rollout.cut_observation
    assert at_cuts[:, parts.places[MIDDLE]].tolist() == [[7.0], [8.0]]
    assert at_cuts[:, parts.places[LEFT]].tolist() == [[1.0], [4.0]]


def test_an_agent_whose_ratios_did_not_come_once_is_not_waited_for_again_in_the_round() -> None:
    parts = Parts("algorithm.name=coppo", "algorithm.minibatches=2")
    parts.exchange.split(0)
    assert parts.exchange.others_ratios(0, 0)[0].tolist() == [0.0] * 4
    assert parts.clock.now == pytest.approx(2.0)
    parts.receive(Kind.RATIO_MB, LEFT, np.full((4, 1), 0.25), 1.0, NEVER, step=1)
    assert parts.exchange.others_ratios(0, 1)[0].tolist() == [0.25, 0.0, 0.25, 0.0]  # copies 0, 1, 0, 1
    assert parts.clock.now == pytest.approx(2.0)
    parts.exchange.end_round(0)
    parts.exchange.others_ratios(1, 0)
    assert parts.clock.now == pytest.approx(4.0)


def test_an_agent_that_sits_out_sends_ratios_of_one_until_the_round_ends() -> None:
    parts = Parts("algorithm.name=coppo", "algorithm.minibatches=2")
    parts.exchange.split(0)
    parts.exchange.sits_out = True
    assert parts.exchange.own(Kind.RATIO_MB, 0, 1).tolist() == [[0.0]] * 4  # logarithms
    parts.exchange.end_round(0)
    assert not parts.exchange.sits_out
