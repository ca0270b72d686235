"""`make docs`: one site of guides and API, which a browser reads from disk."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest

from tests.conftest import SOAK
from tests.pipelines import ROOT


@pytest.fixture(scope="module")
def build():
    """docs/build.py as a module."""
    pytest.importorskip("pdoc")
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_between_guides_lead_to_their_pages(build, tmp_path):
    found = build.pages(ROOT)
    assert found["docs/README.md"] == "guides.html" and found["docs/course/ppo.md"] == "guides/course/ppo.html"
    turn = lambda text, name: build.linked(text, name, found, ROOT, tmp_path)  # noqa: E731
    assert (
        turn("[a](ppo.md#logging) [b](#x) [c](https://x.y)", "docs/data.md")
        == "[a](ppo.html#logging) [b](#x) [c](https://x.y)"
    )
    assert turn("[a](../ppo.md)", "docs/course/ppo.md") == "[a](../ppo.html)"
    assert turn("[a](course/README.md)", "docs/README.md") == "[a](guides/course.html)"
    assert turn("![a](habits.png)", "docs/world.md") == "![a](../files/docs/habits.png)"
    assert (tmp_path / "files/docs/habits.png").exists()
    with pytest.raises(ValueError, match="leads nowhere: none.md"):
        turn("[a](none.md)", "docs/world.md")


@pytest.mark.skipif(not SOAK, reason="imports every module")
def test_the_site_is_built_without_a_warning_and_its_links_and_search_work_from_disk(build, tmp_path):
    code = "import sys, pathlib; sys.path[:0] = ['docs']; import build as b; b.build(b.ROOT, pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not re.search("(?i)warn|error", done.stderr), done.stderr
    for page in tmp_path.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#?:]+)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / link).exists(), (page, link)
    index = (tmp_path / "search.js").read_text()
    assert "generalized_advantages" in index and "minirlhf.ppo.advantages" in index and "guides.people" in index
    assert json.dumps(str(ROOT)).strip('"') not in index
