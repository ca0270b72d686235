"""The stages source and prepare, by their command lines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import GPT2Config

from minirlhf.runtime.files import read_csv, read_json, read_jsonl

ROOT = Path(__file__).parents[2]


def stage(name, folder, *arguments):
    command = [sys.executable, ROOT / "stages" / f"{name}.py", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path, settings, small_bpe):
    """A folder with params.yaml of the embedded world and a base model without weights."""
    small_bpe.save_pretrained(tmp_path / "models" / "base")
    GPT2Config(n_positions=1200).save_pretrained(tmp_path / "models" / "base")
    (tmp_path / "params.yaml").write_text(json.dumps(settings))
    return tmp_path


def change(project, **data):
    params = json.loads((project / "params.yaml").read_text())
    params["data"] |= data
    (project / "params.yaml").write_text(json.dumps(params))


def test_the_embedded_world_is_looked_at_and_prepared(project):
    change(project, max_prompt_tokens=900, max_response_tokens=300)
    assert stage("source", project).returncode == 0
    notes = {name: read_json(project / f"data/sources/{name}.json") for name in ("posts", "base", "reward")}
    assert notes["posts"] == {"kind": "embedded"}
    assert notes["base"]["kind"] == "folder"
    assert notes["reward"] == {"kind": "trained"}

    result = stage("prepare", project)
    assert (result.returncode, result.stderr) == (0, "")
    assert "posts/train: 60 kept, 0 of them cut; refused: none" in result.stdout
    metrics = read_json(project / "details/prepare.json")
    assert metrics["posts"]["test"]["kept"] == 20
    rows = read_jsonl(project / "data/prepared/comparisons/train.jsonl")
    assert len(rows) == 40
    assert set(rows[0]) == {"prompt", "chosen", "rejected", "record", "subreddit"}
    assert set(read_csv(project / "details/lengths.csv")[0]) == {"source", "column", "tokens", "share"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"max_posts": "many"}, "data.max_posts: expected an integer >= 1 or null, got 'many' (params.yaml)"),
        ({"posts": "own/posts/", "comparisons": "./none"}, "./none: no such folder"),
        ({"posts": "own/train.jsonl", "comparisons": "own"}, "own/train.jsonl: expected a folder, got a file"),
    ],
)
def test_what_is_wrong_with_a_source_is_one_line(project, data, message):
    (project / "own" / "posts").mkdir(parents=True)
    (project / "own" / "train.jsonl").touch()
    change(project, **data)
    result = stage("source", project)
    assert (result.returncode, result.stderr) == (1, f"error: {message}\n")
    assert not (project / "data").exists()


def test_what_is_wrong_with_a_file_is_one_line_and_nothing_is_half_written(project):
    (project / "own").mkdir()
    (project / "own" / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\nnonsense\n')
    (project / "own" / "validation.jsonl").touch()
    change(project, posts="own", comparisons="own")
    assert stage("source", project).returncode == 0
    result = stage("prepare", project)
    line = "error: own/train.jsonl, line 2: not JSON: Expecting value at line 1 column 1\n"
    assert (result.returncode, result.stderr) == (1, line)
    assert os.listdir(project / "data" / "prepared") == []
    assert not (project / "details").exists()


def test_lengths_that_the_base_model_has_no_positions_for(project):
    """Said before anything is prepared or trained; positions may come from model.random_weights."""
    params = json.loads((project / "params.yaml").read_text())
    params["model"]["random_weights"] = {"n_positions": 1024}
    params["data"]["max_prompt_tokens"] = 900
    params["ppo"]["max_new_tokens"] = 125
    (project / "params.yaml").write_text(json.dumps(params))
    assert stage("source", project).returncode == 0
    result = stage("prepare", project)
    line = "data.max_prompt_tokens (900) and ppo.max_new_tokens (125) together exceed the 1024 positions of models/base"
    assert (result.returncode, result.stderr) == (1, f"error: {line}\n")
    assert not (project / "data" / "prepared").exists()


def test_prepare_asks_for_the_notes(project):
    result = stage("prepare", project)
    assert (result.returncode, result.stderr) == (
        1, "error: data/sources/posts.json: cannot be read: No such file or directory\n"
    )  # fmt: skip


def test_looking_at_sources_and_helping_import_nothing_heavy(project):
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'datasets', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    for arguments in (["source"], ["source", "--help"], ["prepare", "--help"]):
        command = [sys.executable, "-c", code, str(ROOT / "stages" / f"{arguments[0]}.py"), *arguments[1:]]
        output = subprocess.check_output(command, cwd=project, text=True)
        assert output.splitlines()[-1] == "[]"
