"""What peers have sent to one node: decoded, kept until it has been used and passed on, dropped when its round is over.

A message is opened before the protocol judges it, because a message of the wrong size must not count as arrived. What
the protocol accepts is kept under its kind, origin, round and step. In lockstep a message that never arrives in a copy
is here all the same, with a delivery that says so (`topology.wire.frame`).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from node.protocol.kinds import ROWS, sizes_of, widths
from node.protocol.turns import token
from node.runtime.clock import Clock
from scenarios.kinds import Kind
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.link.treatment import dtype_of
from topology.wire.codec import DType
from topology.wire.frame import Delivery, Header, Message, ProtocolError, table

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Key = tuple[Kind, int, int, int]  # kind, origin, round, step
EARLY = 4  # messages per agent that may wait for the order of updates to be found: twice what honest ones send


class Received(NamedTuple):
    """A peer's message, as it is kept.

    Attributes:
        body: Its numbers as they came.
        dtype: How they are encoded.
        time: Virtual time of what it says.
        sender: The node that sent it on the last link.
        delivery: When each copy arrives here, if not all at once.
        data: Its numbers, one row per copy, cut or sample.
    """

    body: bytes
    dtype: DType
    time: float
    sender: int
    delivery: Delivery | None
    data: Floats


class Form(NamedTuple):
    """How messages of a kind look in this run, worked out once.

    Attributes:
        dtype: Number format on the wire.
        per: What a row is of: a copy, a cut or a sample.
        widths: Numbers per row, by origin.
    """

    dtype: DType
    per: str
    widths: tuple[int, ...]


class Mailbox:
    """The messages of one node.

    Args:
        scenario: The scenario.
        deployment: Sizes.

    Attributes:
        forms: How messages of a kind look, for every kind that peers send.
        cut_copies: The copy of each row of this round's BOOTSTRAP.
        sample_copies: The copy of each row of a RATIO_MB, by minibatch.
        missing: How many copies were missed in this round, by name of metric.
        incidents: What is worth an event: virtual time and text.
    """

    def __init__(self, scenario: Scenario, deployment: Deployment) -> None:
        self._n = deployment.n_agents
        self._copies = scenario.env.num_envs
        self._turn_rounds = scenario.algorithm.turn_rounds
        self._sizes = sizes_of(scenario, deployment)
        self.forms = {
            kind: Form(dtype_of(scenario.network, kind), row.per, of_origins)
            for (kind, row), of_origins in zip(ROWS.items(), widths(self._sizes).values(), strict=True)
        }
        self.cut_copies = np.zeros(0, np.intp)
        self.sample_copies: list[NDArray[np.intp]] = []
        self.missing: dict[str, float] = {}
        self.incidents: list[tuple[float, str]] = []
        self._kept: dict[Key, Received] = {}
        self._early: list[Message] = []

    # ------------------------------------------------------------- taking in

    def open(self, kind: Kind, message: Message, delivery: Delivery | None) -> Received:
        """Decode a message.

        Raises:
            ProtocolError: it is of a kind that peers do not send, or of another size or number format than agreed.
        """
        header, form = message.header, self.forms.get(kind)
        if form is None or header.origin >= self._n:
            raise ProtocolError(f"{kind.name} of {header.origin} from {header.sender}: no such message on the peer plane")
        if header.dtype != form.dtype:
            raise ProtocolError(
                f"{kind.name} of {header.origin} from {header.sender}: dtype {header.dtype} is not the agreed one"
            )
        rows = self._copies if form.per == "copy" else self._rows(form.per, header.step)
        width = form.widths[header.origin]
        blank = delivery is not None and not message.bodies[0]  # in no copy anything to read
        data = np.zeros((rows, width), np.float32) if blank else table(message, rows, width)
        if kind is Kind.TOKEN and not blank and (data[0] != self.token(header.round)).any():
            raise ProtocolError(f"TOKEN of {header.origin} from {header.sender}, round {header.round}: got {data[0].tolist()}")
        return Received(message.bodies[0], form.dtype, header.send_time, header.sender, delivery, data)

    def keep(self, kind: Kind, header: Header, received: Received) -> None:
        """Keep what the protocol has accepted."""
        self._kept[kind, header.origin, header.round, header.step] = received

    def lay_aside(self, message: Message) -> bool:
        """Keep a message until it can be judged; whether there was room for it."""
        if len(self._early) >= EARLY * self._n:
            return False
        self._early.append(message)
        return True

    def take_early(self) -> list[Message]:
        """The messages laid aside, which are given back once."""
        early, self._early = self._early, []
        return early

    # ------------------------------------------------------------- giving out

    def get(self, kind: Kind, origin: int, round_: int, step: int = 0) -> Received | None:
        """A kept message; None: it has not come."""
        return self._kept.get((kind, origin, round_, step))

    def pop(self, kind: Kind, origin: int, round_: int, step: int) -> Received | None:
        """The same, kept no longer."""
        return self._kept.pop((kind, origin, round_, step), None)

    def pop_states(self, round_: int, step: int) -> Iterator[tuple[int, int, Received]]:
        """The STATE messages up to a step with origin and round, in ascending order, kept no longer."""
        if self._kept:
            for key in sorted(key for key in self._kept if key[0] is Kind.STATE and key[2:] <= (round_, step)):
                yield key[1], key[2], self._kept.pop(key)

    def wait_for(self, kind: Kind, origins: Sequence[int], clock: Clock, round_: int, step: int = 0) -> dict[int, Bools]:
        """In which copies (E,) the messages of some origins have come.

        The clock moves to the arrival of the last that came, or, if one did not, to the end of patience.
        """
        deadline = clock.deadline()
        until = clock.now if clock.lockstep else deadline
        there: dict[int, Bools] = {}
        for origin in origins:
            received = self._kept.get((kind, origin, round_, step))
            if received is None:
                there[origin] = np.zeros(self._copies, np.bool_)
            elif received.delivery is None:
                there[origin] = np.ones(self._copies, np.bool_)
                until = max(until, received.time) if clock.lockstep else until
            else:
                there[origin] = received.delivery.arrive <= deadline
                until = max(until, float(received.delivery.arrive[there[origin]].max(initial=until)))
            absent = int((~there[origin]).sum())
            if absent:
                until = deadline
                self.miss(kind, absent)
                self.incidents.append((deadline, f"{kind.name} of agent {origin} missing in {absent} of {self._copies} copies"))
        clock.now = until
        return there

    def miss(self, kind: Kind, copies: int) -> None:
        """Count copies of a message that did not come in time."""
        name = f"missing_{kind.name.lower()}"
        self.missing[name] = self.missing.get(name, 0.0) + copies

    def end_round(self, round_: int) -> None:
        """Drop what belongs to this round or an earlier one."""
        for key in [key for key in self._kept if key[2] <= round_]:
            del self._kept[key]

    # ---------------------------------------------------------------- sizes

    def row_copies(self, kind: Kind, step: int) -> NDArray[np.intp] | None:
        """The copy of each row of a message; None: there is one row per copy, in order."""
        per = self.forms[kind].per
        if per == "copy":
            return None
        return self.cut_copies if per == "cut" else self.sample_copies[step]

    def token(self, round_: int) -> Floats:
        """The numbers of a round's TOKEN."""
        return token(round_, self._n, self._turn_rounds)

    def _rows(self, per: str, step: int) -> int:
        return len(self.cut_copies) if per == "cut" else self._sizes.samples(step)
