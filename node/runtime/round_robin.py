"""Several nodes in one thread, which take turns; the same for a pack and for a whole run in one process."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

from topology.finite import DivergedError


@runtime_checkable
class Player(Protocol):
    """What takes turns: a node, the world or the central critic."""

    @property
    def is_over(self) -> bool:
        """Whether it has done all its work."""
        ...

    def turn(self) -> bool:
        """Handle the next message that it waits for, if it is there; whether it was."""
        ...


def take_turns(
    players: Mapping[int, Player],
    *,
    due: Callable[[list[int]], Iterable[int]],
    lose: Callable[[int, DivergedError], None],
    heed: Callable[[], None],
    between: Callable[[bool], None],
) -> None:
    """Give turns to players until all are done; a player's turn lasts as long as its messages are there.

    Args:
        players: By id; those that `lose` removes get no more turns.
        due: Called with the players that are not done; gives those whose message may be there.
        lose: Called when numbers of a player are no longer finite; unless it raises, the others go on.
        heed: Called after every message; ends the turns by raising.
        between: Called when each of those that were due has had its turn, with whether one moved.
    """
    while present := [name for name, player in players.items() if not player.is_over]:
        moved = False
        for name in due(present):
            try:
                while (player := players.get(name)) and not player.is_over and player.turn():
                    heed()
                    moved = True
            except DivergedError as error:
                lose(name, error)
                moved = True
        between(moved)
