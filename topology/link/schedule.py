"""What holds where and when: the `network` section of a scenario, worked out for every directed link and every agent.

Theory of operation. What a link is like starts with the global preset and attributes; then come the delay and the rate that
the graph's file gives its edge, then `edges` in their order, then those `change` events that hold at the moment, in their order.
A preset starts afresh at each of these stages, single attributes change what holds so far. That is piecewise constant in time,
so a link has a list of specs, its segments. What takes links or agents down becomes `Downtime`, and rules about it (`LinkDown`,
`SenderDown`, `ReceiverDown`) are laid on top of the medium as its faults; outside of the contacts of its edge a link is down. All
copies of a run meet the same events at the same moments.

Faults by chance are drawn when they are asked for, each edge's and each agent's from a stream of its own keyed by (seed,
purpose, agent). So they are the same on every process, at whatever moment and in whatever order one asks, and no end need be
known in advance.

Everything that can be wrong is told when a `Schedule` is made, by one `ValueError` that begins with the path of the key.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

import networkx as nx
import numpy as np

from scenarios.schema import (
    Change,
    Churn,
    Crash,
    Edge,
    LinkAttributes,
    Network,
    Outage,
    Part,
    Partition,
    RandomOutages,
    Slow,
    Span,
)
from topology.link.model import Fate, Fault, Flags, LinkModel, LinkSpec, Times
from topology.link.presets import changed, named

_OUTAGES, _CHURN = 1001, 1002  # purposes of random streams, beyond the length of any link's own stream
Interval = tuple[float, float]


class Downtime:
    """When something is down: intervals [from, until) in seconds.

    Args:
        known: Intervals in any order; they may overlap.
        drawn: Further ones, ascending, without overlap and without end, taken as far as they are asked for. Either these or
            known ones.

    Example:
        >>> down = Downtime([(1.0, 2.0), (1.5, 3.0)])
        >>> down.covers(np.array([0.5, 1.0, 2.9, 3.0])).tolist()
        [False, True, True, False]
    """

    def __init__(self, known: Iterable[Interval] = (), drawn: Iterator[Interval] | None = None) -> None:
        self._intervals: list[Interval] = []
        for start, end in sorted(known):
            if self._intervals and start <= self._intervals[-1][1]:
                first, last = self._intervals.pop()
                self._intervals.append((first, max(last, end)))
            else:
                self._intervals.append((start, end))
        self._drawn = drawn
        self._arrange()

    def covers(self, times: Times) -> Flags:
        """Whether it is down at these moments; False where they are inf."""
        return self.touches(times, times)

    def touches(self, begin: Times, end: Times) -> Flags:
        """Whether it is down at some moment from begin to end, both included; False where begin is inf."""
        if self._drawn is not None:
            self._draw(float(np.max(end, where=end < np.inf, initial=0.0)))
        touched: Flags = self._starts[np.searchsorted(self._ends, begin, side="right")] <= end
        return touched

    def _draw(self, until_s: float) -> None:
        assert self._drawn is not None
        known = len(self._intervals)
        while not self._intervals or self._intervals[-1][1] <= until_s:
            self._intervals.append(next(self._drawn))
        if len(self._intervals) > known:
            self._arrange()

    def _arrange(self) -> None:
        self._starts = np.array([start for start, _ in self._intervals] + [np.nan])  # nothing is down after the last
        self._ends = np.array([end for _, end in self._intervals])


class LinkDown:
    """What is on the link while it is down, from the first bit sent to its arrival, is lost."""

    fate = Fate.OUTAGE
    lasting = False

    def __init__(self, down: Downtime) -> None:
        self._down = down

    def silences(self, send: Times) -> Flags:
        """See `Fault.silences`: never; the sender has no means to see it."""
        return np.zeros(send.shape, np.bool_)

    def strikes(self, begin: Times, arrive: Times) -> Flags:
        """See `Fault.strikes`."""
        return self._down.touches(begin, arrive)


class SenderDown:
    """A node that is down sends nothing, and what was still waiting to leave is gone for good."""

    fate = Fate.CRASH
    lasting = True

    def __init__(self, down: Downtime) -> None:
        self._down = down

    def silences(self, send: Times) -> Flags:
        """See `Fault.silences`."""
        return self._down.covers(send)

    def strikes(self, begin: Times, arrive: Times) -> Flags:
        """See `Fault.strikes`: what has begun passes."""
        return self._down.covers(begin)


class ReceiverDown:
    """What arrives while its receiver is down is lost."""

    fate = Fate.CRASH
    lasting = False

    def __init__(self, down: Downtime) -> None:
        self._down = down

    def silences(self, send: Times) -> Flags:
        """See `Fault.silences`: never; the sender has no means to see it."""
        return np.zeros(send.shape, np.bool_)

    def strikes(self, begin: Times, arrive: Times) -> Flags:
        """See `Fault.strikes`."""
        return self._down.covers(arrive)


class Schedule:
    """The network of a run over time.

    Args:
        network: The `network` section.
        graph: The topology, nodes 0..n-1. An edge may carry `latency_ms`, `rate_bps` and `contacts`, the graph `period_s`, as
            `topology.graph.given` says; outside of its contacts an edge is down.
        seed: The run's; seeds the links and the faults by chance.
        presets: The section `presets`.

    Raises:
        ValueError: an unknown preset, a trace that cannot be read, an attribute that does not fit, an edge or an agent that
            the graph does not have; the text begins with the path of the key, as `network.events[2].between`. What is wrong
            with edges and events that differ from the rest is found when their links are asked for (`segments`).

    Example:
        >>> schedule = Schedule(Network(preset="lan"), nx.path_graph(3), seed=0)
        >>> schedule.link(0, 1, copies=2).carry(1250, np.zeros(2), reliable=False).arrive.round(6).tolist()
        [0.00021, 0.00021]
    """

    def __init__(self, network: Network, graph: nx.Graph, seed: int, presets: Mapping[str, Part] | None = None) -> None:
        self._network = network
        self._own_presets = presets
        self._graph = graph
        self._seed = seed
        self._presets: dict[str, LinkSpec] = {}
        self._check_places()
        self._spec = self._stage(named("ideal"), network, "network")
        # worked out as links are asked for: every node has a schedule and asks for its own few
        self._segments: dict[tuple[int, int], tuple[tuple[float, LinkSpec], ...]] = {}
        self._down: dict[int, tuple[Downtime, ...]] = {}
        self._outages: dict[tuple[int, int], tuple[Downtime, ...]] = {}

    @property
    def is_ideal(self) -> bool:
        """Whether every message over every link arrives at the moment it is sent, always."""
        directed = [link for a, b in self._graph.edges for link in ((a, b), (b, a))]
        specs = [spec for link in directed for _, spec in self.segments(*link)]
        return all(spec.is_ideal for spec in specs) and not any(self.faults(src, dst) for src, dst in directed)

    def link(self, src: int, dst: int, copies: int, stream: tuple[int, ...] | None = None) -> LinkModel:
        """A model of the link src → dst, at its very beginning.

        Args:
            src: The sender.
            dst: The receiver, a neighbour of src.
            copies: E.
            stream: What its random numbers are keyed by; (src, dst) if not given.

        Raises:
            KeyError: there is no such link.
            ValueError: as `segments`.
        """
        return LinkModel(
            self.segments(src, dst), self.faults(src, dst), copies=copies, seed=self._seed, stream=stream or (src, dst)
        )

    def segments(self, src: int, dst: int) -> tuple[tuple[float, LinkSpec], ...]:
        """From when on, in seconds, the link src → dst is like what; the first from 0.

        Raises:
            KeyError: there is no such link.
            ValueError: what an edge or an event says of it does not fit, see `Schedule`.
        """
        if (src, dst) not in self._segments:
            if not self._graph.has_edge(src, dst):
                raise KeyError((src, dst))
            self._segments[src, dst] = self._over_time(self._spec, src, dst)
        return self._segments[src, dst]

    def faults(self, src: int, dst: int) -> tuple[Fault, ...]:
        """The rules on top of the link src → dst: its sender, the link itself, its receiver."""
        known = [
            (event.from_s, _end(event))
            for event in self._network.events
            if (isinstance(event, Outage) and _is_about(event, src, dst))
            or (isinstance(event, Partition) and _is_cut(event, src, dst))
        ]
        edge = min(src, dst), max(src, dst)
        return (
            *(SenderDown(down) for down in self._downtimes(src)),
            *([LinkDown(Downtime(known))] if known else []),
            *(LinkDown(down) for down in self._between_contacts(src, dst)),
            *(LinkDown(down) for down in self._drawn_outages(*edge)),
            *(ReceiverDown(down) for down in self._downtimes(dst)),
        )

    def off(self, agent: int, t_s: float) -> bool:
        """Whether an agent is down at a moment."""
        return any(bool(down.covers(np.array([t_s]))[0]) for down in self._downtimes(agent))

    def slow_factor(self, agent: int, t_s: float) -> float:
        """How many times as long as otherwise an agent's computing takes at a moment; of several events the product."""
        factors = (
            event.factor
            for event in self._network.events
            if isinstance(event, Slow) and event.agent == agent and event.from_s <= t_s < _end(event)
        )
        return math.prod(factors, start=1.0)

    # What can be wrong ----------------------------------------------------------------------------------------------------

    def _check_places(self) -> None:
        for place, edge in enumerate(self._network.edges):
            self._check_edge(edge.between, f"network.edges[{place}].between")
        for place, event in enumerate(self._network.events):
            path = f"network.events[{place}]"
            if isinstance(event, Outage | Change) and event.between is not None:
                self._check_edge(event.between, f"{path}.between")
            if isinstance(event, Outage | Change | Partition) and event.agents is not None:
                for agent in event.agents:
                    self._check_agent(agent, f"{path}.agents")
            if isinstance(event, Partition) and set(event.agents) == set(self._graph):
                raise ValueError(f"{path}.agents: got {list(event.agents)}; these are all agents, expected some")
            if isinstance(event, Crash | Slow):
                self._check_agent(event.agent, f"{path}.agent")

    def _check_agent(self, agent: int, path: str) -> None:
        if agent not in self._graph:
            raise ValueError(f"{path}: got {agent}; the agents are 0..{len(self._graph) - 1}")

    def _check_edge(self, ends: tuple[int, int], path: str) -> None:
        for agent in ends:
            self._check_agent(agent, path)
        if not self._graph.has_edge(*ends):
            near = ", ".join(map(str, sorted(self._graph.adj[ends[0]])))
            raise ValueError(f"{path}: got {list(ends)}; no edge joins them, the neighbours of {ends[0]} are {near}")

    # Media ----------------------------------------------------------------------------------------------------------------

    def _stage(self, spec: LinkSpec, part: Network | Part | LinkAttributes, path: str) -> LinkSpec:
        try:
            if isinstance(part, Network | Part) and part.preset is not None:
                if part.preset not in self._presets:
                    self._presets[part.preset] = named(part.preset, self._own_presets)
                spec = self._presets[part.preset]
            return changed(spec, part)
        except ValueError as error:
            raise ValueError(f"{path}.{error}") from None

    def _over_time(self, spec: LinkSpec, src: int, dst: int) -> tuple[tuple[float, LinkSpec], ...]:
        carried = self._graph.edges[src, dst]
        if "latency_ms" in carried or "rate_bps" in carried:
            own = LinkAttributes(latency_ms=carried.get("latency_ms"), rate_bps=carried.get("rate_bps"))
            spec = self._stage(spec, own, "topology.delay_from, as network")
        for place, edge in enumerate(self._network.edges):
            if _is_about(edge, src, dst):
                spec = self._stage(spec, edge, f"network.edges[{place}]")
        changes = [
            (place, event)
            for place, event in enumerate(self._network.events)
            if isinstance(event, Change) and _is_about(event, src, dst)
        ]
        moments = {0.0, *(event.from_s for _, event in changes), *(_end(event) for _, event in changes)} - {math.inf}
        segments = []
        for moment in sorted(moments):
            now = spec
            for place, event in changes:
                if event.from_s <= moment < _end(event):
                    now = self._stage(now, event, f"network.events[{place}]")
            segments.append((moment, now))
        return tuple(segments)

    # Faults ---------------------------------------------------------------------------------------------------------------

    def _downtimes(self, agent: int) -> tuple[Downtime, ...]:
        if agent not in self._down:
            self._down[agent] = self._agent_downtimes(agent)
        return self._down[agent]

    def _agent_downtimes(self, agent: int) -> tuple[Downtime, ...]:
        events = [event for event in self._network.events if isinstance(event, Crash) and event.agent == agent]
        found = [Downtime([(event.from_s, _end(event)) for event in events])] if events else []
        if self._network.churn is not None:
            found.append(Downtime(drawn=_absences(self._network.churn, self._stream(_CHURN, agent))))
        return tuple(found)

    def _between_contacts(self, src: int, dst: int) -> tuple[Downtime, ...]:
        contacts = self._graph.edges[src, dst].get("contacts")
        if contacts is None:
            return ()
        period_s = self._graph.graph.get("period_s")
        gaps = list(_gaps(contacts, math.inf if period_s is None else period_s))
        if not gaps:
            return ()
        return (Downtime(gaps) if period_s is None else Downtime(drawn=_repeated(gaps, period_s)),)

    def _drawn_outages(self, a: int, b: int) -> tuple[Downtime, ...]:
        if self._network.random_outages is None:
            return ()
        if (a, b) not in self._outages:
            self._outages[a, b] = (Downtime(drawn=_outages(self._network.random_outages, self._stream(_OUTAGES, a, b))),)
        return self._outages[a, b]

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, *key])))


def _end(span: Span) -> float:
    return math.inf if span.until_s is None else span.until_s


def _is_about(place: Edge | Outage | Change, src: int, dst: int) -> bool:
    if place.between is not None:
        return (src, dst) == place.between or (not place.one_way and (dst, src) == place.between)
    return isinstance(place, Edge) or place.agents is None or not {src, dst}.isdisjoint(place.agents)


def _is_cut(partition: Partition, src: int, dst: int) -> bool:
    inward = src not in partition.agents and dst in partition.agents
    outward = src in partition.agents and dst not in partition.agents
    return (inward and partition.one_way != "out") or (outward and partition.one_way != "in")


def _gaps(contacts: Iterable[Interval], until_s: float) -> Iterator[Interval]:
    """The times from 0 to `until_s` outside of ascending intervals that lie apart."""
    now = 0.0
    for start, end in contacts:
        if start > now:
            yield now, start
        now = end
    if now < until_s:
        yield now, until_s


def _repeated(gaps: list[Interval], period_s: float) -> Iterator[Interval]:
    """The gaps of one period after the other, without end; one that crosses into the next period is one gap."""
    if gaps == [(0.0, period_s)]:
        yield 0.0, math.inf
    crosses = gaps[0][0] == 0.0 and gaps[-1][1] == period_s
    if crosses:
        yield gaps[0]
        gaps = [*gaps[1:-1], (gaps[-1][0], period_s + gaps[0][1])]
    for period in itertools.count():
        for start, end in gaps:
            yield period * period_s + start, period * period_s + end


def _outages(chance: RandomOutages, rng: np.random.Generator) -> Iterator[Interval]:
    """Alternating exponential times up and down, up at first."""
    now = 0.0
    while True:
        start = now + rng.exponential(chance.mean_up_s)
        now = start + rng.exponential(chance.mean_down_s)
        yield start, now


def _absences(churn: Churn, rng: np.random.Generator) -> Iterator[Interval]:
    """Between sessions of Weibull length, as measured of peers that come and go, exponential absences; present at first.

    Source:
        Stutzbach & Rejaie, "Understanding Churn in Peer-to-Peer Networks", IMC 2006: session lengths are Weibull rather
        than exponential. A mean m and a shape k give the scale m / Γ(1 + 1/k). Absences are our choice.
    """
    scale_s = churn.mean_on_s / math.gamma(1 + 1 / churn.weibull_shape)
    now = 0.0
    while True:
        start = now + scale_s * rng.weibull(churn.weibull_shape)
        now = start + rng.exponential(churn.mean_off_s)
        yield start, now
