"""Sinks keep every scalar with its step, in whatever order steps come, and a missing package is told before anything starts."""

import json
import math
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.records import sinks
from coordinator.records.database import Recorder
from coordinator.records.plan import plan
from scenarios.loading import ScenarioError, load
from scenarios.plugins import register_sink
from scenarios.registry import SINKS
from scenarios.schema import Record
from topology.planes.control import EpisodeRow

TOLD = [(40, {"episode/return": -3.5, "agent 0/kl": 0.25}), (20, {"episode/return": -7.0}), (60, {"episode/return": math.nan})]
Found = dict[str, list[tuple[int, float]]]


def tensorboard_holds(run_dir: Path) -> list[Found]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    runs: list[Found] = []
    for file in sorted((run_dir / "tensorboard").iterdir()):
        runs.append({})
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                runs[-1].setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return runs


def chunks(data: bytes) -> Iterator[bytes]:
    """Records of LevelDB's log format, after 7 bytes that say it is W&B's; all within the first block of 32 KiB."""
    assert len(data) < 1 << 15
    at = 7
    while at + 7 <= len(data):
        _, length, kind = struct.unpack_from("<IHB", data, at)
        assert kind == 1  # a whole record
        yield data[at + 7 : at + 7 + length]
        at += 7 + length


def wandb_holds(run_dir: Path) -> list[Found]:
    from wandb.proto.wandb_internal_pb2 import Record as Entry

    runs: list[Found] = []
    for file in sorted((run_dir / "wandb").glob("offline-run-*/*.wandb")):
        runs.append({})
        for data in chunks(file.read_bytes()):
            entry = Entry()
            entry.ParseFromString(data)
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in entry.history.item}
            for name in row.keys() - {"env_step"}:
                if not name.startswith("_"):
                    runs[-1].setdefault(name, []).append((row["env_step"], float(row[name])))
    return runs


def mlflow_holds(run_dir: Path) -> list[Found]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(run_dir / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("kappahop")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    return [
        {name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics}
        for run in runs
    ]


HOLDS = {"tensorboard": tensorboard_holds, "wandb": wandb_holds, "mlflow": mlflow_holds}


def only(name: str) -> Record:
    return Record.model_validate({"tensorboard": False, name: True})


@pytest.fixture(params=HOLDS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen: str = request.param
    for key in sinks._SILENCE:
        monkeypatch.setenv(key, "")  # so that they are put back
    pytest.importorskip(chosen)
    return chosen


@pytest.mark.filterwarnings("default:::(wandb|mlflow|pydantic)")
def test_a_sink_keeps_every_scalar_with_its_step(name: str, tmp_path: Path) -> None:
    (sink,) = sinks.open_sinks(only(name), tmp_path)
    for step, values in TOLD:
        sink.scalars(step, values)
        sink.flush()
    sink.close()
    (found,) = HOLDS[name](tmp_path)
    assert found.keys() == {"episode/return", "agent 0/kl"}
    assert found["agent 0/kl"] == [(40, 0.25)]
    assert sorted(one for one in found["episode/return"] if one[0] < 60) == [(20, -7.0), (40, -3.5)]
    assert [step for step, value in found["episode/return"] if math.isnan(value)] == [60]
    assert {path.name for path in tmp_path.iterdir()} == {name}


@pytest.mark.filterwarnings("default:::(wandb|mlflow|pydantic)")
def test_a_run_that_goes_on_keeps_what_it_had(name: str, tmp_path: Path) -> None:
    for after, value in ((None, 1.0), (40, 2.0)):
        (sink,) = sinks.open_sinks(only(name), tmp_path, after=after)
        sink.scalars(50, {"x": value})
        sink.close()
    assert sorted(values["x"] for values in HOLDS[name](tmp_path)) == [[(50, 1.0)], [(50, 2.0)]]


def test_every_sink_is_told_the_same_and_closed_with_the_recorder(tmp_path: Path) -> None:
    class Heard:
        def __init__(self) -> None:
            self.told: list[object] = []

        def scalars(self, step: int, values: object) -> None:
            self.told.append((step, values))

        def flush(self) -> None:
            self.told.append("flush")

        def close(self) -> None:
            self.told.append("close")

    heard = [Heard(), Heard()]
    with closing(Recorder(tmp_path, env_steps_per_round=40, sinks=heard)) as recorder:
        recorder.episodes([EpisodeRow(round=0, env_step=10, copy_index=0, ret=-3.0, cost=(0.5, 1.0), length=5)])
    expected = [(10, {"episode/return": -3.0, "episode/cost": 1.5}), "flush", "close"]
    assert [one.told for one in heard] == [expected, expected]


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
@pytest.mark.parametrize("a_folder_of_that_name", [False, True])
def test_a_missing_package_is_one_line_that_names_its_extra(
    package: str, a_folder_of_that_name: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    if a_folder_of_that_name:  # what an earlier run may have left where the command is started
        (tmp_path / package).mkdir()
    with pytest.raises(ValueError, match=rf"^record\.{package}: got true, .* pip install -e '\.\[{package}\]' [^\n]*$"):
        plan(load("quickstart", [f"record.{package}=true"]))
    plan(load("quickstart"))


class Lines:
    """A sink of a program's own: a line per scalar."""

    def __init__(self, run_dir: Path, *, after: int | None = None) -> None:
        self._file = (run_dir / f"lines-{after}.txt").open("w")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._file.writelines(f"{step} {name} {value}\n" for name, value in values.items())

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def test_a_registered_sink_takes_the_same_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SINKS, "_added", {})
    register_sink("lines", Lines)
    record = Record(tensorboard=False, sinks=("lines",))
    sinks.check(record)
    (sink,) = sinks.open_sinks(record, tmp_path, after=40)
    sink.scalars(60, {"agent 0/kl": 0.25})
    sink.close()
    assert (tmp_path / "lines-40.txt").read_text() == "60 agent 0/kl 0.25\n"
    for name, told in (("linse", "record.sinks: got 'linse', did you mean 'lines'?"), ("wandb", "write record.wandb=true")):
        with pytest.raises(ScenarioError, match=re.escape(told)):
            sinks.check(Record(sinks=(name,)))
