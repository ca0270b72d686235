"""Tables in the docs are made from the files that benchmarks wrote: `python -m tests.test_tables` copies them there."""

from pathlib import Path

import pytest

from benchmarks import algorithms, lab, over_optimization, real_text_probes, real_text_table, rounds
from benchmarks.runs import rows_of
from minirlhf.runtime.files import read_csv
from tests.house import ROOT, made

# page, block -> what stands in it
BLOCKS = {
    ("docs/laboratory.md", "lab"): lambda: lab.table_of(rows_of(ROOT / "benchmarks/lab.csv")),
    ("docs/baselines.md", "algorithms"): lambda: algorithms.tables(rows_of(algorithms.TABLE)),
    ("docs/rounds.md", "rounds"): lambda: rounds.table(read_csv(ROOT / "benchmarks/rounds.csv")),
    ("docs/real_text.md", "runs"): lambda: real_text_table.tables(
        rows_of(real_text_table.RUNS), rows_of(real_text_table.POSTS)
    ),
    ("docs/real_text.md", "probes"): lambda: real_text_probes.tables(rows_of(real_text_probes.TABLE))[0],
    ("docs/evaluation.md", "over-optimization"): lambda: over_optimization.table_of(rows_of(over_optimization.TABLE)),
}


def written(page: str, block: str) -> str:
    """The page as it ought to be."""
    return made(Path(ROOT, page).read_text(encoding="utf-8"), block, BLOCKS[page, block]())


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_table_is_the_files(page, block):
    assert Path(ROOT, page).read_text(encoding="utf-8") == written(page, block), "python -m tests.test_tables"


if __name__ == "__main__":
    for page, block in BLOCKS:
        text = written(page, block)
        Path(ROOT, page).write_text(text, encoding="utf-8")
