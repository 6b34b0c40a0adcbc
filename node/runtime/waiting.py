"""How a node waits on real sockets: in slices, so that a request to stop is seen, and never beyond a deadline.

In lockstep the next message is certain to come, and a deadline that passes means that a process is gone. On the wall clock
nothing is certain to come: messages of peers are received at all times, and a wait for them ends when it has lasted long enough.
"""

import time
from collections.abc import Callable

from node.protocol.machine import Phase, Protocol
from node.runtime.clock import Clock
from scenarios.schema import Scenario
from topology.deployment import Deployment
from topology.planes.control import Gone, Reports, Stop
from topology.planes.peer import PeerPlane
from topology.planes.world import WorldPort
from topology.process import SLICE_S, StopRequested
from topology.wire.frame import Message

WORLD_PATIENCE = 1.5  # a node waits longer for the world than for a peer: the peer that waits for a silent one reports first
WALL_SLICE_S = 0.002  # on the wall clock: how long a node listens to the world before it passes on what peers sent
WALL_GULP = 1000  # on the wall clock: how many messages are taken in at once before the deadline is looked at again


class Waiting:
    """The waits of one node.

    Args:
        scenario: The scenario.
        deployment: Sizes.
        protocol: What the node waits for.
        clock: Its clock.
        peers: Its end of the peer plane.
        world: Its end of the world plane.
        control: Its end of the control plane.
        take: Handles a message of a peer that comes in while the node waits for something else.
        expire: Called when a deadline has passed.
        lose: Called with an agent that is gone for good.
    """

    def __init__(
        self,
        scenario: Scenario,
        deployment: Deployment,
        protocol: Protocol,
        clock: Clock,
        *,
        peers: PeerPlane,
        world: WorldPort,
        control: Reports,
        take: Callable[[Message], None],
        expire: Callable[[], None],
        lose: Callable[[int], None],
    ) -> None:
        self._deadline_s = scenario.supervision.deadline_s
        self._steps = scenario.rollout.steps
        self._slack_s = scenario.rollout.slack_frac * deployment.dt
        self._protocol = protocol
        self._clock = clock
        self._peers = peers
        self._world = world
        self._control = control
        self._take = take
        self._expire = expire
        self._lose = lose
        self._moment: tuple[Phase, int, int] | None = None  # on the wall clock: what is waited for, and until when
        self._until_s = 0.0

    def receive(self, timeout_s: float) -> Message | None:
        """The next message that the node waits for, if it comes in time."""
        return (self._peers if self._protocol.waits_for_peers else self._world).receive(timeout_s)

    def next(self) -> Message | None:
        """The next message that the node waits for; None if the wait has ended otherwise.

        Raises:
            StopRequested: the coordinator said stop.
        """
        return self._in_lockstep() if self._clock.lockstep else self._by_the_wall()

    def _in_lockstep(self) -> Message | None:
        began = time.monotonic()
        while (message := self.receive(SLICE_S)) is None:
            if self.review(began):
                return None
        return message

    def review(self, began: float) -> bool:
        """In lockstep, nothing has come for a while: heed coordinator and deadline; whether the coordinator said something.

        Args:
            began: When the wait began, by `time.monotonic`.

        Raises:
            StopRequested: the coordinator said stop.
        """
        if self._heed_control():
            return True
        patience = 1.0 if self._protocol.waits_for_peers else WORLD_PATIENCE
        if time.monotonic() - began >= patience * self._deadline_s:
            self._expire()
        return False

    def _by_the_wall(self) -> Message | None:
        moment, now = self._protocol.moment, time.monotonic()
        if moment != self._moment:
            self._moment, self._until_s = moment, now + self._allowance_s()
        left = self._until_s - now
        if self._protocol.waits_for_peers:
            message = self._peers.receive(min(left, SLICE_S)) if left > 0 else None
            if left <= 0:
                self._catch_up()
        else:
            message = self._world.receive(WALL_SLICE_S)
            closing = moment[:2] == (Phase.SENSING, self._steps)  # what follows needs the world's word
            if message is None and not closing:
                self._catch_up()
        if message is None:
            if left <= 0 and self._protocol.moment == moment:
                self._expire()
            self._heed_control()
        return message

    def _allowance_s(self) -> float:
        """How long the wait that begins now may take."""
        if not self._protocol.waits_for_peers:
            return WORLD_PATIENCE * self._deadline_s
        return self._slack_s if self._protocol.phase is Phase.GATHERING else self._clock.patience_s

    def _catch_up(self) -> None:
        """Take in what peers have sent by now, until that changes what is waited for."""
        moment = self._protocol.moment
        for _ in range(WALL_GULP):
            if self._protocol.moment != moment or (message := self._peers.receive(0.0)) is None:
                return
            self._take(message)

    def _heed_control(self) -> bool:
        """Read what the coordinator has sent; whether it changed anything."""  # noqa: DOC501  (what `next` raises)
        order = self._control.receive(0.0)
        if isinstance(order, Stop):
            raise StopRequested
        if isinstance(order, Gone):
            self._lose(order.agent)
            return True
        return False
