"""The section `topology`: the communication graph."""

from typing import Literal

from scenarios.schema.base import Section, setting


class DelayFrom(Section):
    """The delay of each link from an attribute of its edge in the file."""

    attribute: str = setting(..., "Name of the attribute, such as dist, length or delay.", min_length=1)
    unit: Literal["s", "ms", "us", "ns", "m", "km"] = setting(
        ..., "Unit of its values: a time, or a length, of which a kilometre takes 5 µs (light in glass fibre)."
    )
    factor: float = setting(1.0, "Every value is multiplied by this, e.g. 0.667 for a length that is crossed by radio.", gt=0)


class RateFrom(Section):
    """The rate of each link from an attribute of its edge in the file."""

    attribute: str = setting(..., "Name of the attribute, such as LinkSpeedRaw or bandwidth.", min_length=1)
    unit: Literal["bit/s", "kbit/s", "Mbit/s", "Gbit/s"] = setting(..., "Unit of its values.")
    factor: float = setting(1.0, "Every value is multiplied by this, e.g. 0.01 for a hundredth of the link.", gt=0)


class Topology(Section):
    """The communication graph."""

    kind: Literal[
        "kinematic",
        "line",
        "ring",
        "star",
        "complete",
        "grid",
        "tree",
        "erdos_renyi",
        "watts_strogatz",
        "barabasi_albert",
        "random_geometric",
        "file",
    ] = setting(
        "kinematic",
        "Which graph; kinematic: agents are adjacent where their joints are; file: the one of `topology.file`, "
        "`topology.schedule` or both.",
    )
    file: str | None = setting(
        None,
        "Path of a graph: .edges, .edgelist, .txt, .csv, .tsv, .gml, .graphml, .json, .cyjs, .net.xml or .m. A relative path "
        "starts at the scenario file's folder, on the command line at the present one.",
    )
    component: Literal["all", "largest"] = setting(
        "all", "What of a graph from a file is taken: all of it, which must be connected, or its largest connected part."
    )
    delay_from: DelayFrom | None = setting(
        None, "Attribute of the file's edges that gives the delay of their links, unless `network.edges` does; null: none does."
    )
    rate_from: RateFrom | None = setting(
        None, "Attribute of the file's edges that gives the rate of their links, unless `network.edges` does; null: none does."
    )
    schedule: str | None = setting(
        None,
        "Path of a file that says when edges can be used: lines `from_s until_s a b`, or columns named by a first line. Its "
        "edges join those of `topology.file`; edges that it does not name can always be used.",
    )
    schedule_period_s: float | None = setting(
        None,
        "The schedule repeats after so many seconds; null: after its last contact an edge is never used again.",
        unit="s",
        gt=0,
    )
    seed: int = setting(0, "Seed of the random graphs; the same graph for every `seed` of the run.", ge=0)
    rows: int | None = setting(
        None, "Rows of the grid; null: the divisor of n nearest below its square root.", unit="nodes", ge=1
    )
    branching: int = setting(2, "Children per node of the tree.", unit="nodes", ge=1)
    edge_prob: float = setting(0.3, "Erdős–Rényi: probability of each edge.", gt=0, le=1)
    degree: int = setting(4, "Watts–Strogatz: neighbours per node before rewiring.", unit="nodes", ge=2)
    rewire_prob: float = setting(0.2, "Watts–Strogatz: probability that an edge is rewired.", ge=0, le=1)
    attach: int = setting(2, "Barabási–Albert: edges that a new node brings.", unit="edges", ge=1)
    radius: float = setting(
        0.4, "Random geometric: nodes of the unit square nearer than this are adjacent.", unit="side lengths", gt=0
    )
