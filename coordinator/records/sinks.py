"""Where the scalars of a run go besides its database: TensorBoard, Weights & Biases, MLflow, behind one small interface.

All of them write into the run's folder and none asks the network for anything: Weights & Biases is in its offline mode,
MLflow keeps its files itself, and both are told to send nothing about themselves. They are optional packages, imported only
by a run that wants them; `check` says which is missing before anything starts. `record.sinks` names further ones: a class or a
function that is called with the run's directory and `after`, and gives a `Sink`.

A run that goes on repeats what it had told beyond the state that it goes on from. TensorBoard can be told to forget; the
other two cannot, so there the rest of the run is a run of its own, named by the environment step after which it begins.
"""

import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

from scenarios.loading import ScenarioError
from scenarios.registry import SINKS, RegistryError
from scenarios.schema import Record

TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"
_OPTIONAL = (WANDB, MLFLOW)  # setting, package, extra and folder have the same name
_MLFLOW_BATCH = 1000  # metrics that MLflow takes at once
_SILENCE = {
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # else MLflow insists on a database, for which its small package lacks the driver
}


@runtime_checkable
class Sink(Protocol):
    """What takes named numbers."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take named numbers at an environment step; steps may come in any order."""

    def flush(self) -> None:
        """Write out what is buffered."""

    def close(self) -> None:
        """Write out everything and end."""


def check(record: Record) -> None:
    """Make sure that the packages of the chosen sinks are there.

    Raises:
        ScenarioError: one is not.
    """
    for name in _OPTIONAL:
        if getattr(record, name):
            found = find_spec(name)
            if found is None or found.origin is None:  # a mere folder of that name passes for a package, without an origin
                raise ScenarioError(
                    f"record.{name}: got true, but the package {name} is not installed; pip install -e '.[{name}]' in its folder "
                    f"brings it, record.{name}=false does without"
                )
    for name in record.sinks:
        if name in SINKS.own:
            raise ScenarioError(f"record.sinks: got {name!r}, which has a setting of its own; write record.{name}=true")
        try:
            SINKS.resolve(name)
        except RegistryError as error:
            raise ScenarioError(f"record.sinks: {error}") from None


def open_sinks(record: Record, run_dir: Path, *, after: int | None = None) -> tuple[Sink, ...]:
    """The chosen sinks.

    Args:
        record: Which.
        run_dir: The run's directory.
        after: Environment step after which the run goes on; None: it begins.
    """
    sinks: list[Sink] = []
    if record.tensorboard:
        sinks.append(TensorBoard(run_dir, after=after))
    if record.wandb:
        sinks.append(WandB(run_dir, after=after))
    if record.mlflow:
        sinks.append(MLflow(run_dir, after=after))
    sinks += [SINKS.resolve(name)(run_dir, after=after) for name in record.sinks]
    return tuple(sinks)


class TensorBoard:
    """TensorBoard events without torch, in `tensorboard/`."""

    def __init__(self, run_dir: Path, *, after: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(run_dir / TENSORBOARD))
        if after is not None:  # readers forget what was written of later steps
            self._writer.add_event(Event(step=after + 1, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take named numbers at an environment step."""
        summary = self._summary(value=[self._summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._writer.add_event(self._event(step=step, summary=summary))

    def flush(self) -> None:
        """Write out what is buffered."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases in `wandb/`, which `wandb sync` can send on."""

    def __init__(self, run_dir: Path, *, after: int | None = None) -> None:
        os.environ.update(_SILENCE, WANDB_CACHE_DIR=str((run_dir / WANDB / "cache").resolve()))  # else its logs go home
        import wandb

        settings = wandb.Settings(
            mode="offline",
            silent=True,
            console="off",
            save_code=False,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._teardown = wandb.teardown
        self._run = wandb.init(
            project="kappahop", dir=run_dir, name=_name(run_dir, after), group=run_dir.resolve().name, settings=settings
        )
        # W&B's own steps must ascend, ours need not: what copies of the environment report overlaps
        self._run.define_metric("env_step", hidden=True)
        self._run.define_metric("*", step_metric="env_step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take named numbers at an environment step."""
        self._run.log({"env_step": step, **values})

    def flush(self) -> None:
        """Do nothing: its own process writes as it goes."""

    def close(self) -> None:
        """End the run and its process."""
        self._run.finish()
        self._teardown()  # waits for its process: at the end of `finish` that may still have to write the file


class MLflow:
    """A run in an MLflow store of files in `mlflow/`."""

    def __init__(self, run_dir: Path, *, after: int | None = None) -> None:
        os.environ.update(_SILENCE)
        from mlflow.entities import Metric
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(tracking_uri=(run_dir / MLFLOW).resolve().as_uri())
        found = self._client.get_experiment_by_name("kappahop")
        experiment = self._client.create_experiment("kappahop") if found is None else found.experiment_id
        self._run_id = self._client.create_run(experiment, run_name=_name(run_dir, after)).info.run_id
        self._waiting: list[Metric] = []

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take named numbers at an environment step."""
        stamp = time.time_ns() // 1_000_000
        self._waiting += [self._metric(name, value, stamp, step) for name, value in values.items()]

    def flush(self) -> None:
        """Write out what is buffered."""
        for first in range(0, len(self._waiting), _MLFLOW_BATCH):
            self._client.log_batch(self._run_id, metrics=self._waiting[first : first + _MLFLOW_BATCH])
        self._waiting.clear()

    def close(self) -> None:
        """Write out everything and mark the run as ended."""
        self.flush()
        self._client.set_terminated(self._run_id)


def _name(run_dir: Path, after: int | None) -> str:
    name = run_dir.resolve().name
    return name if after is None else f"{name} after {after}"
