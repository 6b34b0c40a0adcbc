"""The link model against closed forms: rate, queue, waiting, loss, bursts, delay, repeats, gaps, order, randomness."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.link.model import IDEAL, MAX_TIMEOUT_S, Fate, Fault, LinkModel, LinkSpec, Passage
from topology.link.presets import PRESETS
from topology.link.schedule import Downtime, LinkDown, ReceiverDown, SenderDown
from topology.link.traces import Trace

SLOW = LinkSpec(rate_bps=8.0)  # a byte per second, so that sizes are times
Z99 = 2.5758  # a normal variable stays within this many standard deviations in 99 % of cases
KS99 = 1.6276  # Kolmogorov's limit distribution stays below this in 99 % of cases


def link(spec: LinkSpec, faults: Sequence[Fault] = (), *, copies: int = 1, seed: int = 0, stream: Any = (0, 1)) -> LinkModel:
    return LinkModel([(0.0, spec)], faults, copies=copies, seed=seed, stream=stream)


def at(*seconds: float) -> Any:
    return np.array(seconds, dtype=np.float64)


def verdict(passage: Passage) -> tuple[float, Fate, int, int]:
    """Of a single copy."""
    return float(passage.arrive[0]), Fate(int(passage.fate[0])), passage.sent_bytes, passage.resent_bytes


def carry_all(
    model: LinkModel, count: int, send: Callable[[int], Any], size: int = 100, *, reliable: bool = False
) -> list[Passage]:
    passages = []
    for message in range(count):
        moment = send(message)
        model.forget(float(moment.min()))
        passages.append(model.carry(size, moment, reliable=reliable))
    return passages


# ------------------------------------------------------------------------------------------------------------ rate and queue


def test_small_messages_are_not_free_however_long_the_link_was_idle() -> None:
    model = link(LinkSpec(rate_bps=8000.0))
    assert model.carry(50, at(0.0), reliable=False).arrive == pytest.approx([0.05])
    assert model.carry(50, at(1000.0), reliable=False).arrive == pytest.approx([1000.05])
    assert model.carry(50, at(1000.0), reliable=False).arrive == pytest.approx([1000.10])


def test_a_busy_link_carries_its_rate() -> None:
    spec, copies = LinkSpec(rate_bps=2e6, delay_s=0.01), 10
    model, rng, total = link(spec, copies=copies), np.random.default_rng(0), np.zeros(copies)
    arrive = np.zeros(copies)
    for message in range(2000):
        size = rng.integers(20, 3000, copies)
        arrive = model.carry(size, np.full(copies, message * 1e-4), reliable=False).arrive
        total += size * 8
    assert total / (arrive - 0.01) == pytest.approx(np.full(copies, 2e6), rel=0.005)


def test_the_mean_wait_of_poisson_messages_of_one_size_is_pollaczek_khinchines() -> None:
    copies, count, warm_up, load = 1000, 1300, 300, 0.6
    model = link(LinkSpec(rate_bps=800.0), copies=copies)  # a message of 100 bytes takes 1 s
    sends = np.cumsum(np.random.default_rng(1).exponential(1 / load, (count, copies)), axis=0)
    passages = carry_all(model, count, lambda message: sends[message])
    waits = np.stack([passage.arrive for passage in passages]) - sends - 1.0
    assert waits[warm_up:].mean() == pytest.approx(load / (2 * (1 - load)), rel=0.02)


def test_what_the_queue_drops_is_what_a_queue_on_paper_drops() -> None:
    copies, room, rng = 5, 1000, np.random.default_rng(2)
    model = link(replace(SLOW, queue_bytes=room), copies=copies)
    on_paper: list[list[tuple[int, int]]] = [[] for _ in range(copies)]  # (out at, bytes) of those not dropped
    now = np.zeros(copies, np.int64)
    drops = 0
    for _ in range(1500):
        now += rng.integers(0, 200, copies)
        size = rng.integers(1, 301, copies)
        model.forget(float(now.min()))
        passage = model.carry(size, now.astype(np.float64), reliable=False)
        expected = []
        for copy, queue in enumerate(on_paper):
            inside = [(out, held) for out, held in queue if out > now[copy]]
            fits = sum(held for _, held in inside) + size[copy] <= room
            if fits:
                out = max([now[copy], *(out for out, _ in inside)]) + size[copy]
                inside.append((int(out), int(size[copy])))
                assert passage.arrive[copy] == out
            on_paper[copy] = inside
            expected.append(Fate.ARRIVES if fits else Fate.QUEUE)
        assert passage.fate.tolist() == expected
        assert passage.sent_bytes == size[np.array(expected) == Fate.ARRIVES].sum()
        drops += expected.count(Fate.QUEUE)
    assert 500 < drops < 5000


def test_a_sender_of_reliable_messages_is_held_back_instead() -> None:
    model = link(replace(SLOW, queue_bytes=150))
    assert [float(model.carry(100, at(0.0), reliable=True).arrive[0]) for _ in range(3)] == [100, 200, 300]
    assert model.carry(100, at(0.0), reliable=False).fate.tolist() == [Fate.QUEUE]
    assert model.carry(50, at(200.0), reliable=False).arrive.tolist() == [350]


def test_a_duty_cycle_makes_silence_after_each_fragment() -> None:
    sf7 = replace(PRESETS["lora-sf7"].spec, loss_prob=0.0, queue_bytes=math.inf)
    model = link(sf7)
    arrivals = [float(model.carry(222, at(0.0), reliable=False).arrive[0]) for _ in range(3)]
    assert arrivals == pytest.approx([0.369, 36.9 + 0.369, 2 * 36.9 + 0.369])
    policy = link(sf7).carry(50_000, at(0.0), reliable=False).arrive[0]
    assert policy / 3600 == pytest.approx(2.3, abs=0.02)
    split = link(sf7).carry(3 * 222, at(0.0), reliable=False).arrive
    assert split == pytest.approx([arrivals[-1]])


def test_a_trace_takes_the_place_of_the_rate() -> None:
    model = link(LinkSpec(trace=Trace.of_opportunities([1])))  # 12 Mbit/s
    assert model.carry(1500, at(0.5), reliable=False).arrive == pytest.approx([0.501])
    assert model.carry(150, at(0.5), reliable=False).arrive == pytest.approx([0.5011])


# -------------------------------------------------------------------------------------------------------------------- delay


@pytest.mark.parametrize(
    "spread",
    [((0.0, 0.0), (0.5, 0.003), (0.9, 0.02), (1.0, 0.25)), ((0.0, -0.01), (1.0, 0.01))],
    ids=["quantiles", "uniform"],
)
@pytest.mark.parametrize("loss_prob", [0.0, 0.5])
def test_delays_are_spread_as_the_table_says_lost_or_not(spread: Any, loss_prob: float) -> None:
    spec = LinkSpec(delay_s=0.01, spread=spread, loss_prob=loss_prob, reorder=True)
    passages = carry_all(link(spec, copies=100), 200, lambda message: np.full(100, float(message)))
    delays = np.concatenate([passage.arrive[passage.fate == Fate.ARRIVES] - i for i, passage in enumerate(passages)])
    probabilities, seconds = np.array(spread).T
    expected = np.interp(np.sort(delays) - 0.01, seconds, probabilities)
    steps = np.arange(len(delays) + 1) / len(delays)
    distance = max(np.abs(expected - steps[1:]).max(), np.abs(expected - steps[:-1]).max())
    assert len(delays) == pytest.approx(20_000 * (1 - loss_prob), rel=0.05)
    assert distance * math.sqrt(len(delays)) < KS99


def test_order_is_kept_unless_it_may_be_lost() -> None:
    spec = LinkSpec(rate_bps=1e6, delay_s=0.2, spread=((0.0, -0.2), (1.0, 0.2)))

    def arrivals(spec: LinkSpec) -> Any:
        passages = carry_all(link(spec, copies=20), 300, lambda message: np.full(20, message * 0.01))
        return np.stack([passage.arrive for passage in passages])

    kept, loose = arrivals(spec), arrivals(replace(spec, reorder=True))
    assert (np.diff(kept, axis=0) >= 0).all()
    assert (np.diff(loose, axis=0) < 0).mean() > 0.3
    assert np.array_equal(kept, np.maximum.accumulate(loose, axis=0))


# --------------------------------------------------------------------------------------------------------------------- loss


def losses(spec: LinkSpec, copies: int, count: int, size: int = 100) -> Any:
    passages = carry_all(link(spec, copies=copies), count, lambda message: np.full(copies, float(message)), size)
    return np.stack([passage.fate == Fate.LOSS for passage in passages])


@pytest.mark.parametrize("prob", [0.01, 0.3])
def test_single_losses_are_binomial(prob: float) -> None:
    lost = losses(LinkSpec(loss_prob=prob), 500, 400)
    assert abs(lost.mean() - prob) < Z99 * math.sqrt(prob * (1 - prob) / lost.size)
    both = (lost[1:] & lost[:-1]).mean()
    assert abs(both - prob**2) < Z99 * math.sqrt(prob**2 * (1 + 2 * prob) / lost.size)


@pytest.mark.parametrize(("prob", "burst"), [(0.01, 3.0), (0.1, 6.0), (0.4, 1.0)])
def test_bursts_are_those_of_a_gilbert_chain(prob: float, burst: float) -> None:
    lost = losses(LinkSpec(loss_prob=prob, loss_burst=burst), 1000, 600)
    leave = 1 / burst
    memory = 1 - leave - prob * leave / (1 - prob)  # second eigenvalue, the correlation of neighbours
    spread = math.sqrt(prob * (1 - prob) / lost.size * (1 + memory) / (1 - memory))
    assert abs(lost.mean() - prob) < Z99 * spread
    assert abs(lost[0].mean() - prob) < Z99 * math.sqrt(prob * (1 - prob) / lost.shape[1])  # stationary from the start
    begun = (lost[1:] & ~lost[:-1]).sum()
    ended = (lost[:-1] & ~lost[1:]).sum()
    assert lost[1:-1].sum() / ((begun + ended) / 2) == pytest.approx(burst, rel=0.03)


def test_a_chain_stands_still_while_nothing_is_sent() -> None:
    prob, burst, copies = 0.4, 20.0, 1000
    model = link(LinkSpec(loss_prob=prob, loss_burst=burst), copies=copies)
    here = np.arange(copies) % 2 == 0
    lost = np.zeros((2, copies), np.bool_)
    for message in range(200):
        lost[0] = np.where(here, lost[1], lost[0])
        fate = model.carry(9, np.where(here, float(message), np.inf), reliable=False).fate
        lost[1] = np.where(here, fate == Fate.LOSS, lost[1])
        here = ~here
    again = lost[1][lost[0]].mean()
    assert abs(again - (1 - 1 / burst)) < Z99 * math.sqrt((1 - 1 / burst) / burst / lost[0].sum())


def test_copies_of_different_sizes_have_different_numbers_of_fragments() -> None:
    copies, prob = 5000, 0.1
    size = np.where(np.arange(copies) < copies // 2, 100, 1000)
    fate = link(LinkSpec(loss_prob=prob, mtu_bytes=100), copies=copies).carry(size, np.zeros(copies), reliable=False).fate
    for lost, expected in zip(np.split(fate == Fate.LOSS, 2), (prob, 1 - (1 - prob) ** 10), strict=True):
        assert abs(lost.mean() - expected) < Z99 * math.sqrt(expected * (1 - expected) / len(lost))


@pytest.mark.parametrize("fragments", [1, 2, 10])
@pytest.mark.parametrize("burst", [0.0, 4.0])
def test_a_message_is_lost_with_any_of_its_fragments(fragments: int, burst: float) -> None:
    prob = 0.05
    lost = losses(LinkSpec(loss_prob=prob, loss_burst=burst, mtu_bytes=100), 400, 100, size=fragments * 100 - 7)
    enter = prob / burst / (1 - prob) if burst else prob
    expected = 1 - (1 - prob) * (1 - enter) ** (fragments - 1)
    # messages of one copy follow each other on one chain: only copies count as independent for the spread
    assert abs(lost.mean() - expected) < Z99 * lost.mean(axis=0).std() / math.sqrt(lost.shape[1])
    if not burst:
        both = (lost[1:] & lost[:-1]).mean()
        assert abs(both - expected**2) < Z99 * math.sqrt(expected**2 * (1 + 2 * expected) / lost.size)


def test_what_is_lost_has_used_the_link() -> None:
    model = link(replace(SLOW, loss_prob=1.0))
    lost = model.carry(5, at(0.0), reliable=False)
    assert (lost.fate[0], lost.arrive[0], lost.sent_bytes) == (Fate.LOSS, math.inf, 5)
    model = link(replace(SLOW, loss_prob=0.5), copies=200)
    assert set(model.carry(5, np.zeros(200), reliable=False).fate) == {Fate.ARRIVES, Fate.LOSS}
    second = model.carry(5, np.zeros(200), reliable=False)
    assert set(second.arrive) == {10.0, math.inf}


# ------------------------------------------------------------------------------------------------------------------ repeats

LOSSY = LinkSpec(rate_bps=8000.0, delay_s=0.02, loss_prob=0.3, mtu_bytes=100, retries=15)


def on_paper(repeats: int, spec: LinkSpec = LOSSY) -> float:
    """When a reliable message of one full fragment arrives that was lost so often, on an idle link."""
    fragment_s = spec.mtu_bytes * 8 / spec.rate_bps
    timeout_s = fragment_s + 2 * spec.delay_s
    waits = sum(min(timeout_s * 2.0**n, MAX_TIMEOUT_S) for n in range(repeats))
    return (repeats + 1) * fragment_s + waits + spec.delay_s


def test_repeats_follow_their_closed_form() -> None:
    copies = 5000
    passage = link(LOSSY, copies=copies).carry(100, np.zeros(copies), reliable=True)
    assert (passage.fate == Fate.ARRIVES).all()
    times = np.array([on_paper(repeats) for repeats in range(16)])
    repeats = np.abs(passage.arrive[:, None] - times).argmin(axis=1)
    assert passage.arrive == pytest.approx(times[repeats], rel=1e-12)
    for count in range(4):
        share = 0.3**count * 0.7
        assert abs((repeats == count).mean() - share) < Z99 * math.sqrt(share * (1 - share) / copies)
    assert passage.sent_bytes == 100 * (copies + repeats.sum())
    assert passage.resent_bytes == 100 * repeats.sum()


def test_repeats_end() -> None:
    copies = 5000
    passage = link(replace(LOSSY, retries=2), copies=copies).carry(100, np.zeros(copies), reliable=True)
    gone = passage.fate == Fate.GAVE_UP
    assert abs(gone.mean() - 0.3**3) < Z99 * math.sqrt(0.3**3 / copies)
    assert np.isinf(passage.arrive[gone]).all()
    assert np.isfinite(passage.arrive[~gone]).all()
    assert set(passage.fate) == {Fate.ARRIVES, Fate.GAVE_UP}
    never = link(replace(LOSSY, retries=0, loss_prob=1.0)).carry(9, at(0.0), reliable=True)
    assert verdict(never) == (math.inf, Fate.GAVE_UP, 9, 0)


def test_repeats_have_luck_of_their_own() -> None:
    copies, prob = 4000, 0.5
    passage = link(replace(LOSSY, loss_prob=prob), copies=copies).carry(200, np.zeros(copies), reliable=True)
    share = (1 - prob**2) ** 2  # both fragments are through after one repeat at the latest
    once = passage.arrive < on_paper(1) + 0.3
    assert abs(once.mean() - share) < Z99 * math.sqrt(share * (1 - share) / copies)


def test_only_missing_fragments_are_repeated() -> None:
    copies, size = 2000, 950  # ten fragments, the last one half
    passage = link(LOSSY, copies=copies).carry(size, np.zeros(copies), reliable=True)
    assert (passage.fate == Fate.ARRIVES).all()
    # each byte goes 1/(1 - p) times on average
    spread = size * math.sqrt(0.3 / 0.7**2 / 9.5 / copies)
    assert abs(passage.sent_bytes / copies - size / 0.7) < Z99 * spread
    assert passage.sent_bytes - passage.resent_bytes == copies * size


def test_a_burst_is_over_when_a_repeat_comes() -> None:
    spec = replace(LOSSY, loss_burst=50.0)
    passage = link(spec, copies=5000).carry(100, np.zeros(5000), reliable=True)
    second = np.isclose(passage.arrive, on_paper(1)).mean()
    assert abs(second - 0.3 * 0.7) < Z99 * math.sqrt(0.21 * 0.79 / 5000)


def test_a_time_out_takes_in_what_nine_of_ten_messages_need() -> None:
    spec = LinkSpec(rate_bps=12e6, delay_s=0.1, spread=((0.0, 0.0), (0.9, 0.02), (1.0, 9.0)))
    assert spec.timeout_s == pytest.approx(0.001 + 2 * 0.12)
    assert replace(spec, rate_bps=math.inf, trace=Trace.of_opportunities([1])).timeout_s == pytest.approx(0.001 + 2 * 0.12)
    assert IDEAL.timeout_s == 0


class Deaf:
    """Strikes what begins before a moment."""

    fate = Fate.OUTAGE
    lasting = False

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s

    def silences(self, send: Any) -> Any:
        return np.zeros(send.shape, np.bool_)

    def strikes(self, begin: Any, arrive: Any) -> Any:
        return begin < self.until_s


def test_a_message_fits_between_a_transmission_and_its_repeat_and_is_not_held_up_by_it() -> None:
    model = link(replace(SLOW, delay_s=10.0, mtu_bytes=10), [Deaf(5.0)])
    first = model.carry(10, at(0.0), reliable=True)
    timeout_s = 10 + 2 * 10
    assert first.arrive == [10 + timeout_s + 10 + 10]  # out at 10, repeated at 40
    assert model.carry(30, at(1000.0), reliable=False).arrive == [1040]
    between = model.carry(30, at(6.0), reliable=False)
    assert between.arrive == [10 + 30 + 10]
    after = model.carry(1, at(6.0), reliable=False)
    assert after.arrive == [50 + 1 + 10]


def test_reliable_messages_stay_in_line() -> None:
    model = link(replace(SLOW, delay_s=10.0, mtu_bytes=10), [Deaf(5.0)])
    first = model.carry(10, at(0.0), reliable=True)
    assert model.carry(1, at(10.0), reliable=False).arrive == [21]
    assert model.carry(1, at(11.0), reliable=True).arrive == first.arrive
    loose = link(replace(SLOW, delay_s=10.0, mtu_bytes=10, reorder=True), [Deaf(5.0)])
    loose.carry(10, at(0.0), reliable=True)
    assert loose.carry(1, at(11.0), reliable=True).arrive == [22]


# ------------------------------------------------------------------------------------------------------------------- faults


def test_an_outage_takes_what_is_on_the_link_while_it_lasts() -> None:
    model = link(replace(SLOW, delay_s=5.0), [LinkDown(Downtime([(10.0, 20.0)]))], copies=6)
    passage = model.carry(2, at(0.0, 2.9, 3.0, 9.0, 19.9, 20.0), reliable=False)
    assert passage.fate.tolist() == [Fate.ARRIVES, Fate.ARRIVES, Fate.OUTAGE, Fate.OUTAGE, Fate.OUTAGE, Fate.ARRIVES]
    assert passage.arrive.tolist() == [7, 9.9, math.inf, math.inf, math.inf, 27]
    assert passage.sent_bytes == 12


@pytest.mark.parametrize(("delay_s", "until_s"), [(0.02, 5.0), (20.0, 300.0)])
def test_a_reliable_message_outlives_an_outage_or_gives_up(delay_s: float, until_s: float) -> None:
    spec = LinkSpec(rate_bps=8000.0, delay_s=delay_s, mtu_bytes=100)
    passage = link(spec, [LinkDown(Downtime([(0.0, until_s)]))]).carry(100, at(0.0), reliable=True)
    tries = [n for n in range(16) if on_paper(n, spec) - delay_s - 0.1 >= until_s]
    assert passage.arrive == pytest.approx([on_paper(tries[0], spec)])
    assert passage.resent_bytes == 100 * tries[0]
    for_ever = link(spec, [LinkDown(Downtime([(0.0, math.inf)]))]).carry(100, at(0.0), reliable=True)
    assert verdict(for_ever) == (math.inf, Fate.GAVE_UP, 1600, 1500)


def test_who_is_down_neither_sends_nor_hears() -> None:
    down = Downtime([(10.0, 20.0)])
    spec = replace(SLOW, delay_s=5.0)
    sender = link(spec, [SenderDown(down)], copies=3).carry(2, at(5.0, 10.0, 20.0), reliable=False)
    assert sender.fate.tolist() == [Fate.ARRIVES, Fate.NOT_SENT, Fate.ARRIVES]
    assert sender.sent_bytes == 4
    receiver = link(spec, [ReceiverDown(down)], copies=4).carry(2, at(2.0, 3.0, 12.0, 13.0), reliable=False)
    assert receiver.fate.tolist() == [Fate.ARRIVES, Fate.CRASH, Fate.CRASH, Fate.ARRIVES]
    assert receiver.sent_bytes == 8


def test_what_waits_in_a_sender_that_goes_down_is_gone_for_good() -> None:
    down = SenderDown(Downtime([(10.0, 20.0)]))
    waiting = link(SLOW, [down])
    waiting.carry(12, at(0.0), reliable=False)
    assert waiting.carry(1, at(5.0), reliable=False).fate == [Fate.CRASH]
    repeating = link(replace(LOSSY, loss_prob=1.0), [SenderDown(Downtime([(0.2, 0.3)]))])
    assert repeating.carry(100, at(0.0), reliable=True).fate == [Fate.CRASH]  # its first repeat would begin at 0.24


def test_the_first_fault_that_strikes_gives_the_reason_before_any_loss() -> None:
    down = Downtime([(0.0, 9.0)])
    spec = LinkSpec(loss_prob=1.0)
    cases: list[tuple[list[Fault], Fate]] = [
        ([LinkDown(down), ReceiverDown(down)], Fate.OUTAGE),
        ([ReceiverDown(down), LinkDown(down)], Fate.CRASH),
        ([], Fate.LOSS),
    ]
    for faults, fate in cases:
        assert link(spec, faults).carry(1, at(1.0), reliable=False).fate == [fate]


# ----------------------------------------------------------------------------------------------------------- order of calls

handed_in = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=40)


@given(messages=st.lists(handed_in, min_size=2, max_size=2), duty=st.sampled_from([1.0, 0.5]))
def test_transmissions_never_overlap_and_the_link_never_idles_while_something_fits(
    messages: list[list[tuple[int, int]]], duty: float
) -> None:
    count = min(map(len, messages))
    model = link(replace(SLOW, reorder=True, duty=duty, mtu_bytes=1000), copies=2)
    taken: list[list[tuple[float, float]]] = [[], []]
    for place in range(count):
        send = at(*(copy[place][0] for copy in messages))
        size = np.array([copy[place][1] for copy in messages])
        arrive = model.carry(size, send, reliable=False).arrive
        for copy in range(2):
            begin, busy = arrive[copy] - size[copy], size[copy] / duty
            assert begin >= send[copy]
            assert all(begin + busy <= start or begin >= end for start, end in taken[copy])
            # every earlier moment at which it could have begun is too near before a reservation
            for moment in [send[copy], *(end for _, end in taken[copy])]:
                if send[copy] <= moment < begin:
                    assert any(start < moment + busy and end > moment for start, end in taken[copy])
            taken[copy].append((begin, begin + busy))


def test_a_late_message_waits_only_for_what_begins_earlier() -> None:
    spec = replace(SLOW, delay_s=50.0, spread=((0.0, -50.0), (1.0, 50.0)))
    loose, strict = link(replace(spec, reorder=True), copies=500), link(spec, copies=500)
    sends = [100.0, 300.0, 50.0, 200.0]  # as handed in
    raw = np.stack([loose.carry(1, np.full(500, send), reliable=False).arrive for send in sends])
    found = np.stack([strict.carry(1, np.full(500, send), reliable=False).arrive for send in sends])
    assert np.array_equal(found[1], np.maximum(raw[1], raw[0]))
    assert np.array_equal(found[2], raw[2])
    assert np.array_equal(found[3], raw[[0, 2, 3]].max(axis=0))


def test_a_message_that_is_not_yet_sent_is_not_in_the_queue() -> None:
    model = link(replace(SLOW, queue_bytes=10))
    assert model.carry(10, at(100.0), reliable=False).fate == [Fate.ARRIVES]
    assert model.carry(10, at(50.0), reliable=False).arrive == [60]
    assert model.carry(1, at(105.0), reliable=False).fate == [Fate.QUEUE]


@pytest.mark.parametrize("seed", range(4))
def test_forgetting_changes_nothing(seed: int) -> None:
    spec = LinkSpec(
        rate_bps=800.0, delay_s=40.0, spread=((0.0, -40.0), (1.0, 400.0)), loss_prob=0.2, mtu_bytes=30, queue_bytes=150, retries=2
    )
    steps = np.random.default_rng(seed).integers(0, 10, (40, 4)).tolist()
    told = []
    for forgets in (False, True):
        model, found = link(spec, copies=3), []
        for place, step in enumerate(steps):
            if forgets:
                model.forget(10.0 * place)
            for late in step:
                send = at(0, 1, late) + 10.0 * place + late
                found.append(model.carry(40 + late, send, reliable=seed % 2 == 0 and late % 2 == 0))
        told.append(as_bytes(found))
    assert told[0] == told[1]


# --------------------------------------------------------------------------------------------------------------- randomness

RICH = LinkSpec(
    rate_bps=1e6, spread=((0.0, 0.0), (1.0, 0.1)), loss_prob=0.3, loss_burst=2.0, mtu_bytes=200, retries=2, queue_bytes=4000
)


def story(model: LinkModel, count: int = 400, copies: int = 3) -> list[Passage]:
    return [model.carry(50 + i % 700, np.full(copies, i * 0.004), reliable=i % 5 == 0) for i in range(count)]


def as_bytes(passages: Sequence[Passage]) -> bytes:
    return b"".join(p.arrive.tobytes() + p.fate.tobytes() + f"{p.sent_bytes}/{p.resent_bytes}".encode() for p in passages)


def test_same_seed_same_bytes_and_other_links_other_numbers() -> None:
    told = as_bytes(story(link(RICH, copies=3)))
    assert told == as_bytes(story(link(RICH, copies=3)))
    others: list[dict[str, Any]] = [
        {"seed": 1},
        {"stream": (1, 0)},
        {"stream": (0, 1, 0)},
        {"stream": (0, 1, 0, 1)},
        {"stream": (0,)},
    ]
    different = [as_bytes(story(link(RICH, copies=3, **other))) for other in others]
    assert len({told, *different}) == 1 + len(others)


def test_another_link_in_between_changes_nothing() -> None:
    alone = as_bytes(story(link(RICH, copies=3)))
    model, other = link(RICH, copies=3), link(RICH, copies=3, stream=(5, 6))
    together = []
    for i in range(400):
        together.append(model.carry(50 + i % 700, np.full(3, i * 0.004), reliable=i % 5 == 0))
        other.carry(5000, np.full(3, i * 0.004), reliable=True)
    assert as_bytes(together) == alone


def test_a_copy_does_not_depend_on_how_many_there_are() -> None:
    many, few = story(link(RICH, copies=20), 700, 20), story(link(RICH, copies=2), 700, 2)
    for more, fewer in zip(many, few, strict=True):
        assert np.array_equal(more.arrive[:2], fewer.arrive)
        assert np.array_equal(more.fate[:2], fewer.fate)


def test_a_message_does_not_depend_on_the_size_of_those_before() -> None:
    spec = LinkSpec(spread=((0.0, 0.0), (1.0, 1.0)), loss_prob=0.4, reorder=True, mtu_bytes=100)
    small, large = link(spec, copies=50), link(spec, copies=50)
    for message in range(10):
        small.carry(100, np.full(50, float(message)), reliable=False)
        large.carry(100 * (1 + message), np.full(50, float(message)), reliable=True)
    for size in (100, 1000):
        last = [model.carry(size, np.full(50, 100.0), reliable=False) for model in (small, large)]
        assert as_bytes(last[:1]) == as_bytes(last[1:])


# --------------------------------------------------------------------------------------------------- specs, segments, copies


def test_nothing_to_send_leaves_no_trace() -> None:
    model = link(SLOW, copies=2)
    passage = model.carry(7, at(math.inf, 3.0), reliable=False)
    assert passage.fate.tolist() == [Fate.NOT_SENT, Fate.ARRIVES]
    assert passage.arrive.tolist() == [math.inf, 10.0]
    assert passage.sent_bytes == 7
    for reliable in (True, False):
        nothing = model.carry(7, at(math.inf, math.inf), reliable=reliable)
        assert (nothing.fate.tolist(), nothing.sent_bytes) == ([Fate.NOT_SENT, Fate.NOT_SENT], 0)
    assert model.carry(7, at(0.0, 3.0), reliable=False).arrive.tolist() == [7.0, 17.0]


def test_each_copy_has_its_own_queue() -> None:
    model = link(SLOW, copies=2)
    assert model.carry(np.array([10, 1]), at(0.0, 0.0), reliable=False).arrive.tolist() == [10, 1]
    assert model.carry(np.array([1, 10]), at(0.0, 5.0), reliable=False).arrive.tolist() == [11, 15]


def test_the_spec_of_the_moment_of_sending_holds_for_the_whole_message() -> None:
    segments = [(0.0, SLOW), (10.0, replace(SLOW, rate_bps=80.0)), (20.0, replace(SLOW, loss_prob=1.0))]
    model = LinkModel(segments, copies=4, seed=0, stream=(0, 1))
    passage = model.carry(40, at(0.0, 9.9, 10.0, 20.0), reliable=False)
    assert passage.arrive.tolist() == [40, 49.9, 14, math.inf]
    assert passage.fate.tolist() == [Fate.ARRIVES, Fate.ARRIVES, Fate.ARRIVES, Fate.LOSS]
    assert passage.sent_bytes == 160
    follow = model.carry(40, at(10.0, 10.0, math.inf, 20.0), reliable=False)
    assert follow.arrive.tolist() == [44, 53.9, math.inf, math.inf]  # still behind what was sent before
    assert follow.fate.tolist() == [Fate.ARRIVES, Fate.ARRIVES, Fate.NOT_SENT, Fate.LOSS]
    assert follow.sent_bytes == 120


def test_segments_are_in_order(subtests: pytest.Subtests) -> None:
    for starts in ([], [1.0], [0.0, 2.0, 1.0], [0.0, 1.0, 1.0]):
        with subtests.test(starts=starts), pytest.raises(ValueError, match="segments"):
            LinkModel([(start, IDEAL) for start in starts], copies=1, seed=0, stream=(0, 1))


def test_ideal_is_recognised_and_is() -> None:
    assert link(IDEAL).is_ideal
    assert link(replace(IDEAL, mtu_bytes=9, retries=0, reorder=True, duty=0.1)).is_ideal
    send = at(3.0, 1.0)
    passages = [link(IDEAL, copies=2).carry(10**6, send, reliable=reliable) for reliable in (True, False)]
    assert all(np.array_equal(passage.arrive, send) for passage in passages)
    assert not link(IDEAL, [LinkDown(Downtime([(5.0, 6.0)]))]).is_ideal
    assert not LinkModel([(0.0, IDEAL), (9.0, SLOW)], copies=1, seed=0, stream=(0, 1)).is_ideal


def test_whatever_limits_is_not_ideal(subtests: pytest.Subtests) -> None:
    rows: list[dict[str, Any]] = [
        {"rate_bps": 1e9},
        {"delay_s": 1e-9},
        {"spread": ((0.0, 0.0), (1.0, 1e-9))},
        {"loss_prob": 1e-9},
        {"queue_bytes": 10**9},
        {"trace": Trace.of_opportunities([1])},
    ]
    for values in rows:
        with subtests.test(values=values):
            assert not link(replace(IDEAL, **values)).is_ideal


def test_a_spec_that_makes_no_sense_is_told(subtests: pytest.Subtests) -> None:
    rows: list[tuple[dict[str, Any], str]] = [
        ({"loss_prob": -0.1}, "loss_prob: got -0.1; expected 0..1"),
        ({"loss_prob": 1.1}, "loss_prob: got 1.1"),
        ({"loss_prob": math.nan}, "loss_prob: got nan"),
        ({"loss_prob": 0.8, "loss_burst": 3.0}, "loss_prob: got 0.8 in bursts of 3.0; .* at most 0.75"),
        ({"loss_prob": 0.1, "loss_burst": 0.5}, "in bursts of 0.5"),
        ({"delay_s": -1.0}, "delay_s: got -1.0"),
        ({"mtu_bytes": 0}, "mtu_bytes: got 0"),
        ({"retries": -1}, "retries: got -1"),
        ({"rate_bps": 0.0}, "rate_bps: got 0.0; expected more than 0"),
        ({"queue_bytes": 0}, "queue_bytes: got 0"),
        ({"duty": 0.0}, "duty: got 0.0"),
        ({"duty": 1.1}, "duty: got 1.1"),
        ({"duty": 0.1, "trace": Trace.of_opportunities([1])}, "duty: got 0.1; .* with a trace"),
        ({"spread": ((0.0, 0.0),)}, "spread: .* from probability 0 to 1"),
        ({"spread": ((0.0, 0.0), (0.5, 0.1), (0.4, 0.2), (1.0, 1.0))}, "spread: .* ascending quantiles"),
        ({"spread": ((0.0, 0.0), (0.5, 0.2), (1.0, 0.1))}, "spread: .* ascending seconds"),
        ({"delay_s": 0.1, "spread": ((0.0, -0.2), (1.0, 0.2))}, "spread: .* no delay below 0"),
    ]
    for values, told in rows:
        with subtests.test(values=values), pytest.raises(ValueError, match=told):
            LinkSpec(**values)


def test_the_long_run_rate_takes_in_duty_and_trace() -> None:
    assert PRESETS["lora-sf7"].spec.mean_rate_bps == pytest.approx(48, abs=0.5)
    assert PRESETS["lora-sf12"].spec.mean_rate_bps == pytest.approx(1.5, abs=0.05)
    assert LinkSpec(trace=Trace.of_opportunities([1, 2, 4])).mean_rate_bps == 9e6


# ------------------------------------------------------------------------------------------------------------ taken back

MESSAGES = st.lists(
    st.tuples(st.integers(1, 400), st.floats(0.0, 3.0), st.floats(-0.4, 2.0), st.booleans()), min_size=70, max_size=100
)  # bytes, seconds since the last, how much later copy 1 is, reliable


@pytest.mark.slow
@given(messages=MESSAGES, half=st.integers(1, 69), spec=st.sampled_from(["wifi-campus", "lora-sf7", "uav-mesh"]))
def test_a_link_that_is_taken_back_to_where_another_was_goes_on_as_that_would(
    messages: list[tuple[int, float, float, bool]], half: int, spec: str
) -> None:
    busy = replace(PRESETS[spec].spec, rate_bps=1000.0, queue_bytes=900, loss_prob=0.1, loss_burst=3.0)
    later = replace(busy, delay_s=2.0, loss_burst=0.0)

    def made() -> LinkModel:
        faults: tuple[Fault, ...] = (SenderDown(Downtime([(20.0, 22.0)])), ReceiverDown(Downtime([(30.0, 31.0)])))
        return LinkModel([(0.0, busy), (40.0, later)], faults, copies=2, seed=3, stream=(0, 1))

    whole, part, now = made(), made(), 0.0
    for place, (size, wait_s, lag_s, reliable) in enumerate(messages):
        now += wait_s
        if place == half:
            again = made()
            again.restore(part.state())
            part = again
        send = at(now, max(0.0, now + lag_s))
        if place % 7 == 0:
            whole.forget(now - 0.4)
            part.forget(now - 0.4)
        one, other = (model.carry(size, send.copy(), reliable=reliable) for model in (whole, part))
        assert one.arrive.tobytes() == other.arrive.tobytes()
        assert one.fate.tolist() == other.fate.tolist()
        assert one[2:] == other[2:]
