"""What an installation weighs, by who needs it: the library, the pipeline, the tests, a judge behind an endpoint.

    python benchmarks/installation.py

Packages are followed from pyproject.toml through what they require here. A package that two need counts for the first.
"""

import importlib.metadata as metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 4  # packages that are named


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"the library": project["dependencies"]} | project["optional-dependencies"]
    seen: set[str] = set()
    print("| for | packages | MB | the largest |\n| --- | ---: | ---: | --- |")
    for group, lines in groups.items():
        mine = closure(lines) - seen
        seen |= mine
        sizes = {name: size(name) for name in mine}
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]
        named = ", ".join(f"{name} {sizes[name] / 1e6:.0f}" for name in largest)
        print(f"| {group} | {len(mine)} | {sum(sizes.values()) / 1e6:.0f} | {named} |")
    others = {normal(found.metadata["Name"]) for found in metadata.distributions()} - seen
    print(f"| nothing of it | {len(others)} | {sum(map(size, others)) / 1e6:.0f} | {', '.join(sorted(others))} |")


def normal(name: str) -> str:
    """A package's name as the index compares names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(lines: list[str]) -> set[str]:
    """The packages that requirements come to, as far as they are installed."""
    found: set[str] = set()
    todo = [(Requirement(line), "") for line in lines]
    while todo:
        requirement, extra = todo.pop()
        name = normal(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for extra in ("", *requirement.extras):
            if name not in found or extra:
                todo += [(Requirement(line), extra) for line in needs]
        found.add(name)
    return found


def size(name: str) -> int:
    """Bytes of an installed package's files."""
    files = metadata.files(name) or []
    return sum(place.stat().st_size for file in files if (place := Path(file.locate())).is_file())


if __name__ == "__main__":
    main()
