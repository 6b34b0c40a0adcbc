"""What a process refused to take from its sockets: every one is counted, the first are kept word for word."""

KEPT = 100  # texts per round: enough to explain, too few for a flood to fill memory
KEPT_IN_ALL = 1000  # texts per run: a flood that lasts does not fill the database either


class Refusals:
    """A bounded list with a true count.

    Attributes:
        total: How many were refused since the last `drain`.
        texts: The reasons of the first of them; none any more once a run has had its share.
    """

    def __init__(self) -> None:
        self.total = 0
        self.texts: list[str] = []
        self._left = KEPT_IN_ALL

    def add(self, text: str) -> None:
        """Count one refusal."""
        self.total += 1
        if len(self.texts) < min(KEPT, self._left):
            self.texts.append(text)

    def drain(self) -> tuple[int, tuple[str, ...]]:
        """Total and texts since the last call."""
        drained = self.total, tuple(self.texts)
        self._left -= len(self.texts)
        self.total, self.texts = 0, []
        return drained
