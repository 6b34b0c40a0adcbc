"""The house stays as small as it is: folders, classes, lines and table cells have an upper limit."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("coordinator", "node", "envs", "topology", "scenarios")
MODULES = [path for room in (*ROOMS, "kappahop", "benchmarks", "examples") for path in sorted((ROOT / room).rglob("*.py"))]
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
CLASS_LINES, FOLDER_MODULES, LINE, CELL = 350, 14, 160, 250


def prose(page: Path) -> list[str]:
    """The lines of a page that are not code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE).splitlines()


def cells(row: str) -> list[str]:
    """What stands in the columns of a row of a table."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]


def test_no_folder_of_a_room_has_more_modules_than_can_be_seen_at_once() -> None:
    rooms = [path for path in MODULES if path.relative_to(ROOT).parts[0] in ROOMS]
    count = Counter(path.parent for path in rooms if path.stem not in ("__init__", "__main__"))
    assert max(count.values()) > 5
    assert {str(folder): number for folder, number in count.items() if number > FOLDER_MODULES} == {}


def test_no_class_is_longer_than_can_be_read_at_once() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}: {found.name}": (found.end_lineno or 0) - found.lineno + 1
        for path in MODULES
        for found in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(found, ast.ClassDef)
    }
    assert max(lengths.values()) > 100
    assert {name: length for name, length in lengths.items() if length >= CLASS_LINES} == {}


def test_no_cell_of_a_table_is_longer_than_a_few_lines() -> None:
    rows = [(page.name, row) for page in PAGES for row in prose(page) if row.startswith("|")]
    assert len(rows) > 300
    assert [(name, cell) for name, row in rows for cell in cells(row) if len(cell) > CELL] == []


def test_lines_end_where_a_diff_can_show_what_changed() -> None:
    lines = [(page.name, line) for page in PAGES for line in prose(page) if not line.startswith("|") and "](" not in line]
    assert len(lines) > 1000
    assert [(name, line) for name, line in lines if len(line) > LINE] == []
