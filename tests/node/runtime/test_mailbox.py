"""The mailbox: what is refused, what is kept and for how long, and what a wait comes to."""

import numpy as np
import pytest

from coordinator.records.plan import plan
from node.runtime.clock import Clock
from node.runtime.mailbox import EARLY, Mailbox
from scenarios.kinds import Kind
from scenarios.loading import load
from topology.wire.codec import DType
from topology.wire.frame import VERSION, Delivery, Header, Message, ProtocolError

WORDS = ["env.name=network_lq", "env.agents=3", "topology.kind=line", "kappa=1", "env.num_envs=2", "rollout.steps=4",
         "algorithm.minibatches=1"]  # fmt: skip


@pytest.fixture(scope="module")
def made() -> tuple[object, object]:
    ready = plan(load("quickstart", WORDS))
    return ready.scenario, ready.deployment


@pytest.fixture
def mailbox(made: tuple[object, object]) -> Mailbox:
    return Mailbox(*made)  # type: ignore[arg-type]


def state(
    mailbox: Mailbox, value: float, *, origin: int = 1, step: int = 0, dtype: DType = DType.FLOAT32, rows: int = 2
) -> Message:
    body = np.full((rows, mailbox.forms[Kind.STATE].widths[origin]), value, np.float32).tobytes()
    return Message(Header(VERSION, int(Kind.STATE), int(dtype), origin, origin, 0, step, 0, 0, 1.0), (body,))


def keep(mailbox: Mailbox, message: Message, delivery: Delivery | None = None) -> None:
    mailbox.keep(Kind.STATE, message.header, mailbox.open(Kind.STATE, message, delivery))


def test_messages_of_another_size_format_or_origin_are_refused(mailbox: Mailbox) -> None:
    assert mailbox.open(Kind.STATE, state(mailbox, 3.0), None).data.tolist() == [[3.0]] * 2
    with pytest.raises(ProtocolError, match="expected 2 rows"):
        mailbox.open(Kind.STATE, state(mailbox, 3.0, rows=3), None)
    with pytest.raises(ProtocolError, match="is not the agreed one"):
        mailbox.open(Kind.STATE, state(mailbox, 3.0, dtype=DType.FLOAT16), None)
    stranger = state(mailbox, 3.0)._replace(header=state(mailbox, 3.0).header._replace(origin=3))
    with pytest.raises(ProtocolError, match="no such message"):
        mailbox.open(Kind.STATE, stranger, None)


def test_states_are_given_out_once_in_order_and_none_before_its_step(mailbox: Mailbox) -> None:
    for origin, step in ((2, 1), (2, 0), (0, 0)):
        keep(mailbox, state(mailbox, float(origin), origin=origin, step=step))
    assert [(origin, received.data[0, 0]) for origin, _, received in mailbox.pop_states(0, 0)] == [(0, 0.0), (2, 2.0)]
    assert [origin for origin, *_ in mailbox.pop_states(0, 1)] == [2]
    assert not list(mailbox.pop_states(0, 1))


def test_a_wait_moves_the_clock_to_the_last_arrival_or_to_the_end_of_patience_where_a_copy_is_missing(mailbox: Mailbox) -> None:
    news = np.zeros(2, np.bool_)
    clock = Clock(lockstep=True, patience_s=2.0)
    keep(mailbox, state(mailbox, 1.0), Delivery(np.array([0.5, 1.5]), news))
    assert mailbox.wait_for(Kind.STATE, [1], clock, 0)[1].tolist() == [True, True]
    assert (clock.now, mailbox.missing) == (1.5, {})
    clock.now = 0.0
    keep(mailbox, state(mailbox, 1.0), Delivery(np.array([0.5, 2.5]), news))
    assert mailbox.wait_for(Kind.STATE, [1], clock, 0)[1].tolist() == [True, False]
    assert (clock.now, mailbox.missing) == (2.0, {"missing_state": 1.0})


def test_what_must_wait_for_the_order_is_bounded_and_given_back_once(mailbox: Mailbox) -> None:
    message = state(mailbox, 1.0)
    assert [mailbox.lay_aside(message) for _ in range(3 * EARLY + 1)] == [True] * 3 * EARLY + [False]
    assert len(mailbox.take_early()) == 3 * EARLY
    assert not mailbox.take_early()


def test_the_end_of_a_round_drops_what_belongs_to_it(mailbox: Mailbox) -> None:
    keep(mailbox, state(mailbox, 1.0))
    mailbox.end_round(0)
    assert mailbox.get(Kind.STATE, 1, 0) is None
