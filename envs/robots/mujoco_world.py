"""Robots in MuJoCo: E copies stepped natively, everything else vectorised over copies.

Theory of operation. `mujoco.batch.Batch` owns the states; its state arrays are live views, bound once here and never rebound.
One step is: write controls, let the batch run `frame_skip` physics steps on its own threads, then compute reward, cost and ends
from a handful of columns. All numbers that agents sense lie in one float32 table (positions | velocities | the rule's
numbers); an observation is a choice of its columns, so `own`, `full` and `reference` differ by index arrays only. Columns are
found by joint name.

What must not change: a copy's random numbers come from its own generator, drawn in the order of its own resets, and copies
never mix; hence results depend neither on the number of threads nor on what other copies do. A copy whose physics diverged
(MuJoCo then resets it silently and counts a warning) is reported in `faults`, terminated, paid 0 and charged 1; its episode
has no return.
`tests/envs/robots/test_mujoco_world.py` notices.

Source: batch semantics from the docstrings of `mujoco.batch` (4.0.0).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import mujoco  # type: ignore[import-untyped]
import numpy as np
from mujoco.batch import Batch, SimulationError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from envs.interface import Bools, EnvSpec, Episode, Floats, Transition
from envs.robots import models
from envs.robots.partitions import Channel, Robot
from envs.robots.rules import Array, Step, obstacle_drive
from envs.robots.settings import Robot as Settings
from envs.robots.tasks import TASKS, Task, has_own_costs, senses, spec, walls
from topology.snapshot import State, restore_streams, streams

FIRST_FATAL = int(mujoco.mjtWarning.mjWARN_BADQPOS)  # this warning and those after it mean a diverged simulation

MODELS: dict[str, Callable[[Task, Robot, Settings], Any]] = {
    "ant": lambda task, robot, env: models.ant(walls(env)),
    "half_cheetah": lambda task, robot, env: models.half_cheetah(task.obstacle),
    "coupled_half_cheetah": lambda task, robot, env: models.coupled_half_cheetah(task.obstacle),
    "many_ant": lambda task, robot, env: models.many_ant(robot.segments, walls(env)),
    "hopper": lambda task, robot, env: models.plain("hopper.xml"),
    "walker2d": lambda task, robot, env: models.plain("walker2d_v5.xml"),  # both feet of the same friction
    "humanoid": lambda task, robot, env: models.plain("humanoid.xml", contacts=True),
    "swimmer": lambda task, robot, env: models.plain("swimmer.xml"),
}


def _silence() -> None:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT into the working directory; divergence is reported in `faults` instead.

    The setting is MuJoCo's own and holds for the whole process.
    """
    config = mujoco.MjLogConfig.get()
    config.logto_file = config.logto_console = False
    mujoco.MjLogConfig.set(config)


def columns(model: Any, name: str) -> tuple[int, int]:
    """First position and first velocity index of the joint with this name."""
    joint = model.joint(name)
    return int(joint.qposadr[0]), int(joint.dofadr[0])


class MujocoWorld:
    """E copies of one robot task (see `envs.robots.tasks`); observations and formulas are tabled in docs/reference/worlds.md."""

    def __init__(self, env: Settings, seed: int) -> None:
        """Build the model and start its threads; call `reset` before `step`.

        Args:
            env: The scenario's section.
            seed: Root of the copies' random streams.

        Raises:
            ValueError: The task has no such partition or walls.
        """
        self.spec: EnvSpec = spec(env)
        self.num_envs = env.num_envs
        _silence()
        self._task = task = TASKS[env.name]
        self._robot = robot = task.robots[env.partition]
        self._rule = task.rules[env.partition]
        self._rngs = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(env.num_envs)]
        self.model = MODELS[task.model](task, robot, env)
        threads = min(env.threads or len(os.sched_getaffinity(0)), env.num_envs)
        self.batch = Batch(self.model, env.num_envs, threads)
        self._bind()
        self._deal(task.partitions[env.partition], by_name=env.action_map == "by_name")
        self._lay_out(env)
        n, copies = self.spec.n_agents, self.num_envs
        self._local_reward = env.reward == "local"
        self._places = self._watched(task.partitions[env.partition]) if has_own_costs(env) else None
        carriers = [robot.carriers(joints)[0] for joints in task.partitions[env.partition]]
        self._charged_bodies = np.array(carriers) if robot.parts and has_own_costs(env) else None
        self._age = np.zeros(copies, np.int64)
        self._limit = np.full(copies, self.spec.horizon, np.int64)
        self._ret = np.zeros(copies)
        self._charged = np.zeros(copies)
        self._shape = (n, copies)

    # --- to look at -----------------------------------------------------------------------------------------------

    def place(self, copy: int) -> tuple[float, float]:
        """Where a copy's robot is, x and y [m]."""
        return float(self._x[copy]), float(self._y[copy])

    def charged_at(self, x: Array, y: Array, copy: int) -> Bools:
        """Where a robot that stood at (x, y), (P,), would be charged now."""
        obstacle = None if self._obstacle is None else np.full_like(x, self._obstacle[copy])
        time = np.full_like(x, self._time[copy])
        return self._rule.cost(Step(x0=x, y0=y, x=x, y=y, time=time, dt=self.spec.dt, obstacle=obstacle))

    # --- assembly -------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Bind the batch's arrays, all before the first step."""
        batch, robot = self.batch, self._robot
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._ctrl, self._time = batch.bind("ctrl"), batch.bind("time")
        self._fatal = batch.warning[:, FIRST_FATAL:, 1]
        self._contacts = batch.bind("cfrc_ext") if self._task.contact_price else None
        self._x = self._qpos[:, self._column(robot.forward)]
        self._y = self._qpos[:, self._column(robot.sideways)] if robot.sideways else np.zeros(self.num_envs)
        self._inertial: Array | None = None
        if self._task.by_mass_centre:
            self._inertial = batch.bind("xipos")
            self._shares = self.model.body_mass / self.model.body_mass.sum()
            self._x, self._y = np.zeros(self.num_envs), np.zeros(self.num_envs)
        self._trunks = tuple(self._qpos[:, self._column(part.forward)] for part in robot.parts)
        self._tendon: tuple[Array, Array] | None = None
        if self._trunks:
            self._x = np.zeros(self.num_envs)
            self._tendon = batch.bind("ten_length")[:, 0], batch.bind("ten_velocity")[:, 0]
        self._obstacle = self._qpos[:, columns(self.model, "obstacle")[0]] if self._task.obstacle else None
        self._own_q, self._own_v = self._robot_entries()

    def _robot_entries(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices into qpos and qvel of everything that starts with noise: all but the free walls."""
        walls = [k for k in range(self.model.njnt) if self.model.joint(k).name.startswith("wall")]
        q, v = np.ones(self.model.nq, bool), np.ones(self.model.nv, bool)
        for k in walls:
            at_q, at_v = int(self.model.jnt_qposadr[k]), int(self.model.jnt_dofadr[k])
            q[at_q : at_q + 7] = False
            v[at_v : at_v + 6] = False
        return np.flatnonzero(q), np.flatnonzero(v)

    def _column(self, channel: Channel) -> int:
        """Where a channel lives in qpos, or in qvel."""
        at_q, at_v = columns(self.model, channel.name)
        first = at_q if channel.field == "qpos" else at_v
        return first + channel.part

    def _deal(self, partition: Sequence[Sequence[str]], *, by_name: bool) -> None:
        """Find the motor of every joint of every agent, in the order of the concatenated actions."""
        motor_of = {int(self.model.actuator_trnid[k, 0]): k for k in range(self.model.nu)}
        joints = [joint for own in partition for joint in own] if by_name else list(self._robot.motors)
        self._motors = np.array([motor_of[self.model.joint(joint).id] for joint in joints])
        self._drive = motor_of[self.model.joint("obstacle").id] if self._task.obstacle else None
        self._starts = np.cumsum([0, *self.spec.act_dims[:-1]])

    def _lay_out(self, env: Settings) -> None:
        """Make the float32 table and each agent's choice of its columns."""
        nq, nv, extras = int(self.model.nq), int(self.model.nv), self._rule.extras
        self._table = np.zeros((self.num_envs, nq + nv + len(extras)), np.float32)

        def place(channel: Channel) -> int:
            if channel.field == "extra":
                return nq + nv + extras.index(channel.name)
            return self._column(channel) + (nq if channel.field == "qvel" else 0)

        self._chosen = [np.array([place(channel) for channel in agent]) for agent in senses(env)]
        self._identity = np.eye(self.spec.n_agents, dtype=np.float32) if env.observation == "reference" else None

    def _watched(self, partition: Sequence[Sequence[str]]) -> tuple[NDArray[np.intp], NDArray[np.intp], Array] | None:
        """The bodies whose place an agent answers for, where agents' lists start, and the bound body positions.

        An agent answers for the bodies its ankles move; one without an ankle for those its hips move.
        """
        if self._rule.cost_at(np.zeros((1, 1)), np.zeros((1, 1))) is None:
            return None
        feet = [[j for j in own if j.startswith("ankle")] or list(own) for own in partition]
        bodies = np.array([int(self.model.jnt_bodyid[self.model.joint(j).id]) for own in feet for j in own])
        return bodies, np.cumsum([0, *(len(own) for own in feet[:-1])]), self.batch.bind("xpos")

    # --- the interface --------------------------------------------------------------------------------------------

    def reset(self, limits: Sequence[int] | None = None) -> list[Floats]:
        """See `VecEnv.reset`."""
        self._restart(np.arange(self.num_envs))
        if limits is not None:
            self._limit[:] = limits
        return self._observe(self._standing())

    def step(self, actions: Sequence[Floats]) -> Transition:
        """Advance every copy one control period.

        Args:
            actions: Per agent (E, a_i), torques as fractions of the gear; beyond ±1 the motors saturate but the price goes on
                rising.

        Returns:
            See `envs.interface.Transition`.
        """
        control = self._task.control_scale * np.concatenate(actions, axis=1, dtype=np.float64)
        self._ctrl[:, self._motors] = control
        if self._drive is not None:
            self._ctrl[:, self._drive] = obstacle_drive(self._time)
        x0, y0 = self._x.copy(), self._y.copy()
        faults = self._advance()
        now = self._now(x0, y0)
        fallen = self._fallen()
        reward, ret = self._reward(now, control, fallen, faults)
        self._age += 1
        terminated = fallen | faults
        truncated = (self._age >= self._limit) & ~terminated
        cost, charged = self._cost(now, terminated if self._rule.charges_falls else faults)
        self._ret += ret
        self._charged += charged
        obs = self._observe(now)
        ended = terminated | truncated
        if not np.count_nonzero(ended):
            return Transition(
                obs=obs,
                reward=reward,
                cost=cost,
                terminated=terminated,
                truncated=truncated,
                final_obs=None,
                episodes=(),
                faults=faults,
            )
        ids = np.flatnonzero(ended)
        episodes = tuple(
            Episode.ended(
                copy=int(e),
                ret=float(self._ret[e]),
                cost=(float(self._charged[e]),) * self.spec.n_costs,
                length=int(self._age[e]),
                is_whole=bool(self._limit[e] == self.spec.horizon),
                is_faulty=bool(faults[e]),
            )
            for e in ids
        )
        self._restart(ids)
        return Transition(
            obs=self._observe(self._standing()), reward=reward, cost=cost, terminated=terminated, truncated=truncated,
            final_obs=obs, episodes=episodes, faults=faults,
        )  # fmt: skip

    def state(self) -> State:
        """See `VecEnv.state`; the batch's rows hold all of the physics, from which every step derives the rest."""
        return {
            "physics": self.batch.state.copy(), "x": self._x.copy(), "y": self._y.copy(), "age": self._age.copy(),
            "limit": self._limit.copy(), "ret": self._ret.copy(), "charged": self._charged.copy(), "streams": streams(self._rngs),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """See `VecEnv.restore`."""
        self.batch.state[:] = state["physics"]
        self._x[:], self._y[:] = state["x"], state["y"]  # a mass centre's place is not in the physics before a step
        self._age, self._limit, self._ret, self._charged = state["age"], state["limit"], state["ret"], state["charged"]
        restore_streams(self._rngs, state["streams"])

    def close(self) -> None:
        """Release native threads; the world is not to be used afterwards."""
        for name in self.__dict__.keys() - {"spec", "copies"}:  # every bound array keeps the batch, and so its threads, alive
            del self.__dict__[name]

    # --- one step's parts -----------------------------------------------------------------------------------------

    def _advance(self) -> Bools:
        """Run the physics; (E,) True where it diverged."""
        failed: Sequence[int] = ()
        try:
            self.batch.step(nstep=self._task.frame_skip, stage=int(self._stage()))
        except SimulationError as error:
            failed = error.ids
        wild_q, wild_v = (~(np.abs(state) < mujoco.mjMAXVAL) for state in (self._qpos, self._qvel))  # as MuJoCo has it; or nan
        faults: Bools = wild_q.any(axis=1) | wild_v.any(axis=1)
        if len(failed):
            faults[failed] = True
        if np.count_nonzero(self._fatal):
            faults |= self._fatal.any(axis=1)  # the counters are zeroed by the restart that follows
        if np.count_nonzero(faults):
            self._qpos[wild_q], self._qvel[wild_v] = 0.0, 0.0
        self._find_place()
        return faults

    def _stage(self) -> Any:
        """How much of what follows from positions and velocities is needed after a step."""
        if self._tendon is not None:
            return mujoco.mjtStage.mjSTAGE_VEL
        placed = self._places is not None or self._inertial is not None
        return mujoco.mjtStage.mjSTAGE_POS if placed else mujoco.mjtStage.mjSTAGE_NONE

    def _find_place(self) -> None:
        """Let x and y be the mass centre's where the task goes by it, and x the mean over bodies where there are several."""
        if self._trunks:
            self._x[:] = sum(self._trunks) / len(self._trunks)
        if self._inertial is not None:
            self._x[:], self._y[:] = (np.nan_to_num(self._inertial[:, :, axis] @ self._shares) for axis in (0, 1))

    def _reward(self, now: Step, control: Array, fallen: Bools, faults: Bools) -> tuple[Floats, Array]:
        """Each agent's reward (n, E) and the team's (E,); faulty copies are paid 0."""
        task = self._task
        shared = task.progress_price * (now.x - now.x0) / now.dt + task.alive_bonus
        if task.falls_forfeit:
            shared[fallen] -= task.alive_bonus
        if task.contact_price is not None and self._contacts is not None:
            shared -= task.contact_price(self._contacts)
        effort = task.control_price * np.add.reduceat(control * control, self._starts, axis=1).T
        ret = shared - effort.sum(axis=0)
        if np.count_nonzero(faults):
            shared[faults], effort[:, faults], ret[faults] = 0.0, 0.0, 0.0
        reward = np.empty(self._shape, np.float32)
        reward[:] = shared / self.spec.n_agents - effort if self._local_reward else ret
        return reward, ret

    def _fallen(self) -> Bools:
        """Where the posture is lost, (E,)."""
        if self._task.posture is None:
            return np.zeros(self.num_envs, bool)
        return ~self._task.posture.kept(self._qpos, self._qvel)

    def _cost(self, now: Step, charged: Bools) -> tuple[Floats, Array]:
        """Each agent's cost (n, E, m) and the team's (E,); where `charged`, all agents pay whatever the rule says."""
        team = self._rule.cost(now) | charged
        cost = np.empty((*self._shape, self.spec.n_costs), np.float32)
        cost[:] = team[:, None]
        if self._places is not None:
            bodies, starts, xpos = self._places
            near = self._rule.cost_at(xpos[:, bodies, 0], xpos[:, bodies, 1])
            assert near is not None
            cost[:, :, 0] = np.logical_or.reduceat(near, starts, axis=1).T | charged
        if self._charged_bodies is not None:
            each = np.stack([self._rule.cost(replace(now, trunks=(x,))) for x in self._trunks])
            cost[:, :, 0] = each[self._charged_bodies] | charged
        return cost, team.astype(np.float64)

    def _standing(self) -> Step:
        """The present state as a step that did not move."""
        return self._now(self._x, self._y)

    def _now(self, x0: Array, y0: Array) -> Step:
        """The present state as a step that came from a place."""
        return Step(
            x0=x0, y0=y0, x=self._x, y=self._y, time=self._time, dt=self.spec.dt, obstacle=self._obstacle, trunks=self._trunks,
            tendon=self._tendon,
        )  # fmt: skip

    def _observe(self, now: Step) -> list[Floats]:
        """What each agent senses, (E, d_i), fresh arrays."""
        nq, nv, table = self.model.nq, self.model.nv, self._table
        table[:, :nq] = self._qpos
        limit = self._task.sensed_speed
        table[:, nq : nq + nv] = self._qvel if limit is None else np.clip(self._qvel, -limit, limit)
        for k, values in enumerate(self._rule.sense(now)):
            table[:, nq + nv + k] = values
        if self._identity is None:
            return [table.take(choice, axis=1) for choice in self._chosen]
        state = table.take(self._chosen[0], axis=1)
        return [_standardised(state, row) for row in self._identity]

    def _restart(self, ids: NDArray[np.intp]) -> None:
        """Put copies at the model's start with fresh noise."""
        self.batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        noise, size = self._task.start_noise, len(self._own_v)
        for e in ids:
            rng = self._rngs[e]
            self._qpos[e, self._own_q] += rng.uniform(-noise, noise, len(self._own_q))
            uniform = self._task.start_motion == "uniform"
            self._qvel[e, self._own_v] = rng.uniform(-noise, noise, size) if uniform else noise * rng.standard_normal(size)
        if self._inertial is not None or self._trunks:
            self.batch.forward(ids, stage=int(self._stage()))
            self._find_place()
        self._age[ids] = 0
        self._limit[ids] = self.spec.horizon
        self._ret[ids] = 0.0
        self._charged[ids] = 0.0


def _standardised(state: Floats, identity: Floats) -> Floats:
    """State and one-hot id side by side, (E, S + n), each row with mean 0 and standard deviation 1."""
    row = np.concatenate([state, np.broadcast_to(identity, (len(state), len(identity)))], axis=1)
    row -= row.mean(axis=1, keepdims=True)
    row /= row.std(axis=1, keepdims=True)
    return row
