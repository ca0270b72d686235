"""dvc.yaml declares what the stages really read: every module, every setting."""

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES = {name: ROOT / stage["cmd"].split()[1] for name, stage in PIPELINE["stages"].items()}


def module_files(name: str) -> list[Path]:
    """The files that `import minirlhf.a.b` runs: of the packages on the way, and the module's own."""
    files = []
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:end])
        files += [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()]
    return files


def imported_files(file: Path) -> set[Path]:
    """Files of this project that one file imports, inside functions too.

    Left out are imports for type checkers, and those inside the functions of an `__init__.py`: they load a name that
    the package offers when somebody asks for it.
    """
    tree = ast.parse(file.read_text())
    unread = set()
    for node in ast.walk(tree):
        lazy = isinstance(node, ast.FunctionDef) and file.name == "__init__.py"
        typing = isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
        if lazy or typing:
            unread.update(ast.walk(node))
    names = []
    for node in ast.walk(tree):
        if node in unread:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {path for name in names if name.split(".")[0] == "minirlhf" for path in module_files(name)}


def names_made_on_request(file: Path) -> set[str]:
    """`package.name` that a file imports from a package whose `__init__.py` neither defines nor imports the name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "minirlhf"):
            continue
        package = ROOT.joinpath(*node.module.split("."), "__init__.py")
        if package.exists():
            tree = ast.parse(package.read_text())
            known = {name.name for item in tree.body if isinstance(item, ast.ImportFrom) for name in item.names}
            known |= {item.name for item in tree.body if isinstance(item, (ast.FunctionDef, ast.ClassDef))}
            known |= {target.id for item in tree.body if isinstance(item, ast.Assign) for target in item.targets}
            modules = {path.stem for path in package.parent.iterdir()}
            found |= {f"{node.module}.{name.name}" for name in node.names if name.name not in known | modules}
    return found


def all_imports(script: Path) -> set[str]:
    """Files that a script imports, directly or not, relative to the root."""
    seen, todo = set(), [script]
    while todo:
        new = imported_files(todo.pop()) - seen
        seen |= new
        todo += new
    return {str(path.relative_to(ROOT)) for path in seen}


@pytest.mark.parametrize("name", STAGES)
def test_every_imported_module_is_a_dependency(name):
    script = STAGES[name]
    declared = {dep for dep in PIPELINE["stages"][name]["deps"] if dep.endswith(".py")}
    assert sorted(declared) == sorted({*all_imports(script), str(script.relative_to(ROOT))})


@pytest.mark.parametrize("name", STAGES)
def test_no_import_hides_a_module(name):
    """A name that `__init__.py` loads on request (PPOTrainer) hides its module: stages name the module itself."""
    files = [STAGES[name], *(ROOT / file for file in all_imports(STAGES[name]))]
    assert not set().union(*map(names_made_on_request, files))


def test_report_loads_no_torch():
    assert not any("ppo/trainer" in file or "generation" in file for file in all_imports(STAGES["report"]))


def test_ppo_settings_reach_ppo_and_what_follows_only():
    users = [name for name, stage in PIPELINE["stages"].items() if any(p.startswith("ppo") for p in stage["params"])]
    assert users == ["ppo", "evaluate", "report"]


def test_only_the_section_of_the_algorithm_that_is_used_decides():
    aligning = PIPELINE["stages"]["ppo"]["params"]
    assert "${algorithm}" in aligning and "ppo" not in aligning and "rloo" not in aligning
    assert not [p for p in PIPELINE["stages"]["evaluate"]["params"] if "episodes" in p]  # it reads how many there were


def test_plots_of_every_algorithm_are_called_after_none():
    named = [item for item in PIPELINE["plots"] if isinstance(item, dict)]
    shared = [(name, plot["title"]) for item in named for name, plot in item.items() if "plots/ppo.csv" in plot["y"]]
    assert shared and not [words for words in shared if "ppo" in " ".join(words).lower()]
