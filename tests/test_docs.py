"""The README and docs/: every link leads somewhere; every command is run by a test, or marked with what it needs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from minirlhf.commands import bench, cli, examine, label
from minirlhf.settings.params import parse_params
from tests.house import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# How a command begins, and the test that runs it on small data.
RUN = {
    "make repro": "tests/test_first_minute.py",
    "make setup": "tests/test_first_minute.py",
    "make reproduce": "tests/commands/test_reproduce.py",
    "make docs": "tests/test_site.py",
    "dvc repro": "tests/test_pipeline.py",
    "dvc exp run": "tests/test_experiments.py",
    "dvc exp show": "tests/test_experiments.py",
    "dvc exp apply": "tests/test_experiments.py",
    "dvc exp branch": "tests/test_experiments.py",
    "dvc exp remove": "tests/test_experiments.py",
    "dvc exp push": "tests/test_experiments.py",
    "dvc metrics diff": "tests/test_experiments.py",
    "dvc params diff": "tests/test_experiments.py",
    "dvc plots": "tests/test_experiments.py",
    "dvc queue": "tests/test_experiments.py",
    "dvc gc": "tests/test_experiments.py",
    "dvc push": "tests/test_experiments.py",
    "dvc pull": "tests/test_experiments.py",
    "dvc remote": "tests/test_experiments.py",
    "git checkout --": "tests/test_experiments.py",
    "dvc checkout": "tests/test_experiments.py",
    "minirlhf profile": "tests/commands/test_profiles.py",
    "minirlhf plan": "tests/commands/test_plan.py",
    "minirlhf summarize": "tests/commands/test_summarize.py",
    "minirlhf seeds": "tests/commands/test_seeds.py",
    "minirlhf export": "tests/commands/test_export.py",
    "minirlhf push": "tests/hub/test_push.py",
    "minirlhf watch": "tests/commands/test_watch.py",
    "minirlhf examine": "tests/commands/test_examine.py",
    "minirlhf bench": "tests/commands/test_bench.py",
    "minirlhf label": "tests/labelling/test_session.py",
    "torchrun": "tests/runtime/test_launch.py",
    "pip install": "tests/test_wheel.py",
    "for stage in": "tests/test_pipeline.py",
}
# How a command begins that no test runs, and what it needs.
NEEDS = {
    "make test": "is what runs the tests",
    "make lint": "is part of make test",
    "make soak": "an hour",
    "python -m pytest": "is what runs the tests",
    "MINIRLHF_SOAK=1 python -m pytest": "an hour",
    "python -m venv trl112": "a package index",
    "lowest/bin/python": "an environment of its own",
    "uv": "uv and a package index",
    "git clone": "the repository's address",
    "python benchmarks/": "minutes to hours; its figures stand beside it",
    "OMP_NUM_THREADS=1 python benchmarks/": "hours; its figures stand beside it",
    "OMP_NUM_THREADS=2 python benchmarks/": "minutes; its figures stand beside it",
    "export HF_TOKEN": "an account of the hub",
    "mkdir -p models/own": "nothing",
    "cp -r": "a trained policy",
    "apt-get": "Debian",
}
KNOWN = RUN | NEEDS
FIRST = {known.split()[0] for known in KNOWN} | {"dvc", "minirlhf", "make", "python", "git", "pip"}


def commands(page: Path) -> list[str]:
    """The commands of a page: lines of its indented blocks that begin with a program, continued lines joined."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r" *\\\n\s*", " ", text)
    lines = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    found = [part for line in lines for part in re.split(r" && |(?<=diff); (?=dvc)", re.sub(r"\s+#\s.*", "", line))]
    return [command for command in found if command.split()[0] in FIRST and not command.startswith("python:")]


ALL = sorted({(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)})


def test_every_command_is_run_by_a_test_or_marked_with_its_needs():
    assert len(ALL) > 80
    assert not [(page, command) for page, command in ALL if not command.startswith(tuple(KNOWN))]
    assert not [known for known in KNOWN if not any(command.startswith(known) for _, command in ALL)]


@pytest.mark.parametrize("begin", RUN)
def test_the_named_test_knows_the_command(begin):
    words = re.sub(r"^(minirlhf|dvc|make) ", "", begin).split()
    text = (ROOT / RUN[begin]).read_text()
    assert all(word in text for word in words), f"{RUN[begin]} does not run {begin}"


def test_files_in_commands_exist():
    made = ("models/ppo", "models/sft", "models/reward", "models/own")  # by the pipeline, or by the reader
    named = re.compile(r"(?<![\w./])(?:tests|benchmarks|stages|models)/[\w./]+")
    paths = {(page, path) for page, command in ALL for path in named.findall(command)}
    assert paths and not [each for each in paths if not (ROOT / each[1]).exists() and not each[1].startswith(made)]


def test_settings_in_commands_are_settings():
    """Each value of each -S is one that the params take."""
    seen = 0
    for page, command in ALL:
        if not command.startswith("dvc exp run"):
            continue
        words = shlex.split(command)
        for name, value in [words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "-S"]:
            for each in value.split(",") if "--queue" in words else [value]:
                yaml = YAML(typ="safe", pure=True)
                params = yaml.load((ROOT / "params.yaml").read_text())
                *sections, key = name.split(".")
                section = params
                for part in sections:
                    section = section[part]
                assert key in section, (page, command)
                section[key] = yaml.load(each)
                if name != "trackers":  # whose packages are not here
                    parse_params(json.dumps(params), page)
                seen += 1
    assert seen > 15


def test_our_own_commands_parse(monkeypatch):
    ran = []
    for name in [name for name in vars(cli) if re.fullmatch(r"_[a-z]+", name) and callable(getattr(cli, name))]:
        monkeypatch.setattr(cli, name, ran.append)
    for module in (bench, examine, label):
        monkeypatch.setattr(module, "run", ran.append)
    ours = [(page, command) for page, command in ALL if command.startswith("minirlhf ")]
    for _, command in ours:
        cli.command(shlex.split(command)[1:])
    assert len(ran) == len(ours) > 20


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere():
    broken = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", text):
            file = page if not target else page.parent / target
            if "://" in target:
                continue
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                broken.append((page.name, target, anchor))
    assert not broken


def test_the_index_names_every_page():
    text = (ROOT / "docs" / "README.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md"]
    assert not [name for name in pages if name not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_file_that_is_named_by_its_folder_is_there_and_so_is_the_test_in_it(page):
    named = re.findall(r"`((?:[\w-]+/)+[\w-]+\.py|test_\w+\.py)(?:::(\w+))?", page.read_text())
    for name, function in named:
        found = [place for folder in (ROOT, ROOT / "minirlhf", ROOT / "tests") if (place := folder / name).exists()]
        assert found or name.startswith(("judges/", "path/to/")), f"{name}: no such file"
        if function and not function.endswith("_"):
            assert f"def {function}" in found[0].read_text(), f"{name}: no {function} in it"
