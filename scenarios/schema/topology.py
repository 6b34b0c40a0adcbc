"""The section `topology`: the communication graph."""

from typing import Literal

from scenarios.schema.base import Section, setting


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
    ] = setting("kinematic", "Which graph; kinematic: agents are adjacent where their joints are; file: read `topology.file`.")
    file: str | None = setting(
        None,
        "Path of an edge list (.edges, .txt), GraphML (.graphml) or node-link JSON (.json); nodes 0..n-1. A relative path in a "
        "scenario's file starts at that file's folder, on the command line at the present one.",
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
