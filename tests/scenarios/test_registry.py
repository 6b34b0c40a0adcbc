"""Names that stand for code: where they come from, and what is said when they stand for nothing."""

import sys
from pathlib import Path

import pytest

from scenarios.registry import Registry, RegistryError

GROUP = "kappahop.tests"


@pytest.fixture
def registry() -> Registry:
    return Registry("shape", {"circle": "math:pi", "deep": "os:path.sep"}, GROUP)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, points: str, code: str = "") -> None:
    """Put a package where Python finds it, as pip would, with entry points."""
    folder.mkdir()
    (folder / f"{package}.py").write_text(code)
    (folder / f"{package}-1.2.dist-info").mkdir()
    (folder / f"{package}-1.2.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (folder / f"{package}-1.2.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_name_of_ours_is_imported_when_it_is_used(registry: Registry) -> None:
    assert registry.resolve("circle") == pytest.approx(3.14159, abs=1e-5)
    assert registry.resolve("deep") == "/"
    assert registry.origin("circle") == "kappahop"


def test_an_unknown_name_is_told_with_the_nearest_and_all(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="got 'circel', did you mean 'circle'\\?; expected one of circle, deep"):
        registry.resolve("circel")


def test_an_installed_package_adds_names_that_cost_nothing_until_used(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "class Square: side = 4"
    install(monkeypatch, tmp_path / "a", "kappahop_test_shapes", "square = kappahop_test_shapes:Square.side", code)
    assert registry.names() == ["circle", "deep", "square"]
    assert registry.origin("square") == "kappahop_test_shapes 1.2"
    assert "kappahop_test_shapes" not in sys.modules
    assert registry.resolve("square") == 4
    monkeypatch.delitem(sys.modules, "kappahop_test_shapes")


def test_a_broken_package_is_told_when_its_name_is_used_and_spoils_no_other(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "a", "kappahop_test_broken", "bent = kappahop_test_broken:X", "1 / 0")
    assert registry.resolve("circle")
    with pytest.raises(RegistryError, match=r"kappahop_test_broken:X of kappahop_test_broken 1\.2 cannot be imported \(ZeroDiv"):
        registry.resolve("bent")


def test_a_name_that_stands_for_two_things_is_refused_when_it_is_used(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "a", "kappahop_test_twin", "circle = kappahop_test_twin:X", "X = 1")
    assert registry.names() == ["circle", "deep"]
    with pytest.raises(RegistryError, match=r"stands for math:pi of kappahop and kappahop_test_twin:X of"):
        registry.resolve("circle")


def test_a_program_adds_names_of_its_own(registry: Registry) -> None:
    registry.register("tau", "math:tau")
    registry.register("tau", "math:tau")
    assert registry.names() == ["circle", "deep", "tau"]
    assert registry.resolve("tau") == pytest.approx(6.28318, abs=1e-5)
    assert registry.origin("tau") == "module math"
    with pytest.raises(RegistryError, match="'tau': this name stands for math:tau of module math already"):
        registry.register("tau", "math:pi")
    with pytest.raises(RegistryError, match="got 'math'; expected where its code is, as 'module:attribute'"):
        registry.register("bare", "math")
