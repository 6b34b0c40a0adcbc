"""Figures for a paper: every panel of the page in three formats, fonts that stay, and tables that hold what is drawn."""

import csv
import re
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from coordinator.cli.app import app
from coordinator.records.run_sqlite import DATABASE
from coordinator.report.figures import FORMATS, escaped, write
from coordinator.report.page import document
from coordinator.report.panels import POINTS, courses, gathered, sections
from coordinator.study.comparison import compare
from scenarios.loading import ScenarioError

RecordRun = Callable[..., Path]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, recorded: RecordRun) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for kappa in (0, 1):
        for seed in (0, 1):
            folder = recorded(
                root / f"{kappa}-{seed}",
                f"kappa={kappa}",
                f"seed={seed}",
                returns=[None, 1.0 + seed, None, 5.0 + seed, None, 9.0 * kappa + seed, None, 20.0 * kappa + seed],
                round_bytes=[100 * kappa] * 4,
            )
            with closing(sqlite3.connect(folder / DATABASE)) as database:
                database.execute("UPDATE rounds SET wall_s = 2.0 + round")
                database.commit()
    return root


@pytest.fixture(scope="module")
def files(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {path.name: path for path in write([runs], tmp_path_factory.mktemp("out") / "figures")}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_panel_of_the_page_and_every_map_is_a_file_in_three_formats(runs: Path, files: dict[str, Path]) -> None:
    named = {name.rsplit(".", 1)[0] for name in files} - {"cells", "curves"}
    over = [f"{what}-over-{x}" for what in ("return", "cost") for x in ("steps", "bytes", "virtual", "wall")]
    maps = ["links-kappa-0", "links-kappa-1"]
    assert named == {"prices", *over, "kl-over-steps", "rate-over-steps", *maps}
    assert {f"{name}.{form}" for name in named for form in FORMATS} <= files.keys()
    assert document([runs]).count('class="chart"') == len(sections(gathered([runs])))
    assert document([runs]).count('class="map"') == len(maps)


def test_each_format_is_what_it_says_and_text_is_text(files: dict[str, Path]) -> None:
    for name, path in files.items():
        content = path.read_bytes()
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG\r\n")
        if name.endswith(".svg"):
            assert "environment steps" in ElementTree.fromstring(content).itertext() or "over-steps" not in name
            assert b"<dc:date>" not in content
    words = " ".join(ElementTree.parse(files["return-over-bytes.svg"]).getroot().itertext())
    assert {"κ=0", "κ=1", "wire bytes between agents", "return of an episode"} <= set(map(str.strip, words.split("\n")))


def test_a_pdf_holds_its_font_as_truetype(files: dict[str, Path]) -> None:
    for name in ("return-over-steps.pdf", "prices.pdf", "links-kappa-1.pdf"):
        content = files[name].read_bytes()
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        assert b"/FontFile2" in content, "the font is embedded, as TrueType"
        assert b"/Type3" not in content
        assert re.search(rb"/BaseFont /\S*DejaVuSans", content)
        (start,) = re.findall(rb"startxref\s+(\d+)", content)
        assert content[int(start) :].startswith(b"xref"), "a reader finds the table of objects"
        streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
        assert any(b" Tf" in zlib.decompress(one) for one in streams if one[:1] == b"\x78"), "text is set as text"


def test_the_same_runs_give_the_same_files(runs: Path, files: dict[str, Path], tmp_path: Path) -> None:
    for path in write([runs], tmp_path / "again"):
        assert path.read_bytes() == files[path.name].read_bytes(), path.name


def test_the_tables_hold_what_is_drawn_and_what_is_compared(runs: Path, files: dict[str, Path]) -> None:
    found = compare([runs])
    for row, told in zip(found.rows, rows(files["cells.csv"]), strict=True):
        assert (told["cell"], int(told["seeds"])) == (row.cell.name, 2)
        interval = (float(told[name]) for name in ("return_iqm", "return_low", "return_high"))
        assert tuple(interval) == pytest.approx((row.iqm, *row.interval))
    material = gathered([runs])
    assert material.found is not None
    (panel,) = next(courses(material.found, material.styles)).panels
    table = pyarrow.parquet.read_table(files["curves.parquet"]).to_pylist()
    for line in panel.over["steps"]:  # type: ignore[union-attr]
        own = [one for one in table if (one["figure"], one["against"], one["name"]) == ("return", "steps", line.name)]
        for name, values in (("x", line.x), ("y", line.y), ("low", line.low), ("high", line.high)):
            np.testing.assert_array_equal(np.array([one[name] for one in own], dtype=np.float64), values)
    assert len(rows(files["curves.csv"])) == len(table)


def test_curves_over_bytes_and_seconds_end_where_the_runs_did(runs: Path) -> None:
    material = gathered([runs])
    assert material.found is not None
    (panel,) = next(courses(material.found, material.styles)).panels
    ends = {x: [float(line.x[-1]) for line in lines] for x, lines in panel.over.items()}  # type: ignore[union-attr]
    assert ends == {"steps": [40.0, 40.0], "bytes": [0.0, 400.0], "virtual": [10.0, 10.0], "wall": [5.0, 5.0]}
    for lines in panel.over.values():  # type: ignore[union-attr]
        assert [float(line.y[-1]) for line in lines] == [0.5, 20.5]
        assert all(len(line.x) <= POINTS for line in lines)


def test_what_was_never_sent_is_nothing_to_draw_against(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "run", "kappa=0", returns=[1.0] * 8)
    written = [path.name for path in write([tmp_path / "run"], tmp_path / "out")]
    assert "return-over-virtual.pdf" in written
    assert not [name for name in written if "over-bytes" in name or "prices" in name]


def test_the_table_for_latex_says_what_the_others_say(files: dict[str, Path]) -> None:
    text = files["cells.tex"].read_text(encoding="utf-8")
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}\n") == 1
    lines = [line for line in text.splitlines() if line.endswith(r" \\")]
    columns = re.findall(r"tabular}{(\w+)}", text)[0]
    assert all(line.count(" & ") == len(columns) - 1 for line in lines)
    assert lines[2].startswith("kappa=1 & 2 & 20.5 & [")


def test_what_latex_would_take_for_its_own_stands_for_itself() -> None:
    assert escaped("a_b=50 % & #1 {κ=-1} [-2.0, 3e-05] \\") == (
        r"a\_b=50 \% \& \#1 \{$\kappa$=$-$1\} [$-$2.0, 3e-05] \textbackslash{}"
    )


def test_hostile_names_stay_text_and_stay_in_the_folder(tmp_path: Path, record_run: RecordRun) -> None:
    for place, label in enumerate(("../../$x^2$ <b>", "..$x^2$ <b>")):
        record_run(tmp_path / "runs" / str(place), f"label={label}", f"algorithm.hidden=[{place + 4}]", returns=[1.0] * 8)
    out = tmp_path / "out"
    written = write([tmp_path / "runs"], out)
    assert {path.resolve().parent for path in written} == {out.resolve()}
    assert sorted(path.name for path in out.iterdir()) == sorted({path.name for path in written}), "no two of one name"
    assert any("../../$x^2$ <b>" in " ".join(ElementTree.parse(path).getroot().itertext()) for path in out.glob("return-*.svg"))


def test_the_page_about_figures_names_every_file(files: dict[str, Path]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "paper-figures.md").read_text(encoding="utf-8")
    for name in files:
        if name.startswith(("cells", "curves")):
            assert f"`{name}`" in page
        else:
            assert re.search(rf"`{re.match('[a-z0-9-]+?(?=-over|-kappa|[.])', name)[0]}[-`]", page), name  # type: ignore[index]


def test_the_verb_writes_into_the_first_folder_and_says_what(tmp_path: Path, record_run: RecordRun) -> None:
    folder = record_run(tmp_path / "run", returns=[1.0] * 8)
    done = CliRunner().invoke(app, ["figures", str(folder)])
    assert done.exit_code == 0, done.output
    assert sorted(done.stdout.split()) == sorted(map(str, (folder / "figures").iterdir()))
    refused = CliRunner().invoke(app, ["figures", str(tmp_path / "nothing")])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "no run in" in refused.stderr


def test_without_an_episode_there_is_nothing_to_draw(tmp_path: Path, record_run: RecordRun) -> None:
    record_run(tmp_path / "run", returns=[], ended=False)
    with pytest.raises(ScenarioError, match="no episode has ended"):
        write([tmp_path / "run"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").touch()
    record_run(tmp_path / "other", returns=[1.0] * 8)
    with pytest.raises(ScenarioError, match="--out: cannot write"):
        write([tmp_path / "other"], tmp_path / "file")
