"""How the code is laid out, read from its imports: which packages a file needs, directly or not."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "minirlhf"
# From the ground up: a package imports packages of lower floors only.
FLOORS = (
    ("runtime", "statistics"),
    ("settings", "text", "world"),
    ("hub",),
    ("data", "models"),
    ("sampling", "rewards", "training"),
    ("feedback", "reward_modeling", "ppo"),
    ("baselines", "evaluation"),
    ("report", "labelling"),
    ("commands",),
)
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}


@cache
def imports(file: Path) -> frozenset[str]:
    """Names of modules of this project that a file imports: inside functions too, and for type checkers."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return frozenset(name for name in names if name.split(".")[0] == "minirlhf")


def files_of(module: str) -> list[Path]:
    """The files that `import minirlhf.a.b` runs: of the packages on the way, and the module's own."""
    parts, files = module.split("."), []
    for end in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:end])
        files += [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()]
    return files


def package_of(file: Path) -> str | None:
    """The package that a file of the library is in; None for one of another folder, or the library's own top."""
    parts = file.relative_to(ROOT).parts
    return parts[1] if parts[0] == "minirlhf" and len(parts) > 2 else None


def needed_packages(script: Path) -> set[str]:
    """Packages of which a script runs something, directly or not."""
    seen, todo = set(), [script]
    while todo:
        new = {file for name in imports(todo.pop()) for file in files_of(name)} - seen
        seen |= new
        todo += new
    return {package for file in seen if (package := package_of(file)) is not None}


# docs/architecture.md, of which these parts are made from the code: `python -m tests.house` writes them.


def first_sentence(file: Path) -> str:
    """What a file's docstring says first."""
    words = " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split())
    return re.split(r"(?<!et al)\. |: `(?:from|python)", words)[0].rstrip(".")


def tree() -> str:
    """The packages from the ground up, each with its files and what they say of themselves."""
    lines = []
    for packages in FLOORS:
        for package in packages:
            folder = LIBRARY / package
            lines += ["", f"**`{package}/`** {first_sentence(folder / '__init__.py')}.", ""]
            files = sorted(file for file in folder.glob("*.py") if file.name != "__init__.py")
            lines += [f"- `{file.name}`: {first_sentence(file)}" for file in files]
    return "\n".join(lines).strip()


def edits(stages: dict[str, list[str]]) -> str:
    """For each package the stages that name it, of a mapping of stage -> names of code."""
    rows = ["| an edit in `minirlhf/` | runs these stages again |", "| --- | --- |"]
    for package in sorted(FLOOR, key=FLOOR.__getitem__):
        of = [stage for stage, names in stages.items() if f"minirlhf/{package}" in names]
        said = "all" if len(of) == len(stages) else ", ".join(of) or "none"
        rows.append(f"| `{package}` | {said} |")
    return "\n".join(rows)


def made(text: str, name: str, content: str) -> str:
    """The text with the part between `<!-- NAME -->` and `<!-- end -->` replaced."""
    begin = text.index(f"<!-- {name} -->\n") + len(f"<!-- {name} -->\n")
    return f"{text[:begin]}\n{content}\n\n{text[text.index('<!-- end -->', begin) :]}"


def architecture() -> tuple[Path, str]:
    """docs/architecture.md, and the text that it ought to have."""
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    page = ROOT / "docs" / "architecture.md"
    text = made(page.read_text(), "rooms", tree())
    return page, made(text, "edits", edits({name: stage["deps"] for name, stage in stages.items() if "deps" in stage}))


if __name__ == "__main__":
    page, text = architecture()
    page.write_text(text)
