"""Packages outside of this repository, as `kappahop new` writes them: installed by pip, they run without an edit here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli.app import app
from coordinator.cli.new import KINDS, write

ROOT = Path(__file__).parents[2]
EXAMPLES = {"world": ("heat_network", "02_own_world"), "objective": ("simple_policy", "03_own_objective")}

PROGRAM = """
import json, sys
from pathlib import Path
import kappahop as kh

SCENARIO, OUT = sys.argv[1], Path(sys.argv[2])
SMALL = {
    "env": {"agents": 3, "num_envs": 2, "target": 18.0, "horizon": 10}, "kappa": 1, "rollout": {"steps": 10},
    "budget": {"env_steps": 80}, "record": {"state_rounds": 1, "tensorboard": False},
    "algorithm": {"name": "simple_policy", "hidden": [8], "epochs": 1, "minibatches": 1},
}

def figures(run):
    return [run.metrics["weights_sha256"], run.metrics["ledger_sha256"]]

def stop(now):
    return now.round < 1

found = {"one": figures(kh.run(SCENARIO, out=OUT / "one", in_process=True, **SMALL))}
found["processes"] = figures(kh.run(SCENARIO, out=OUT / "processes", **SMALL))
stopped = kh.run(SCENARIO, out=OUT / "resumed", in_process=True, on_round=stop, **SMALL)
found["was_complete"] = stopped.is_complete
found["resumed"] = figures(kh.resume(stopped, in_process=True))
found["evaluated"] = len(kh.evaluate(stopped, in_process=True, episodes=2, film=OUT / "team.gif").returns())
del SMALL["kappa"]
sweep = kh.sweep(SCENARIO, {"kappa": [0, 1]}, seeds=[0], out=OUT / "sweep", in_process=True, **SMALL)
found["sweep"] = [run.is_complete for run in sweep.runs]
found["page"] = kh.report(sweep).read_text()
found["plugins"] = json.loads((OUT / "one" / "manifest.json").read_text())["plugins"]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both packages as pip installs them."""
    folder = tmp_path_factory.mktemp("site")
    words = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(folder)]
    packages = [str(ROOT / "examples" / place) for _, place in EXAMPLES.values()]
    subprocess.run([sys.executable, "-m", "pip", "install", *words, *packages], check=True, timeout=100)
    return folder


def python(site: Path, *words: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=cwd, timeout=110, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.system
def test_both_run_in_processes_and_in_one_with_the_same_bytes_sweep_resume_and_report(site: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    scenario = ROOT / "examples" / "02_own_world" / "heat_network.yaml"
    found = json.loads(python(site, "program.py", str(scenario), str(tmp_path / "runs"), cwd=tmp_path))
    assert found["one"] == found["processes"] == found["resumed"]
    assert not found["was_complete"]
    assert found["evaluated"] >= 2
    assert (tmp_path / "runs" / "team.gif").read_bytes()[:3] == b"GIF"
    assert found["sweep"] == [True, True]
    names = {(one["kind"], one["name"], one["origin"]) for one in found["plugins"]}
    assert names == {
        ("world", "heat_network", "heat_network 0.1.0"),
        ("recipe", "simple_policy", "simple_policy 0.1.0"),
        ("objective", "simple_policy", "simple_policy 0.1.0"),
        ("link preset", "heat_network_hallway", "heat_network 0.1.0"),
    }
    assert "objective simple_policy of simple_policy 0.1.0" in found["page"]


@pytest.mark.slow
def test_packages_pass_their_own_tests_and_the_world_its_check(site: Path, tmp_path: Path) -> None:
    write("scenario", "my_scenario", tmp_path / "my_scenario")
    folders = [str(ROOT / "examples" / place) for _, place in EXAMPLES.values()] + [str(tmp_path / "my_scenario")]
    words = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path), "--import-mode=importlib"]
    assert "7 passed" in python(site, "-m", "pytest", *words, *folders, cwd=tmp_path)
    told = python(site, "-m", "kappahop", "check", "world", "heat_network", cwd=tmp_path)
    assert told.startswith("world heat_network: all ")


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_examples_are_what_new_writes(kind: str, tmp_path: Path) -> None:
    name, place = EXAMPLES[kind]
    done = CliRunner().invoke(app, ["new", kind, name, "--out", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    files = {path.name: path.read_text() for path in (tmp_path / "new").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "examples" / place).iterdir() if path.is_file()}
    assert files == kept, f"rm -r examples/{place}; kappahop new {kind} {name} --out examples/{place}"


def test_new_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").touch()
    for words, told in (
        (["worlds", "mine"], f"new: got 'worlds', did you mean 'world'?; expected one of {', '.join(KINDS)}"),
        (["world", "My-World"], "NAME: got 'My-World'; expected 2 to 41 small letters"),
        (["world", "mine", "--out", str(tmp_path / "there")], "already holds something"),
    ):
        done = CliRunner().invoke(app, ["new", *words])
        assert done.exit_code == 2
        assert told in done.stderr.replace("\n", " ")
