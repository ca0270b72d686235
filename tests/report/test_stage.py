import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minirlhf.report import figures
from minirlhf.runtime.errors import UserError
from stages import report

ROOT = Path(__file__).parents[2]


def options(folder):
    return [
        part
        for name, path in {
            "params": "params.yaml",
            "details": "details",
            "seeds": "metrics/seeds.csv",
            "plots": "plots",
            "results": "results",
            "sources": "data/sources",
            "cards": "models",
        }.items()
        for part in (f"--{name}", str(folder / path))
    ]


def test_the_stage_imports_no_torch(embedded):
    code = "import sys\nfrom stages import report\nimport minirlhf.report.page\nimport minirlhf.report.cards\n"
    code += "print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "False\n"


def test_the_stage_writes_pictures_tables_and_page(real, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", {"rouge": ("rouge",)})
    folder = shutil.copytree(real, tmp_path / "copy")
    (folder / "plots" / "images").mkdir(parents=True)
    (folder / "plots" / "images" / "old.png").write_bytes(b"")
    report.main(options(folder))
    assert [path.name for path in (folder / "plots" / "images").iterdir()] == ["rouge.png"]
    assert (folder / "results" / "tables.md").read_text().startswith("# Results in tables")
    assert "this shows optimization, not quality" in (folder / "results" / "report.html").read_text()
    kept = [*(folder / "plots").glob("*.csv"), *(folder / "results").rglob("*.json*")]
    assert {path.name for path in kept} == {path.name for path in (folder / "details").iterdir()} - {"summaries.md"}
    assert (folder / "results" / "summaries.md").read_text().startswith("# Summaries")
    cards = {path.name: path.read_text() for path in (folder / "models").iterdir()}
    assert set(cards) == {"sft.md", "reward.md", "ppo.md"}
    assert all(card.startswith("---\nlicense:") for card in cards.values())


def test_nothing_is_written_when_something_is_missing(embedded, tmp_path):
    folder = shutil.copytree(embedded, tmp_path / "copy")
    (folder / "details" / "ppo.json").unlink()
    with pytest.raises(UserError, match="ppo.json: cannot be read"):
        report.main(options(folder))
    assert not (folder / "plots" / "images").exists() and not (folder / "results" / "report.html").exists()
