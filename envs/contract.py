"""What every world must keep, as English sentences with a check each: for the author of a new one.

Theory of operation. `rehearse` runs a world several times under the same random actions: twice alike, with another seed, with
another number of threads, with the first copy's actions changed, and taken apart half-way. Each `Clause` then looks at the
recordings and says whether its sentence holds. Checks only read, so one rehearsal serves them all; keep the horizon short (a
few steps) so that several episodes end.

Example:
    >>> import networkx as nx
    >>> from envs.registry import make, section
    >>> env = section("network_lq", agents=3, num_envs=2, horizon=5)
    >>> broken(lambda seed, threads: make(env, nx.path_graph(3), seed), "team")
    []
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from envs.interface import EnvSpec, Floats, Transition, VecEnv
from topology.snapshot import State, read, write

Build = Callable[[int, int], VecEnv]
Share = Literal["team", "sum", "mean"]
Nature = Literal["random", "determined", "still"]
STEPS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One run of a world.

    Attributes:
        spec: The world's.
        copies: E.
        first: What `reset` returned.
        steps: What each `step` returned.
        frozen: The bytes of every observation at the moment it was returned, first and later ones.
    """

    spec: EnvSpec
    copies: int
    first: list[Floats]
    steps: list[Transition]
    frozen: list[bytes]

    def observations(self) -> Iterator[list[Floats]]:
        """All observations to act on, in order."""
        yield self.first
        for step in self.steps:
            yield step.obs


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Recordings of one world under the same actions.

    Attributes:
        run: The one to look at.
        again: The same once more.
        reseeded: With another seed.
        threaded: With two native threads instead of one.
        nudged: With other actions for the first copy.
        resumed: With all but its `state` forgotten, and stored in a file, after half of the steps.
        staggered: With a shorter limit for each copy's first episode, the last copy's as usual.
        staggered_resumed: The same with all but its `state` forgotten after the first step.
        share: How agents' rewards make the team's.
        nature: Whether the world draws anything itself ("random"), follows from the actions alone ("determined"), or also shows
            one and the same observation for ever ("still").
    """

    run: Recording
    again: Recording
    reseeded: Recording
    threaded: Recording
    nudged: Recording
    resumed: Recording
    staggered: Recording
    staggered_resumed: Recording
    share: Share
    nature: Nature

    @property
    def is_finite(self) -> bool:
        """Whether the world has finitely many states, so that two different moments may look alike by chance."""
        return any(self.run.spec.n_discrete)


@dataclass(frozen=True, slots=True)
class Clause:
    """A sentence of the contract and whether a rehearsal keeps it."""

    sentence: str
    holds: Callable[[Rehearsal], bool]


def rehearse(build: Build, share: Share, *, nature: Nature = "random", steps: int = STEPS) -> Rehearsal:
    """Run a world eight times.

    Args:
        build: Makes the world from (seed, threads); the number of threads may mean nothing to it.
        share: "team" if every agent is given the team's reward; else whether agents' rewards sum or average to it.
        nature: What the world's observations depend on besides the actions; see `Rehearsal`.
        steps: How long; several times the horizon.

    Returns:
        The recordings.
    """
    return Rehearsal(
        run=_record(build(0, 1), steps), again=_record(build(0, 1), steps), reseeded=_record(build(1, 1), steps),
        threaded=_record(build(0, 2), steps), nudged=_record(build(0, 1), steps, nudge=True),
        resumed=_record(build(0, 1), steps, successor=build(0, 1)), staggered=_record(build(0, 1), steps, stagger=True),
        staggered_resumed=_record(build(0, 1), steps, stagger=True, successor=build(0, 1), handover=1),
        share=share, nature=nature,
    )  # fmt: skip


def broken(build: Build, share: Share, *, nature: Nature = "random", steps: int = STEPS) -> list[str]:
    """The sentences that a world does not keep; arguments as for `rehearse`."""
    rehearsal = rehearse(build, share, nature=nature, steps=steps)
    return [clause.sentence for clause in CONTRACT if not clause.holds(rehearsal)]


def judge(build: Build, *, steps: int = STEPS) -> tuple[Share, Nature, list[str]]:
    """Judge a world of which nothing is known: the reading under which it keeps most of the contract.

    Args:
        build: As for `rehearse`.
        steps: As for `rehearse`.

    Returns:
        How agents' rewards make the team's, what observations depend on, and the sentences that are not kept.
    """
    rehearsal = rehearse(build, "team", steps=steps)
    shares, natures = get_args(Share), get_args(Nature)
    readings = [replace(rehearsal, share=share, nature=nature) for nature in natures for share in shares]
    found = [(one.share, one.nature, [clause.sentence for clause in CONTRACT if not clause.holds(one)]) for one in readings]
    return min(found, key=lambda one: len(one[2]))


def _record(
    world: VecEnv,
    steps: int,
    *,
    nudge: bool = False,
    stagger: bool = False,
    successor: VecEnv | None = None,
    handover: int | None = None,
) -> Recording:
    rng = np.random.default_rng(99)
    first = world.reset(_first_limits(world.spec, world.num_envs)) if stagger else world.reset()
    handover = steps // 2 if handover is None else handover
    frozen = [_bytes(first)]
    transitions = []
    for step in range(steps):
        if successor is not None and step == handover:
            successor.restore(_stored(world.state()))
            world.close()
            world = successor
        actions = []
        for agent, (width, count) in enumerate(zip(world.spec.act_dims, world.spec.n_discrete, strict=True)):
            draw = rng.integers(count, size=(world.num_envs, 1)) if count else rng.normal(0.0, 0.7, (world.num_envs, width))
            actions.append(draw.astype(np.float32))
            if nudge:  # agents in different ways: in some games it pays the same if all of them change their minds alike
                actions[-1][0] = (actions[-1][0] + agent + 1) % count if count else actions[-1][0] + 0.5
        transitions.append(world.step(actions))
        frozen.append(_bytes(transitions[-1].obs))
    recording = Recording(spec=world.spec, copies=world.num_envs, first=first, steps=transitions, frozen=frozen)
    world.close()
    world.close()  # closing a closed world does nothing
    return recording


def _first_limits(spec: EnvSpec, copies: int) -> list[int]:
    """A limit for each copy's first episode, rising to the horizon."""
    return [-(-spec.horizon * (copy + 1) // copies) for copy in range(copies)]


def _stored(state: State) -> State:
    """A state as it comes back from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "world.safetensors"
        write(path, state)
        return read(path)


def _bytes(obs: list[Floats]) -> bytes:
    return b"".join(block.tobytes() for block in obs)


# --- the checks -----------------------------------------------------------------------------------------------------


def _is_block(array: Floats, shape: tuple[int, ...]) -> bool:
    return array.shape == shape and array.dtype == np.float32 and array.flags.c_contiguous and bool(np.isfinite(array).all())


def _blocks(obs: list[Floats], run: Recording) -> bool:
    return len(obs) == run.spec.n_agents and all(
        _is_block(block, (run.copies, width)) for block, width in zip(obs, run.spec.obs_dims, strict=True)
    )


def spec_is_sound(spec: EnvSpec) -> bool:
    """Whether a spec's lists have one entry per agent, its sizes are positive, and its edges join all agents."""
    n = spec.n_agents
    joined = {0}
    for _ in range(n):
        joined |= {v for edge in spec.edges for v in edge if joined & set(edge)}
    return (
        n == len(spec.act_dims) == len(spec.n_discrete) >= 1
        and all(count >= 0 and (not count or width == 1) for count, width in zip(spec.n_discrete, spec.act_dims, strict=True))
        and min(*spec.obs_dims, *spec.act_dims, spec.horizon) >= 1
        and spec.dt > 0
        and all(limit >= 0 for limit in spec.cost_limits)
        and all(0 <= i < j < n for i, j in spec.edges)
        and len(joined) == n
    )


def _one_hot_where_told(run: Recording) -> bool:
    spec = run.spec
    if not spec.one_hot:
        return True
    if len(spec.one_hot) != spec.n_agents:
        return False
    for obs in run.observations():
        for block, parts in zip(obs, spec.one_hot, strict=True):
            if not parts:
                continue
            if sum(parts) != block.shape[1]:
                return False
            ends = np.cumsum(parts)[:-1]
            if any((np.sort(piece) != np.eye(piece.shape[1])[-1]).any() for piece in np.split(block, ends, axis=1)):
                return False
    return True


def _flags(step: Transition, copies: int) -> bool:
    return all(flag.shape == (copies,) and flag.dtype == np.bool_ for flag in (step.terminated, step.truncated, step.faults))


def _ended(step: Transition) -> NDArray[np.intp]:
    return np.flatnonzero(step.terminated | step.truncated)


def _final_obs_fits(step: Transition, run: Recording) -> bool:
    if step.final_obs is None:
        return len(_ended(step)) == 0
    return len(_ended(step)) > 0 and _blocks(step.final_obs, run)


def _team(step: Transition, share: Share) -> NDArray[np.float64]:
    rewards = step.reward.astype(np.float64)
    return np.asarray({"team": rewards[0], "sum": rewards.sum(axis=0), "mean": rewards.mean(axis=0)}[share])


def _sums_agree(r: Rehearsal) -> bool:
    """Walk through the run keeping sums of our own and compare them at each end."""
    m = r.run.spec.n_costs
    ret, cost, length = np.zeros(r.run.copies), np.zeros((r.run.copies, m)), np.zeros(r.run.copies, int)
    for step in r.run.steps:
        ret += _team(step, r.share)
        cost += step.cost[0]
        length += 1
        for episode in step.episodes:
            e = episode.copy
            close = np.isclose(episode.ret, ret[e], rtol=1e-4, atol=1e-3) and len(episode.cost) == m
            costs = r.share != "team" or np.allclose(episode.cost, cost[e], rtol=1e-5)
            if not (((close and costs) or step.faults[e]) and episode.length == length[e]):
                return False
            ret[e], cost[e], length[e] = 0.0, 0.0, 0
    return True


def _faults_have_no_return(run: Recording) -> bool:
    """Where a fault ended an episode all its numbers are nan, and no other number is."""
    return all(
        {bool(np.isnan(figure)) for figure in (episode.ret, *episode.cost)} == {bool(step.faults[episode.copy])}
        for step in run.steps for episode in step.episodes
    )  # fmt: skip


def _ends_in_time(run: Recording, first_limits: Sequence[int] | None = None) -> bool:
    """Truncation exactly at the horizon, and never later; in first episodes at their limit, which says whether they are whole."""
    limits = dict(enumerate(first_limits or ()))
    for step in run.steps:
        for episode in step.episodes:
            limit = limits.pop(episode.copy, run.spec.horizon)
            is_cut = bool(step.truncated[episode.copy])
            if episode.length > limit or is_cut == bool(step.terminated[episode.copy]):
                return False
            if (is_cut and episode.length != limit) or episode.is_whole != (limit == run.spec.horizon):
                return False
    return True


def _staggers(r: Rehearsal) -> bool:
    """Ends by the limits given, and up to the first of them as without any."""
    limits = _first_limits(r.staggered.spec, r.staggered.copies)
    before = max(limits[0] - 1, 0)
    run, staggered = (
        Recording(spec=one.spec, copies=one.copies, first=one.first, steps=one.steps[:before], frozen=[])
        for one in (r.run, r.staggered)
    )
    return _ends_in_time(r.staggered, limits) and _same(run, staggered)


def _restarted(r: Rehearsal) -> bool:
    """Where an episode ended, the next observation is not the last one; with finitely many states, not always."""
    fresh = [
        any(not np.array_equal(new[e], old[e]) for new, old in zip(step.obs, step.final_obs, strict=True))
        for step in r.run.steps
        if step.final_obs is not None
        for e in _ended(step)
    ]
    return any(fresh) if r.is_finite else all(fresh)


def _same(a: Recording, b: Recording, rows: slice = slice(None)) -> bool:
    """Whether two runs are equal to the byte, in the given copies."""
    pairs = zip(a.observations(), b.observations(), strict=True)
    seen = all(np.array_equal(x[rows], y[rows]) for one, two in pairs for x, y in zip(one, two, strict=True))
    return seen and all(
        np.array_equal(x.reward[:, rows], y.reward[:, rows])
        and np.array_equal(x.cost[:, rows], y.cost[:, rows])
        and np.array_equal(x.terminated[rows], y.terminated[rows])
        and np.array_equal(x.truncated[rows], y.truncated[rows])
        for x, y in zip(a.steps, b.steps, strict=True)
    )


CONTRACT: tuple[Clause, ...] = (
    Clause(
        "The spec has positive widths, one-number actions where they are choices, non-negative limits, and edges i < j that join "
        "all agents.",
        lambda r: spec_is_sound(r.run.spec),
    ),
    Clause(
        "What the spec calls one-hot is zeros but for a single one, and all of an observation if any of it.",
        lambda r: _one_hot_where_told(r.run),
    ),
    Clause(
        "Each agent's observation is (E, d_i), float32, contiguous and finite.",
        lambda r: all(_blocks(obs, r.run) for obs in r.run.observations()),
    ),
    Clause(
        "Rewards are (n, E), float32, contiguous and finite.",
        lambda r: all(_is_block(s.reward, (r.run.spec.n_agents, r.run.copies)) for s in r.run.steps),
    ),
    Clause(
        "Costs are (n, E, m), float32, contiguous, finite and not negative.",
        lambda r: all(
            _is_block(s.cost, (r.run.spec.n_agents, r.run.copies, r.run.spec.n_costs)) and not (s.cost < 0).any()
            for s in r.run.steps
        ),
    ),
    Clause("Flags are (E,) booleans.", lambda r: all(_flags(s, r.run.copies) for s in r.run.steps)),
    Clause(
        "No copy is terminated and truncated at once.",
        lambda r: not any((s.terminated & s.truncated).any() for s in r.run.steps),
    ),
    Clause("A fault counts as termination.", lambda r: not any((s.faults & ~s.terminated).any() for s in r.run.steps)),
    Clause(
        "An episode that a fault ended has no return and no cost; every other has both.", lambda r: _faults_have_no_return(r.run)
    ),
    Clause(
        "final_obs is None if no episode ended, and shaped like obs if one did.",
        lambda r: all(_final_obs_fits(s, r.run) for s in r.run.steps),
    ),
    Clause(
        "episodes names exactly the copies that ended, ascending.",
        lambda r: all([episode.copy for episode in s.episodes] == list(_ended(s)) for s in r.run.steps),
    ),
    Clause("Episodes end by the horizon, and are truncated only there.", lambda r: _ends_in_time(r.run)),
    Clause(
        "A limit given for a copy's first episode truncates that one, marks it where it is below the horizon, and changes "
        "nothing before.",
        _staggers,
    ),
    Clause(
        "Measures have different names, and an episode that no fault ended has a finite figure for each.",
        lambda r: (
            len({measure.name for measure in r.run.spec.measures}) == len(r.run.spec.measures)
            and all(len(e.measures) == len(r.run.spec.measures) for s in r.run.steps for e in s.episodes)
            and all(np.isfinite(e.measures).all() for s in r.run.steps for e in s.episodes if not s.faults[e.copy])
        ),
    ),
    Clause("The rehearsal saw at least two episodes end.", lambda r: sum(len(s.episodes) for s in r.run.steps) >= 2),
    Clause("A copy whose episode ended goes on from a fresh start.", lambda r: r.nature == "still" or _restarted(r)),
    Clause("An episode's return, cost and length are the sums over its steps.", _sums_agree),
    Clause(
        "In team mode all agents get the same reward and the same cost.",
        lambda r: r.share != "team" or all((s.reward == s.reward[0]).all() and (s.cost == s.cost[0]).all() for s in r.run.steps),
    ),
    Clause("The same seed gives the same bytes.", lambda r: _same(r.run, r.again)),
    Clause(
        "Another seed gives another run, and changes nothing where nothing is random.",
        lambda r: _same(r.run, r.reseeded) != (r.nature == "random"),
    ),
    Clause(
        "Another seed gives another start, unless the states are few.",
        lambda r: r.is_finite or r.nature == "still" or r.run.frozen[0] != r.reseeded.frozen[0],
    ),
    Clause("The number of native threads changes nothing.", lambda r: _same(r.run, r.threaded)),
    Clause(
        "A world made again that takes the stored state of another goes on as that would have.",
        lambda r: (
            _same(r.run, r.resumed)
            and [step.episodes for step in r.run.steps] == [step.episodes for step in r.resumed.steps]
            and _same(r.staggered, r.staggered_resumed)
            and [step.episodes for step in r.staggered.steps] == [step.episodes for step in r.staggered_resumed.steps]
        ),
    ),
    Clause("A copy does not depend on what other copies do.", lambda r: _same(r.run, r.nudged, slice(1, None))),
    Clause("Actions matter.", lambda r: not _same(r.run, r.nudged, slice(0, 1))),
    Clause(
        "What was returned is never written again.",
        lambda r: [_bytes(obs) for obs in r.run.observations()] == r.run.frozen,
    ),
    Clause(
        "Consecutive observations differ, or in a still world never.",
        lambda r: all((a != b) == (r.nature != "still") for a, b in pairwise(r.run.frozen)),
    ),
)
