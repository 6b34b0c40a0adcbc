"""The section `network`: what links are like, and what happens to links and agents when."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scenarios.schema.base import Item, Precision, Section, setting

TRACE = "trace:"  # what a preset that is a file begins with


class LinkAttributes(Section):
    """What a link is like. Null leaves an attribute as it is otherwise."""

    loss_prob: float | None = setting(None, "Probability that a fragment is lost; null: as the preset says.", ge=0, le=1)
    loss_burst: float | None = setting(
        None,
        "Mean number of fragments lost in a row, 1 or more (Gilbert); 0: each is lost or not by itself (Bernoulli); "
        "null: as the preset says.",
        unit="fragments",
        ge=0,
    )
    latency_ms: float | None = setting(
        None, "One-way delay, to which the spread is added; null: as the preset says.", unit="ms", ge=0
    )
    jitter_ms: float | None = setting(
        None, "Delays are spread evenly over latency_ms ± this; null: as the preset says.", unit="ms", ge=0
    )
    rate_bps: float | None = setting(None, "Link rate; 0: unlimited; null: as the preset says.", unit="bit/s", ge=0)
    mtu_bytes: int | None = setting(
        None, "Size of the fragments that are lost one by one; null: as the preset says.", unit="bytes", ge=1
    )
    queue_bytes: int | None = setting(
        None,
        "Bytes that may wait for the link or be on their way into it, beyond which datagrams are dropped; 0: unlimited; "
        "null: as the preset says.",
        unit="bytes",
        ge=0,
    )
    duty: float | None = setting(None, "Part of the time that the link may transmit; null: as the preset says.", gt=0, le=1)
    retries: int | None = setting(
        None, "How often a reliable message repeats a lost fragment before it gives up; null: as the preset says.", ge=0, le=100
    )

    @model_validator(mode="after")
    def _burst_is_one(self) -> "LinkAttributes":
        if self.loss_burst is not None and 0 < self.loss_burst < 1:
            raise ValueError(f"loss_burst: got {self.loss_burst}; a burst has at least 1 fragment (0: no bursts)")
        return self


Ends = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Agents = tuple[Annotated[int, Field(ge=0)], ...]


class Part(LinkAttributes, Item):
    """Attributes of some of the links: a preset starts afresh, without one only the attributes given here change."""

    preset: str | None = setting(
        None, "Link preset, which replaces all that held otherwise; null: only what is given here changes."
    )
    reorder: bool | None = setting(None, "Whether messages may overtake each other; null: as otherwise.")


class Edge(Part):
    """The links of one edge, where they differ from the others."""

    between: Ends = setting(..., "The two agents of the edge.")
    one_way: bool = setting(False, "Only the link from the first to the second.")

    @model_validator(mode="after")
    def _two(self) -> "Edge":
        _differ(self.between)
        return self


class Span(Item):
    """When an event holds, in virtual time from the start of the run."""

    from_s: float = setting(..., "When it begins.", unit="s", ge=0)
    until_s: float | None = setting(None, "When it is over; null: never.", unit="s", gt=0)

    @model_validator(mode="after")
    def _forward(self) -> "Span":
        if self.until_s is not None and self.until_s <= self.from_s:
            raise ValueError(f"until_s: got {self.until_s}; it must be later than from_s, {self.from_s}")
        return self


class Where(Item):
    """Which links an event is about."""

    between: Ends | None = setting(None, "The two agents of one edge.")
    agents: Agents | None = setting(None, "All links to and from these agents.", min_length=1)
    one_way: bool = setting(False, "Only the link from the first to the second of `between`.")

    @model_validator(mode="after")
    def _one_place(self) -> "Where":
        if self.between is not None:
            _differ(self.between)
            if self.agents is not None:
                raise ValueError(f"agents: got {list(self.agents)}; 'between' and 'agents' do not go together")
        elif self.one_way:
            raise ValueError("one_way: got true; it needs 'between'")
        return self


class Outage(Span, Where):
    """Links that carry nothing."""

    do: Literal["outage"] = setting(..., "What happens.")

    @model_validator(mode="after")
    def _somewhere(self) -> "Outage":
        if self.between is None and self.agents is None:
            raise ValueError("between: got nothing; an outage needs 'between' or 'agents'")
        return self


class Partition(Span):
    """Some agents cut off from the rest."""

    do: Literal["partition"] = setting(..., "What happens.")
    agents: Agents = setting(..., "Those on the one side; the rest is the other.", min_length=1)
    one_way: Literal["none", "in", "out"] = setting(
        "none", "none: nothing passes; in: only what goes to these agents is cut; out: only what comes from them."
    )


class Change(Span, Where, Part):
    """Links that are otherwise for a while: all of them, unless `between` or `agents` says which."""

    do: Literal["change"] = setting(..., "What happens.")


class Crash(Span):
    """An agent that neither sends nor receives."""

    do: Literal["crash"] = setting(..., "What happens.")
    agent: int = setting(..., "Which agent.", ge=0)


class Slow(Span):
    """An agent whose computing takes longer."""

    do: Literal["slow"] = setting(..., "What happens.")
    agent: int = setting(..., "Which agent.", ge=0)
    factor: float = setting(..., "How many times as long everything takes it.", gt=0)


Event = Annotated[Outage | Partition | Change | Crash | Slow, Field(discriminator="do")]


class RandomOutages(Section):
    """Outages by chance, each edge by itself and both ways at once; times up and down are exponential."""

    mean_up_s: float = setting(..., "Mean time between outages; all edges are up at first.", unit="s", gt=0)
    mean_down_s: float = setting(..., "Mean length of an outage.", unit="s", gt=0)


class Churn(Section):
    """Agents that go and come back by chance: Weibull sessions, exponential absences."""

    mean_on_s: float = setting(..., "Mean length of a session; all agents are on at first.", unit="s", gt=0)
    weibull_shape: float = setting(
        0.6, "Shape of the sessions: below 1 many short and some very long ones, 1 exponential.", ge=0.1, le=10
    )
    mean_off_s: float = setting(..., "Mean length of an absence.", unit="s", gt=0)


class Delivery(Section):
    """What becomes of lost fragments, by kind of message: nothing, or they are sent again."""

    state: Literal["datagram", "reliable"] = setting("datagram", "Blocks of the others' states, every step.")
    bootstrap: Literal["datagram", "reliable"] = setting("reliable", "Last states of a round.")
    reward: Literal["datagram", "reliable"] = setting("reliable", "Rewards of a round.")
    ratio: Literal["datagram", "reliable"] = setting("reliable", "Importance ratios, final ones and those on a minibatch.")
    score: Literal["datagram", "reliable"] = setting("reliable", "Scores, by which agents find their order.")
    token: Literal["datagram", "reliable"] = setting("reliable", "Turns.")
    joint: Literal["datagram", "reliable"] = setting("reliable", "What agents send the central critic of a round.")
    advantage: Literal["datagram", "reliable"] = setting("reliable", "What the central critic answers.")
    policy: Literal["datagram", "reliable"] = setting(
        "reliable", "The same where it learns for all (qmix): weights to act by; both ways where all share a policy."
    )
    consensus: Literal["datagram", "reliable"] = setting("reliable", "Weights that neighbours average.")
    multiplier: Literal["datagram", "reliable"] = setting("reliable", "Multipliers on which neighbours agree.")


class Codec(Section):
    """Number format on the wire, by kind of message."""

    state: Precision = setting("float32", "Blocks of the others' states, every step.")
    bootstrap: Precision = setting("float32", "Last states of a round.")
    reward: Precision = setting("float32", "Rewards of a round.")
    ratio: Precision = setting("float32", "Importance ratios, final ones and those on a minibatch.")
    joint: Precision = setting("float32", "What agents send the central critic of a round.")
    advantage: Precision = setting("float32", "What the central critic answers.")
    policy: Precision = setting(
        "float32", "The same where it learns for all (qmix): weights to act by; both ways where all share a policy."
    )
    consensus: Literal["float32", "float16", "bfloat16"] = setting(
        "float32", "Weights that neighbours average. No int8: it has one scale for all the weights of an agent."
    )


class Network(LinkAttributes):
    """The links of the peer plane."""

    transport: Literal["ipc", "tcp"] = setting("ipc", "Socket type between processes.")
    host: str = setting("127.0.0.1", "Address that tcp sockets bind.")
    port: int = setting(0, "First tcp port; processes take it and the ones after it. 0: any free ports.", ge=0, le=65535)
    curve: bool = setting(
        True,
        "On tcp sockets: encrypt, and let in only the keys of processes that may send there. Keys are made per run (RUN/keys).",
    )
    preset: str = setting(
        "ideal",
        "What links are like: a name of `kappahop list presets` or of `presets`, or trace:PATH of a Mahimahi file.",
    )
    reorder: bool = setting(False, "Whether messages on one link may overtake each other.")
    delivery: Delivery = Delivery()
    codec: Codec = Codec()
    state_threshold: float = setting(
        0.0,
        "Event-triggered states: sent only if some element has changed by more than this since it was last sent; 0: always sent.",
        unit="observation units",
        ge=0,
    )
    on_missing: Literal["hold_last", "zero"] = setting(
        "hold_last", "What stands in for a state that has not arrived: the last one that has, or zeros."
    )
    patience_s: float = setting(
        30.0,
        "How long an agent waits, once a round, for what it needs of others to learn: in virtual time with clock: virtual, "
        "in real time with clock: wall. What comes later, or never, counts as missing.",
        unit="s",
        gt=0,
    )
    edges: tuple[Edge, ...] = setting((), "Edges whose links differ: a list of {between: [i, j], ...}.")
    events: tuple[Event, ...] = setting((), "What happens to links and agents when: a list of {do: ..., from_s: ..., ...}.")
    random_outages: RandomOutages | None = setting(None, "Outages by chance; null: none.")
    churn: Churn | None = setting(None, "Agents that leave and return by chance; null: none.")


def _differ(ends: tuple[int, int]) -> None:
    if ends[0] == ends[1]:
        raise ValueError(f"between: got {list(ends)}; the two agents of an edge differ")
