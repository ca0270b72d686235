import json
import subprocess
import sys
from pathlib import Path

import pytest

from minirlhf.errors import UserError
from minirlhf.files import read_csv, read_json, read_jsonl, write_jsonl
from stages import evaluate

ROOT = Path(__file__).parents[2]
PLOTS = ("rewards", "summary_lengths", "rouge", "measures", "gold_parts", "facts", "win_rates", "slices", "frontier")


def test_the_library_evaluate_is_not_taken_for_the_stage_of_that_name():
    """`python stages/evaluate.py` puts stages/ on the path, where `import evaluate` would find the stage itself."""
    code = "import runpy, sys\nsys.path[0] = 'stages'\nsys.argv = ['x', '--help']\n"
    code += "try: runpy.run_path('stages/evaluate.py', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "import evaluate; print(evaluate.Metric.__name__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).endswith("\nMetric\n")


def test_help_is_quick_and_imports_no_torch():
    code = "import sys, stages.evaluate as e\ntry: e.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    assert printed.startswith("usage:") and printed.endswith("False\n")


@pytest.mark.parametrize("records", [True, False])
def test_the_stage_writes_everything_it_declares(tiny_models, world_posts, make_settings, tmp_path, records):
    settings = make_settings()
    settings["ppo"] |= {"max_new_tokens": 4}
    settings["evaluate"] |= {"best_of_n": 1, "bootstrap": 20}
    (tmp_path / "params.yaml").write_text(json.dumps(settings))
    posts = [{key: post[key] for key in ("prompt", "completion") + ("record",) * records} for post in world_posts]
    write_jsonl(tmp_path / "posts" / "test.jsonl", posts)
    paths = {"params": "params.yaml", "posts": "posts", "metrics": "evaluate.json", "plots": "plots", "results": "out"}
    paths["snapshots"] = "none"  # of another run, where the tests run in a checkout that has them
    options = [part for name, path in paths.items() for part in (f"--{name}", str(tmp_path / path))]
    models = [part for name in ("sft", "ppo", "reward") for part in (f"--{name}", str(tiny_models / name))]
    evaluate.main([*options, *models])

    metrics = read_json(tmp_path / "evaluate.json")
    assert metrics["posts"] == 24 and metrics["win_rate"]["judge"] == ("gold" if records else "training reward")
    tables = {name: read_csv(tmp_path / "plots" / f"{name}.csv") for name in PLOTS}
    # 24 posts have no slice of ten; the tables of the truth need records.
    empty = {"slices"} if records else {"slices", "gold_parts", "facts"}
    assert {name for name, rows in tables.items() if not rows} == empty
    assert len(list((tmp_path / "plots").iterdir())) == len(PLOTS)
    assert len(read_jsonl(tmp_path / "out" / "summaries.jsonl")) == 24
    assert (tmp_path / "out" / "summaries.md").read_text().startswith("# Summaries")


def test_no_posts_is_one_clear_line(make_settings, tmp_path):
    (tmp_path / "params.yaml").write_text(json.dumps(make_settings()))
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(UserError, match="test.jsonl: no held-out posts"):
        evaluate.main(["--params", str(tmp_path / "params.yaml"), "--posts", str(tmp_path)])
