"""What the links of a scenario will do to its messages, worked out before anything is started.

Theory of operation. A scenario fixes how many bytes each kind of message has (of one deployed copy), over which links it
goes how often, and when it is due: states at the deadline of their step, everything else within `network.patience_s`.
From the spec of a link follows what one message meets there when nothing else is on the link: airtime, delay, loss. What
cannot work at all follows too, and is worth a warning before hours are spent: more bytes per step than the link carries,
states that are late every time, a message that takes longer than any agent waits, or does not fit the queue.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.records.plan import Plan
from envs.registry import outlook
from node.protocol.kinds import ROWS, sizes_of, widths
from node.protocol.routing import AgentRouting
from scenarios.kinds import Kind
from topology.graph.neighbourhood import direct_tree, relay_tree
from topology.graph.routes import answers
from topology.link.model import IDEAL, LinkSpec
from topology.link.schedule import Schedule
from topology.link.treatment import dtype_of, is_reliable
from topology.wire.codec import row_bytes
from topology.wire.frame import VERSION, Header, encode_header
from topology.wire.ledger import wire_bytes

Link = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of message of a scenario.

    Attributes:
        kind: Which.
        wire_bytes: Size of one message of one copy; of what differs by agent the largest agent's.
        per_link: Most messages of it that one link carries at a step (STATE) or in a round (the others).
        reliable: Whether it is retransmitted.
        due_s: How long after it is sent it is still of use.
    """

    kind: Kind
    wire_bytes: int
    per_link: int
    reliable: bool
    due_s: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """What one message meets on one idle link.

    Attributes:
        airtime_s: For how long it keeps the link from others.
        out_s: When its last byte is out.
        delay_s: From sending to arrival, at 50, 90 and 99 % of those that need no retransmission.
        loss_prob: Probability that it loses a fragment (and so, as a datagram, is lost).
    """

    airtime_s: float
    out_s: float
    delay_s: tuple[float, float, float]
    loss_prob: float


def loads(ready: Plan) -> list[Load]:
    """The kinds of message that a scenario sends, if any."""
    scenario, deployment = ready.scenario, ready.deployment
    network, steps, algorithm = scenario.network, scenario.rollout.steps, scenario.algorithm
    routings = [AgentRouting(scenario, deployment, agent) for agent in range(deployment.n_agents)]
    graph = deployment.graph()
    sizes = sizes_of(scenario, deployment)
    answers_by = (Kind[algorithm.recipe.answer], *((Kind.SHARED,) if algorithm.share_policy else ()))
    ends = algorithm.turn_rounds - 1  # where the first turn ends; without turns rounds are alike
    found = []
    for kind, row in ROWS.items():
        numbers = max(widths(sizes)[kind])
        rows = -(-steps // algorithm.minibatches) if row.per == "sample" else 1  # of one copy in a minibatch, on average
        used: dict[Link, int] = {}
        round_ = algorithm.consensus_every - 1 if kind is Kind.CONSENSUS else ends
        outgoing = [(agent, routing.routes(kind, round_).outgoing) for agent, routing in enumerate(routings)]
        if kind in answers_by and deployment.critic is not None:
            outgoing.append((deployment.critic, answers(deployment.wires(), deployment.critic, deployment.critic).outgoing))
        for agent, sends in outgoing:
            receivers = [to for to, _ in sends]
            tree = relay_tree(graph, agent, receivers) if scenario.routing == "direct" else direct_tree(agent, receivers)
            for to, origins in sends:
                below = to
                while below != agent:
                    link = tree.above[below], below
                    used[link] = used.get(link, 0) + len(origins)
                    below = tree.above[below]
        if not used:
            continue
        times = algorithm.epochs * algorithm.minibatches if kind is Kind.RATIO_MB else 1
        dtype = dtype_of(network, kind)
        header = Header(VERSION, int(kind), int(dtype), 0, 0, scenario.n_rounds - 1, steps - 1, 0, steps * scenario.n_rounds, 0.0)
        found.append(
            Load(
                kind=kind,
                wire_bytes=wire_bytes(len(encode_header(header)), rows * row_bytes(numbers, dtype)),
                per_link=times * max(used.values()),
                reliable=is_reliable(network, kind),
                due_s=scenario.rollout.slack_frac * deployment.dt if kind is Kind.STATE else network.patience_s,
            )
        )
    return found


def crossing(load: Load, spec: LinkSpec) -> Crossing:
    """One message on one idle link of the given kind."""
    airtime_s = load.wire_bytes * 8 / spec.mean_rate_bps if spec.mean_rate_bps < math.inf else 0.0
    fragments = max(-(-load.wire_bytes // spec.mtu_bytes), 1)
    kept = 1.0 - spec.loss_prob
    if spec.loss_burst and spec.loss_prob < 1:
        enters = spec.loss_prob / (spec.loss_burst * kept)  # p = π·r / (1 − π): a Gilbert chain's step from good to bad
        kept *= (1.0 - enters) ** (fragments - 1)
    else:
        kept **= fragments
    # a duty cycle silences the link after each fragment; the silence after the last one is not the message's
    final_bytes = load.wire_bytes - (fragments - 1) * spec.mtu_bytes
    last_s = airtime_s * (1.0 - (1.0 - spec.duty) * final_bytes / load.wire_bytes)
    quantiles = tuple(last_s + spec.delay_s + spec.quantile(share) for share in (0.5, 0.9, 0.99))
    return Crossing(airtime_s, last_s, (quantiles[0], quantiles[1], quantiles[2]), 1.0 - kept)


def link_specs(ready: Plan) -> dict[LinkSpec, list[tuple[float, Link]]]:
    """Every spec that links of a scenario ever have, with the links and from when on."""
    scenario, deployment = ready.scenario, ready.deployment
    schedule = Schedule(scenario.network, deployment.wires(), deployment.seed(scenario), scenario.presets)
    found: dict[LinkSpec, list[tuple[float, Link]]] = {}
    for a, b in sorted(deployment.wires().edges):
        for link in ((a, b), (b, a)):
            for start_s, spec in schedule.segments(*link):
                found.setdefault(spec, []).append((start_s, link))
    return found


def objections(ready: Plan, spec: LinkSpec, of: Iterable[Load]) -> list[str]:
    """What cannot work on such links, a sentence each."""
    if spec.loss_prob >= 1:
        return [f"every message is lost (loss_prob {spec.loss_prob:g}), however often it is sent"]
    found = []
    for load in of:
        one, name = crossing(load, spec), load.kind.name
        if not load.reliable and load.wire_bytes > spec.queue_bytes:
            room = f"{spec.queue_bytes:,.0f} B"
            found.append(f"a {name} of {load.wire_bytes:,} B never fits the queue of {room}: all are dropped")
        if load.kind is Kind.STATE:
            needs_s = load.per_link * one.airtime_s
            if needs_s > ready.deployment.dt:
                found.append(
                    f"the busiest link carries {load.per_link} STATE a step, {load.per_link * load.wire_bytes:,} B, and needs "
                    f"{duration(needs_s)} for them; a step has {duration(ready.deployment.dt)}: they queue up or are dropped"
                )
            elif one.delay_s[0] > load.due_s:
                found.append(
                    f"most STATE take {duration(one.delay_s[0])} or more over one link and are due {duration(load.due_s)} after "
                    "sensing: agents act on older ones"
                )
        elif (needs_s := (load.per_link - 1) * one.airtime_s + one.out_s) > load.due_s:
            found.append(
                f"{load.per_link} {name} of {load.wire_bytes:,} B a round and link take {duration(needs_s)}; "
                f"agents wait {duration(load.due_s)} (network.patience_s): the rest counts as missing"
            )
    return found


def warnings(ready: Plan) -> list[str]:
    """What cannot work in a scenario, a sentence each, before it is run: in its world on its graph, and on its links."""
    found = [*outlook(ready.scenario.env, ready.deployment.graph()).doubts]
    specs = link_specs(ready)
    if ready.scenario.clock == "wall" or specs.keys() <= {IDEAL}:
        return found
    of = loads(ready)
    for spec, places in specs.items():
        start_s, (a, b) = places[0]
        where = f"link {a}-{b}" + (f" and {len(places) - 1} more" if len(places) > 1 else "")
        since = f" from {duration(start_s)} on" if start_s else ""
        found += [f"{where}{since}: {text}" for text in objections(ready, spec, of)]
    return found


def duration(seconds: float) -> str:
    """Seconds as people read them.

    Example:
        >>> [duration(value) for value in (0.0, 0.00042, 0.025, 3.0, 8400.0)]
        ['0', '0.42 ms', '25 ms', '3 s', '2.3 h']
    """
    if seconds == 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.2g} h"
