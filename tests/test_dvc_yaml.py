"""dvc.yaml declares what the stages really read: every package, every setting."""

import pytest
from ruamel.yaml import YAML

from tests.house import ROOT, needed_packages

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
NAMED = {name: stage.get("do", stage) for name, stage in PIPELINE["stages"].items()}
STAGES = {name: ROOT / stage["cmd"].split()[1] for name, stage in NAMED.items()}
EARLIER = {"earlier_reward": "reward", "earlier_ppo": "ppo", "feedback": "collect"}  # of a round -> of the last


CODE = {name: [dep for dep in stage["deps"] if dep.startswith(("minirlhf/", "stages/"))]
        for name, stage in NAMED.items()}  # fmt: skip
MOST_CODE = 12  # names of code a stage, its script included
MOST_LINES = 440
MOST_LINES_OF_A_STAGE = 50


@pytest.mark.parametrize("name", STAGES)
def test_every_imported_package_is_a_dependency_and_no_other(name):
    script = STAGES[name]
    needed = {f"minirlhf/{package}" for package in needed_packages(script)}
    assert sorted(CODE[name]) == sorted({*needed, str(script.relative_to(ROOT))})


def test_a_reader_sees_the_inputs():
    assert max(map(len, CODE.values())) <= MOST_CODE
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= MOST_LINES
    assert max(len(stage.splitlines()) for stage in text.split("\n\n")) <= MOST_LINES_OF_A_STAGE


def test_an_earlier_round_runs_what_the_last_runs_with_its_settings_and_never_reads_it():
    assert {name for name, stage in PIPELINE["stages"].items() if "foreach" in stage} == EARLIER.keys()
    for name, last in EARLIER.items():
        assert (STAGES[name], CODE[name], NAMED[name]["params"]) == (STAGES[last], CODE[last], NAMED[last]["params"])
        assert not {"models/reward", "models/ppo", "data/feedback", "details"} & set(NAMED[name]["deps"])
        assert "feedback" not in " ".join(NAMED[name]["params"])  # one more round runs no other again


def test_only_the_ground_and_the_settings_are_named_by_every_stage():
    assert set.intersection(*map(set, CODE.values())) == {"minirlhf/runtime", "minirlhf/settings"}


def test_report_loads_no_torch():
    assert not needed_packages(STAGES["report"]) & {"ppo", "models", "sampling", "training"}


def test_ppo_settings_reach_ppo_and_what_follows_only():
    users = [name for name, stage in NAMED.items() if any(p.startswith("ppo") for p in stage["params"])]
    assert users == ["ppo", "earlier_ppo", "evaluate", "report"]


def test_only_the_section_of_the_algorithm_that_is_used_decides():
    aligning = PIPELINE["stages"]["ppo"]["params"]
    assert "${algorithm}" in aligning and "ppo" not in aligning and "rloo" not in aligning
    assert not [p for p in PIPELINE["stages"]["evaluate"]["params"] if "episodes" in p]  # it reads how many there were


def test_plots_of_every_algorithm_are_called_after_none():
    named = [item for item in PIPELINE["plots"] if isinstance(item, dict)]
    shared = [(name, plot["title"]) for item in named for name, plot in item.items() if "details/ppo.csv" in plot["y"]]
    assert shared and not [words for words in shared if "ppo" in " ".join(words).lower()]
