"""How links treat a kind of message: how its numbers are written, and whether losses are repaired."""

from scenarios.kinds import FACTS, Kind, peer_kinds
from scenarios.schema import Network
from topology.wire.codec import DType


def dtype_of(network: Network, kind: Kind) -> DType:
    """The number format of a kind.

    Example:
        >>> dtype_of(Network(), Kind.RATIO_MB)
        <DType.FLOAT32: 1>
    """
    facts = FACTS[kind]
    return DType.FLOAT32 if facts.exact else DType[str(getattr(network.codec, facts.settings)).upper()]


def is_reliable(network: Network, kind: Kind) -> bool:
    """Whether what is lost of a kind is sent again."""
    return str(getattr(network.delivery, FACTS[kind].settings)) == "reliable"


def reliable_kinds(network: Network) -> frozenset[Kind]:
    """The kinds of which whatever is lost is sent again."""
    return frozenset(kind for kind in peer_kinds() if is_reliable(network, kind))
