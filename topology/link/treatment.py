"""What a scenario says of each kind of peer message: how its numbers are written, and whether losses are repaired."""

from scenarios.schema import Network
from topology.wire.codec import DType
from topology.wire.frame import PEER_KINDS, Kind

_EXACT = frozenset({Kind.SCORE, Kind.TOKEN})  # agents must agree on them to the bit
_KNOBS = {Kind.RATIO_MB: "ratio", Kind.PARAMETERS: "policy", Kind.SHARED: "policy"}  # where the kind goes by another's settings


def dtype_of(network: Network, kind: Kind) -> DType:
    """The number format of a kind.

    Example:
        >>> dtype_of(Network(), Kind.RATIO_MB)
        <DType.FLOAT32: 1>
    """
    return DType.FLOAT32 if kind in _EXACT else DType[str(getattr(network.codec, _knob(kind))).upper()]


def is_reliable(network: Network, kind: Kind) -> bool:
    """Whether what is lost of a kind is sent again."""
    return str(getattr(network.delivery, _knob(kind))) == "reliable"


def reliable_kinds(network: Network) -> frozenset[Kind]:
    """The kinds of which whatever is lost is sent again."""
    return frozenset(kind for kind in PEER_KINDS if is_reliable(network, kind))


def _knob(kind: Kind) -> str:
    return _KNOBS.get(kind, kind.name.lower())
