"""Make one site of the guides and the API, with a search, to open from disk: `make docs`, then site/index.html.

pdoc does it. It documents modules, so each guide becomes a module whose docstring is its text; links between guides are
turned into links between pages.
"""

import posixpath
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pdoc

ROOT = Path(__file__).resolve().parents[1]
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")  # of the repository, beside docs/
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]*)(#[^)\s]*)?\)")


def pages(root: Path) -> dict[str, str]:
    """From each guide's path in the repository to its page in the site."""
    found = {name: f"guides/{'start' if name == 'README.md' else Path(name).stem.lower()}.html" for name in TOP}
    for file in sorted((root / "docs").rglob("*.md")):
        name = file.relative_to(root).as_posix()
        page = name.replace("docs/", "guides/", 1).removesuffix("/README.md").removesuffix(".md")
        found[name] = f"{page}.html"
    return found


def linked(text: str, name: str, found: dict[str, str], root: Path, site: Path) -> str:
    """The guide's text with its links leading to pages; pictures are copied into the site.

    Raises:
        ValueError: a link leads nowhere.
    """
    here = posixpath.dirname(found[name])

    def turn(match: re.Match) -> str:
        before, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or not target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if not (root / path).exists():
            raise ValueError(f"{name}: a link leads nowhere: {target}")
        if path in found:
            place = found[path]
        else:  # a picture, or a file of the repository that has no page
            place = f"files/{path}"
            if (root / path).is_file():
                (site / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / path, site / place)
        return f"{before}{posixpath.relpath(place, here)}{anchor})"

    return LINK.sub(turn, text)


def build(root: Path, site: Path) -> None:
    """Write the site of a checkout into a folder."""
    found = pages(root)
    with tempfile.TemporaryDirectory() as folder:
        for name, page in found.items():
            module = Path(folder, page.removesuffix(".html"))
            is_package = any(other.startswith(f"{page.removesuffix('.html')}/") for other in found.values())
            file = module / "__init__.py" if is_package else module.with_suffix(".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            text = linked((root / name).read_text(encoding="utf-8"), name, found, root, site)
            file.write_text(f"__doc__ = {text!r}\n", encoding="utf-8")
        sys.path[:0] = [folder, str(root)]
        pdoc.render.configure(search=True)
        pdoc.pdoc("guides", "minirlhf", "!minirlhf.__main__", output_directory=site)


if __name__ == "__main__":
    build(ROOT, ROOT / "site")
