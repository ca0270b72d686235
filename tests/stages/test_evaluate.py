import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import real_text_table
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv, read_json, read_jsonl, write_csv, write_json, write_jsonl
from stages import evaluate
from tests.hub.chat_server import ChatServer, longer

ROOT = Path(__file__).parents[2]
PLOTS = ("rewards", "summary_lengths", "rouge", "measures", "gold_parts", "facts", "win_rates", "slices", "frontier")
PLOTS += ("temperatures",)


def test_the_library_evaluate_is_not_taken_for_the_stage_of_that_name():
    """`python stages/evaluate.py` puts stages/ on the path, where `import evaluate` would find the stage itself."""
    code = "import runpy, sys\nsys.path[0] = 'stages'\nsys.argv = ['x', '--help']\n"
    code += "try: runpy.run_path('stages/evaluate.py', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "import evaluate; print(evaluate.Metric.__name__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).endswith("\nMetric\n")


@pytest.fixture
def run_stage(tiny_models, world_posts, make_settings, tmp_path):
    """Run the stage on tiny models, with these settings of `evaluate`."""

    def run(records, **settings):
        whole = make_settings()
        whole["ppo"] |= {"max_new_tokens": 4}
        whole["evaluate"] |= {"best_of_n": 1, "bootstrap": 20, **settings}
        (tmp_path / "params.yaml").write_text(json.dumps(whole))
        posts = [{key: post[key] for key in ("prompt", "completion") + ("record",) * records} for post in world_posts]
        for split in ("test", "validation"):
            write_jsonl(tmp_path / "posts" / f"{split}.jsonl", posts)
        shutil.copytree(tiny_models / "ppo", tmp_path / "ppo", dirs_exist_ok=True)
        write_json(tmp_path / "ppo" / "ppo.json", {"episodes": 64})
        paths = {"params": "params.yaml", "posts": "posts", "ppo": "ppo", "metrics": "headline.json", "details": "out"}
        options = [part for name, path in paths.items() for part in (f"--{name}", str(tmp_path / path))]
        models = [part for name in ("sft", "reward") for part in (f"--{name}", str(tiny_models / name))]
        evaluate.main([*options, *models])

    return run


@pytest.mark.parametrize("records", [True, False])
def test_the_stage_writes_everything_it_declares(run_stage, tmp_path, records):
    run_stage(records)
    metrics = read_json(tmp_path / "out" / "evaluate.json")
    path = [row["point"] for row in read_csv(tmp_path / "out" / "frontier.csv") if row["method"] == "ppo"]
    assert path == [0, 64]  # not the episodes that the params plan
    score = "gold" if records else "reward"
    headline = {name: {score: metrics[name][score]} for name in ("sft", "ppo")}
    best = {name: {key: metrics["best"][name][key] for key in ("temperature", score)} for name in ("sft", "ppo")}
    headline |= {"kl": metrics["kl"], "best": best | {"win_rate": metrics["win_rate"]["ppo_vs_sft"]}}
    assert read_json(tmp_path / "headline.json") == headline
    assert metrics["posts"] == 24 and metrics["win_rate"]["judge"] == ("gold" if records else "training reward")
    tables = {name: read_csv(tmp_path / "out" / f"{name}.csv") for name in PLOTS}
    # 24 posts have no slice of ten; the tables of the truth need records.
    empty = {"slices"} if records else {"slices", "gold_parts", "facts"}
    assert {name for name, rows in tables.items() if not rows} == empty
    assert {path.stem for path in (tmp_path / "out").glob("*.csv")} == set(PLOTS)
    assert len(read_jsonl(tmp_path / "out" / "summaries.jsonl")) == 24
    assert (tmp_path / "out" / "summaries.md").read_text().startswith("# Summaries")


def test_a_language_model_judges_and_a_rerun_asks_nothing(run_stage, tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ChatServer(longer) as server:
        judge = {"kind": "endpoint", "name": "some/judge", "url": server.url, "max_posts": 10, "timeout": 20}
        run_stage(False, judge=judge)
        asked, first = len(server.requests), (tmp_path / "out" / "evaluate.json").read_bytes()
        assert 1 < asked <= 1 + 3 * 2 * 10
        run_stage(False, judge=judge)
        assert len(server.requests) == asked and (tmp_path / "out" / "evaluate.json").read_bytes() == first
        judge["name"] = "refuses"
        server.reply = lambda request: (404, {}, b'{"error": {"message": "no model refuses"}}')
        with pytest.raises(UserError, match=r"404 Not Found \(no model refuses\)"):
            run_stage(False, judge=judge)
        assert len(server.requests) == asked + 1  # known before anything was sampled
    rates = read_json(tmp_path / "out" / "evaluate.json")["win_rate"]
    assert (rates["judge"], rates["posts"], sum(rates["pairs"].values())) == ("some/judge", 10, 30)
    assert 0 <= rates["position_bias"]["flipped"]["value"] <= 1
    judged = {(row["decoding"], row["judge"]) for row in read_csv(tmp_path / "out" / "win_rates.csv")}
    decodings = {(decoding, "training reward") for decoding in ("best", "sampled", "greedy")}
    assert judged == {("best", "some/judge")} | decodings


def test_the_table_of_runs_on_real_text_says_what_the_stage_found(run_stage, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("def letters(prompts, responses): return [r.count('e') for r in responses]")
    run_stage(False, judge={"kind": "function", "name": f"{tmp_path}/mine.py:letters"})
    (tmp_path / "out").rename(tmp_path / "details")
    updates = [{name: at for name in real_text_table.CURVE_COLUMNS if name not in ("method", "seed")} for at in (1, 2)]
    write_csv(tmp_path / "details" / "ppo.csv", updates)  # the stage of PPO wrote it; plots/ is the report's
    for name in ("RUNS", "POSTS", "CURVES", "PATH", "PICTURE"):
        monkeypatch.setattr(real_text_table, name, tmp_path / f"{name}.png")
    real_text_table.main(["--add", str(tmp_path), "--minutes", "7"])
    runs, posts = (real_text_table.rows_of(tmp_path / f"{name}.png") for name in ("RUNS", "POSTS"))
    metrics = read_json(tmp_path / "details" / "evaluate.json")
    assert len(posts) == 24 and [row["system"] for row in runs] == ["author", "sft", "aligned"]
    shown = real_text_table.tables(runs, posts).splitlines()
    aligned = next(line for line in shown if line.startswith("| PPO")).split(" | ")
    assert aligned[2].startswith(f"{metrics['win_rate']['ppo_vs_sft']['value']:.0%} (")
    assert aligned[6:8] == [f"{metrics['best']['ppo']['reward']:.2f}", f"{metrics['kl']:.1f}"]
    judged = {
        row["decoding"]: f"{float(row['value']):.0%}"
        for row in real_text_table.rows_of(tmp_path / "details" / "win_rates.csv")
        if (row["system"], row["against"], row["lengths"]) == ("ppo", "sft", "as they are")
        and row["judge"] != "training reward"
    }
    columns = dict(zip(("best", "sampled", "greedy"), aligned[2:5], strict=True))
    assert judged == {decoding: column.split(" ")[0] for decoding, column in columns.items()}
    # Two equal runs say the same, and no more: the interval draws posts, of which there are as many.
    again = [row | {"seed": "2"} for row in posts]
    twice = real_text_table.tables(runs, [*posts, *again]).splitlines()
    assert next(line for line in twice if line.startswith("| PPO")).split(" | ")[2] == aligned[2]
    real_text_table.main([])
    assert (tmp_path / "PICTURE.png").stat().st_size > 0 and (tmp_path / "CURVES.png").read_text().count("ppo") == 2


def test_no_posts_is_one_clear_line(make_settings, tmp_path):
    (tmp_path / "params.yaml").write_text(json.dumps(make_settings()))
    (tmp_path / "test.jsonl").write_text("")
    with pytest.raises(UserError, match="test.jsonl: no rows"):
        evaluate.main(["--params", str(tmp_path / "params.yaml"), "--posts", str(tmp_path)])
