"""What the README says of results is what the report says: `python -m tests.test_readme` copies it there."""

import re
from pathlib import Path

from tests.house import ROOT, made

README = ROOT / "README.md"
LARGEST = 10_000  # characters: who asks what this is reads it in minutes


def claim(tables: str) -> str:
    """Of results/tables.md the sentences of the verdict, and the table of best against best."""
    sentences = tables.split("\n\n")[1]
    table = re.search(r"## Best against best\n\n(\|.*?)(?:\n\n|\Z)", tables, re.DOTALL)
    assert table is not None
    return f"{sentences}\n\n{table[1].rstrip()}"


def written() -> str:
    """The README as it ought to be."""
    return made(README.read_text(), "claim", claim((ROOT / "results" / "tables.md").read_text()))


def test_the_readmes_claim_is_the_reports():
    assert README.read_text() == written(), "python -m tests.test_readme"


def test_the_readme_is_short_and_every_link_leads_somewhere():
    text = README.read_text()
    assert len(text) <= LARGEST
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text)
    assert links and not [link for link in links if "://" not in link and not Path(ROOT, link).exists()]


if __name__ == "__main__":
    README.write_text(written())
