"""The five package names belong to kappahop only, and the wheel holds what a run needs."""

import importlib.metadata
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from coordinator.cli import guard

ROOT = Path(__file__).resolve().parent.parent


def run(*words: str, cwd: Path, path: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={"PYTHONPATH": ":".join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_no_other_distribution_has_one_of_the_five_names() -> None:
    owners = importlib.metadata.packages_distributions()
    assert {name: owners[name] for name in guard.PACKAGES if set(owners.get(name, [])) - {"kappahop"}} == {}


def test_guard_and_pyproject_name_the_same_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert tuple(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == guard.PACKAGES
    assert project["project"]["requires-python"] == f">={guard.OLDEST[0]}.{guard.OLDEST[1]}"
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]


def test_constraints_pin_every_requirement_without_naming_a_host() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and "/" not in line and "+" not in line for line in lines)
    pinned = {line.partition("==")[0].lower() for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [word for extra in project["optional-dependencies"].values() for word in extra]
    names = {word.partition("[")[0].partition(">")[0].partition("=")[0].lower() for word in wanted}
    assert names <= pinned


def test_we_are_imported_from_here() -> None:
    guard.check_python()
    guard.check_origin()
    assert guard.strangers() == []


@pytest.mark.system
@pytest.mark.parametrize("name", guard.PACKAGES)
def test_a_foreign_package_of_our_name_is_refused_with_its_path(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import coordinator.cli.guard as g; sys.path.pop(0); g.check_origin()"
    )
    if name == "coordinator":  # imported already, so it is ours
        assert run("-P", "-c", program, cwd=tmp_path, path=[tmp_path, ROOT]).returncode == 0
        return
    done = run("-P", "-c", program, cwd=tmp_path, path=[tmp_path, ROOT])
    assert done.returncode == 1
    assert done.stdout == ""
    expected = f"kappahop: {name!r} would be imported from {tmp_path.resolve() / name} instead of {ROOT / name}; "
    assert done.stderr == expected + "start kappahop from another folder, or take that one off PYTHONPATH\n"


@pytest.mark.system
def test_a_plain_module_of_our_name_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "envs.py").write_text("")
    program = f"import sys; sys.path.append({str(ROOT)!r}); import coordinator.cli.guard as g; g.check_origin()"
    done = run("-P", "-c", program, cwd=tmp_path, path=[tmp_path])
    assert done.returncode == 1
    assert f"'envs' would be imported from {tmp_path.resolve() / 'envs.py'}" in done.stderr


@pytest.mark.system
def test_a_folder_without_init_cannot_shadow_us(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    done = run("-P", "-c", "import coordinator.cli.guard as g; g.check_origin()", cwd=tmp_path, path=[tmp_path, ROOT])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.system
def test_a_missing_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "coordinator" / "cli").mkdir(parents=True)
    for package in ("coordinator", "coordinator/cli"):
        (tmp_path / package / "__init__.py").write_text("")
    shutil.copy(ROOT / "coordinator" / "cli" / "guard.py", tmp_path / "coordinator" / "cli")
    done = run("-P", "-c", "import coordinator.cli.guard as g; print(*g.strangers(), sep='\\n')", cwd=tmp_path, path=[tmp_path])
    here = [line for line in done.stdout.splitlines() if "is missing" in line or "instead of" in line]
    assert len(here) == 5, done.stdout + done.stderr  # all but coordinator; installed ones show as foreign


def test_old_python_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    with pytest.raises(SystemExit, match=r"kappahop needs Python 3\.11 or newer, this is 3\.9 \(.*\); make an environment"):
        guard.check_python()


@pytest.mark.system
def test_wheel_holds_every_module_and_scenario(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="builds the wheel")
    source = tmp_path / "source"
    source.mkdir()
    for name in (*guard.PACKAGES, "pyproject.toml", "LICENSE", "README.md"):
        here = ROOT / name
        if here.is_dir():
            shutil.copytree(here, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif here.exists():
            shutil.copy(here, source)
    done = run("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"), cwd=source, path=[])
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("kappahop-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(source)) for name in guard.PACKAGES for path in (source / name).rglob("*") if path.is_file()}
    assert any(name.endswith(".yaml") for name in wanted)
    assert wanted <= inside
    assert {name.split("/")[0] for name in inside} == {
        *guard.PACKAGES,
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
