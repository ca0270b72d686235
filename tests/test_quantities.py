"""docs/quantities.md names every column that a training stage writes, and no other."""

import re

import pytest

from minirlhf.baselines import dpo, online
from minirlhf.runtime.files import read_csv
from tests.house import ROOT

PAGE = (ROOT / "docs" / "quantities.md").read_text()
CURVES = ("ppo", "sft", "reward")


def named() -> set[str]:
    """The quantities that have a row in one of the page's tables."""
    cells = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("curve", CURVES)
def test_every_column_of_the_curves_is_explained(curve):
    assert not set(read_csv(ROOT / "plots" / f"{curve}.csv")[0]) - named()


def test_so_are_the_baselines():
    assert not {*dpo.COLUMNS.values(), *online.COLUMNS.values(), "eval_entropy"} - named()


def test_nothing_is_explained_that_no_run_writes():
    written = {column for curve in CURVES for column in read_csv(ROOT / "plots" / f"{curve}.csv")[0]}
    assert not named() - written - {*dpo.COLUMNS.values(), *online.COLUMNS.values(), "eval_entropy"}


def test_links_and_the_picture_are_there():
    for place in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / place).exists(), place
