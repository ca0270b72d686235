"""The plan of the house: every line in a package, on floors, and what an edit makes run again."""

import pytest

from tests.house import FLOOR, LIBRARY, ROOT, architecture, files_of, imports, package_of
from tests.test_dvc_yaml import CODE, EARLIER

FILES = sorted(LIBRARY.rglob("*.py"))
MOST_LINES = 300


def test_every_package_has_a_floor_and_nothing_lies_flat():
    assert {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(FLOOR)
    assert {path.name for path in LIBRARY.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("package", FLOOR)
def test_a_package_imports_packages_of_lower_floors_only(package):
    for file in (file for file in FILES if package_of(file) == package):
        others = {package_of(found) for name in imports(file) for found in files_of(name)} - {package, None}
        assert not {other for other in others if FLOOR[other] >= FLOOR[package]}, file.relative_to(ROOT)


def test_a_file_fits_a_few_screens():
    assert not {str(file.relative_to(ROOT)) for file in FILES if len(file.read_text().splitlines()) > MOST_LINES}


def test_the_page_on_architecture_says_what_is():
    page, text = architecture()
    assert page.read_text() == text, "python -m tests.house"


@pytest.mark.parametrize(
    ("package", "stages"),
    [
        ("report", ["report"]),
        ("ppo", ["ppo"]),
        ("evaluation", ["evaluate", "report"]),
        ("sampling", ["collect", "ppo", "evaluate"]),
        ("commands", []),
    ],
)
def test_an_edit_runs_what_one_would_expect(package, stages):
    assert [name for name, code in CODE.items() if f"minirlhf/{package}" in code and name not in EARLIER] == stages
