"""The stages that train, by hand: python stages/sft.py, reward.py, ppo.py with explicit inputs and outputs."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minirlhf.report.inputs import COLUMNS, read_table
from minirlhf.runtime import trackers
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv, read_json, read_jsonl, write_json, write_jsonl
from minirlhf.settings.params import parse_params
from minirlhf.training import live
from minirlhf.world import comparisons, posts
from stages import collect, evaluate, ppo, reward, sft, source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prepared(tmp_path, make_settings, tiny_models, monkeypatch):
    """A folder with prepared posts and comparisons, small params, and the sources' notes; the current folder."""
    settings = make_settings()
    settings["model"]["base"] = str(tiny_models / "sft")
    settings["data"] |= {"max_prompt_tokens": 512, "max_response_tokens": 8}
    for stage in ("sft", "reward"):
        settings[stage] |= {"steps": 2, "log_every": 1, "eval_every": 1}
    settings["ppo"] |= {"episodes": 16, "batch_size": 8, "max_new_tokens": 4, "eval_every": 1, "snapshot_every": 1}
    for split in ("train", "validation", "test"):
        write_jsonl(tmp_path / f"data/prepared/posts/{split}.jsonl", posts(1, split, 8))
        write_jsonl(tmp_path / f"data/prepared/comparisons/{split}.jsonl", comparisons(1, split, 8))
    write_json(tmp_path / "data/sources/base.json", {"kind": "folder"})
    write_json(tmp_path / "data/sources/reward.json", {"kind": "trained"})
    write_json(tmp_path / "params.yaml", settings)  # JSON is YAML
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def change(folder: Path, section: str, **values) -> None:
    settings = json.loads((folder / "params.yaml").read_text())
    settings[section] |= values
    write_json(folder / "params.yaml", settings)


def test_sft(prepared):
    sft.main([])
    assert [row["step"] for row in read_csv("details/sft.csv")] == [1, 2]
    assert read_json("details/sft.json").keys() == {"sft_train_loss", "sft_eval_loss"}
    assert read_json("metrics/sft.json") == {"sft_loss": read_json("details/sft.json")["sft_eval_loss"]}
    assert (prepared / "models/sft/model.safetensors").exists()


def test_random_weights_follow_the_seed_and_the_changes(prepared):
    change(prepared, "model", random_weights={"n_layer": 2})
    sft.main([])
    assert read_json("models/sft/config.json")["n_layer"] == 2
    change(prepared, "model", random_weights={"layers": 2})
    with pytest.raises(UserError, match="model.random_weights.layers: not a setting of gpt2"):
        sft.main([])


def test_a_post_that_the_model_has_no_positions_for_is_refused_before_training(prepared):
    change(prepared, "data", max_prompt_tokens=1020)
    with pytest.raises(UserError, match="1024"):
        sft.main([])


def test_reward_trained_on_collected_comparisons(prepared, tiny_models):
    change(prepared, "collect", candidates=2, posts=3)
    collect.main(["--policy", str(tiny_models / "sft")])
    reward.main(["--sft", str(tiny_models / "sft")])
    collected = read_jsonl("data/collected/train.jsonl")
    assert {row["prompt"] for row in collected} == {
        row["prompt"] for row in read_jsonl("data/prepared/posts/train.jsonl")[:3]
    }
    assert collected[0].keys() == {"prompt", "chosen", "rejected", "chosen_ended", "rejected_ended", "record"}
    metrics = read_json("details/reward.json")
    assert {"reward_accuracy", "reward_accuracy_given", "reward_accuracy_collected"} <= metrics.keys()
    interval = metrics["reward_intervals"]["accuracy"]
    assert interval["value"] == pytest.approx(metrics["reward_accuracy"])
    assert interval["low"] <= interval["value"] <= interval["high"]
    assert metrics["reward_gold"].keys() == {"model", "annotators", "spearman"}
    assert metrics["reward_length"].keys() == {"pearson", "spearman", "longer_by_model", "longer_by_annotators"}
    assert {row["count"] for row in read_csv("details/reward_probes.csv")} <= {7, 8}
    assert {row["who"] for row in read_csv("details/gold_margins.csv")} == {"model", "annotators"}
    counts = [row["count"] for row in read_csv("details/reward_margins.csv")]
    assert sum(counts) == sum(row["count"] for row in read_csv("details/calibration.csv")) / 2
    assert read_json("models/reward/reward.json")["mean"] != 0


def test_a_round_compares_other_posts_and_keeps_what_was_before(prepared, tiny_models):
    change(prepared, "collect", candidates=2, posts=3)
    collect.main(["--policy", str(tiny_models / "sft")])
    first = read_jsonl("data/collected/train.jsonl")
    for number, before in ((0, "data/collected"), (1, "data/feedback/0"), (2, "data/feedback/1")):
        folder = f"data/feedback/{number}"
        collect.main(
            ["--policy", str(tiny_models / "ppo"), "--round", str(number), "--before", before, "--output", folder]
        )
    rows = read_jsonl("data/feedback/2/train.jsonl")
    assert rows[: len(first)] == first
    prompts = [row["prompt"] for row in read_jsonl("data/prepared/posts/train.jsonl")]
    candidates = [read_jsonl(f"data/feedback/{number}/candidates.jsonl") for number in range(3)]
    of_train = [[prompts.index(row["prompt"]) for row in of if row["split"] == "train"] for of in candidates]
    assert of_train == [[3, 4, 5], [6, 7, 0], [1, 2, 3]]  # of 8
    held_out = [[row for row in of if row["split"] == "test"] for of in candidates]
    assert [row["prompt"] for row in held_out[0]] == [row["prompt"] for row in held_out[1]]
    assert held_out[0][0]["summaries"][:2] != held_out[1][0]["summaries"][:2]  # random streams of its own

    reward.main(["--sft", str(tiny_models / "sft")])  # on all rounds
    newest = Path("models/reward/model.safetensors").read_bytes()
    reward.main(["--sft", str(tiny_models / "sft"), "--collected", "data/feedback/1"])
    assert Path("models/reward/model.safetensors").read_bytes() != newest
    (prepared / "data/feedback/notes-3").mkdir()
    source.main([])
    assert [path.name for path in (prepared / "data/feedback").iterdir()] == ["notes-3"]  # the params name no round


def test_no_truth_no_probes_and_no_gold(prepared, tiny_models):
    for path in (prepared / "data/prepared").rglob("*.jsonl"):
        write_jsonl(path, [{key: row[key] for key in row if key != "record"} for row in read_jsonl(path)])
    change(prepared, "reward", pretrained=str(tiny_models / "reward"))
    reward.main(["--sft", str(tiny_models / "sft")])
    assert read_csv("details/reward_probes.csv") == read_csv("details/gold_margins.csv") == []
    assert "reward_gold" not in read_json("details/reward.json")
    assert read_csv("details/reward_margins.csv")


def test_reward_models_references_score_0_on_average(prepared, tiny_models):
    from minirlhf.reward_modeling.quality import mean_score
    from minirlhf.rewards.model import RewardModel

    reward.main(["--sft", str(tiny_models / "sft")])
    scores = RewardModel.load("models/reward")
    assert abs(mean_score(scores, read_jsonl("data/prepared/posts/train.jsonl"))) < 1e-5


def test_a_separate_critic_begins_as_the_reward_model_trained_here(prepared, tiny_models):
    change(prepared, "ppo", critic="separate")
    reward.main(["--sft", str(tiny_models / "sft")])
    ppo.main(["--sft", str(tiny_models / "sft")])
    # Its first values are the reward model's scores, not the zeros of a new value head.
    assert read_csv("details/ppo.csv")[1]["explained_variance"] != 0


def test_a_pretrained_reward_model_is_named_not_copied_and_serves_ppo(prepared, tiny_models):
    change(prepared, "reward", pretrained=str(tiny_models / "reward"))
    reward.main(["--sft", str(tiny_models / "sft")])
    assert [path.name for path in (prepared / "models/reward").iterdir()] == ["reward.json"]
    note = read_json("models/reward/reward.json")
    assert note.keys() == {"model", "revision", "format", "mean"} and note["model"] == str(tiny_models / "reward")
    assert read_csv("details/reward_probes.csv")  # it was not trained here, but the truth of the posts is known

    ppo.main(["--sft", str(tiny_models / "sft")])
    assert [row["update"] for row in read_csv("details/ppo.csv")] == [0, 1, 2]
    assert len(list((prepared / "models/ppo/snapshots").iterdir())) == 2
    ends = read_json("details/ppo.json")
    assert (ends["stopped"], ends["episodes"], ends["alarm"]) == (None, 16, None)
    assert read_json("metrics/ppo.json") == {"ppo_alarm_update": None}
    assert {path.suffix for path in (prepared / "models/ppo").glob("*.*")} == {".safetensors", ".json"}
    assert list((prepared / ".resume/ppo").iterdir()) == []


def test_a_reward_model_from_an_encoder_with_its_own_tokenizer_goes_through_all_stages(
    prepared, tiny_models, tiny_encoders
):
    from minirlhf.hub.configs import read_tokenizer
    from minirlhf.ppo.build import build_models
    from minirlhf.rewards.model import RewardModel

    change(prepared, "reward", base=str(tiny_encoders / "bert"), format=None)
    change(prepared, "collect", candidates=2, posts=3)
    change(prepared, "ppo", critic="separate")
    change(prepared, "evaluate", best_of_n=1, bootstrap=20)
    source.main([])
    note = read_json("data/sources/reward.json")
    assert (note["kind"], note["name"]) == ("folder", str(tiny_encoders / "bert"))
    sft.main([])
    collect.main([])
    reward.main([])
    assert [row["step"] for row in read_csv("details/reward.csv")] == [1, 2]
    assert {"reward_train_loss", "reward_accuracy_collected"} <= read_json("details/reward.json").keys()
    note = read_json("models/reward/reward.json")
    assert note.keys() == {"format", "mean"} and note["format"] == "pair"
    scores = RewardModel.load("models/reward")
    assert scores.tokenizer.get_vocab() == read_tokenizer(tiny_encoders / "bert").get_vocab()
    before, after = load_file(tiny_encoders / "bert/model.safetensors"), load_file("models/reward/model.safetensors")
    layer = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(before[layer], after[f"bert.{layer}"])

    ppo.main([])  # its critic cannot begin as the reward model
    assert [row["update"] for row in read_csv("details/ppo.csv")] == [0, 1, 2]
    assert read_csv("details/ppo.csv")[1]["explained_variance"] == pytest.approx(0, abs=1e-6)  # all values are 0
    evaluate.main([])
    assert math.isfinite(read_json("details/evaluate.json")["kl"])
    policy = tiny_models / "sft"
    config = parse_params(Path("params.yaml").read_text(), "params.yaml").ppo
    with pytest.raises(UserError, match="critic_init: the tokenizer of models/reward is not the policy's"):
        build_models(config, policy, read_tokenizer(policy), None, "models/reward", torch.device("cpu"), "fp32", 1)


def test_a_stage_can_be_watched_while_it_trains_and_ends_with_the_same_bytes(prepared, tiny_models, monkeypatch):
    written = {"sft": [], "ppo": []}

    def outputs(stage):
        return [(prepared / name).read_bytes() for name in (f"details/{stage}.csv", f"details/{stage}.json")]

    for interval in (1e9, 0.0):  # once, at the first row; at every row
        monkeypatch.setattr(live, "INTERVAL", interval)
        monkeypatch.setattr(live, "write_csv", lambda path, rows: written[path.stem].append(len(rows)))
        sft.main([])
        ppo.main(["--sft", "models/sft", "--reward", str(tiny_models / "reward")])
        if interval:
            assert written == {"sft": [1], "ppo": [1]}
            first = outputs("sft"), outputs("ppo")
    # SFT logs a step's training loss first and its validation loss after it, both in one row.
    assert written == {"sft": [1, 1, 1, 2, 2], "ppo": [1, 1, 2, 3]}
    assert (outputs("sft"), outputs("ppo")) == first


def test_trackers_get_curves_and_tables_of_every_stage_and_change_no_byte(prepared, monkeypatch):
    told = set()

    class Tracker:
        def __init__(self, run, settings, where):
            assert settings["ppo.kl_coef"] == 0.05 and where == prepared / "runs"

        def log(self, figures, step):
            told.update((name, step) for name in figures)

        def table(self, name, rows, step):
            told.add((name, step, *rows[0]))

        def finish(self):
            told.add("finished")

    def outputs():
        for stage in (sft, collect, reward, ppo):
            stage.main([])
        files = [path for name in ("models", "details", "data") for path in (prepared / name).rglob("*.*")]
        return {path: path.read_bytes() for path in files if path.is_file()}

    change(prepared, "collect", candidates=2, posts=3)
    before = outputs()
    write_json("params.yaml", read_json("params.yaml") | {"trackers": ["tensorboard"]})
    monkeypatch.setitem(trackers.KINDS, "tensorboard", Tracker)
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    assert outputs() == before
    assert told >= {
        "finished",
        ("sft/train_loss", 1),
        ("sft/eval_loss", 2),
        ("collect/candidates", 0, "prompt", "author", "policy 1", "policy 2"),
        ("reward/eval_accuracy", 2),
        ("reward/comparisons", 0, "prompt", "chosen", "rejected", "reward_chosen", "reward_rejected"),
        ("ppo/reward", 1),
        ("ppo/eval_kl", 2),
        ("ppo/samples", 1, "update", "prompt", "response", "reward", "ended"),
    }


def test_a_seed_of_ppo_alone_is_as_good_as_the_seed_to_it(prepared, tiny_models):
    models = ["--sft", str(tiny_models / "sft"), "--reward", str(tiny_models / "reward")]
    ppo.main(models)
    first = read_csv("details/ppo.csv")
    settings = read_json("params.yaml")
    write_json("params.yaml", settings | {"ppo_seed": 5})
    ppo.main(models)
    other = read_csv("details/ppo.csv")
    write_json("params.yaml", settings | {"seed": 5})
    ppo.main(models)
    assert read_csv("details/ppo.csv") == other != first


@pytest.mark.parametrize("algorithm", ["rloo", "grpo", "dpo"])
def test_a_baseline_takes_the_place_of_ppo(prepared, tiny_models, algorithm):
    settings = json.loads((prepared / "params.yaml").read_text())
    write_json(prepared / "params.yaml", settings | {"algorithm": algorithm})
    write_jsonl(prepared / "data/collected/train.jsonl", comparisons(2, "train", 8))
    ppo.main(["--sft", str(tiny_models / "sft"), "--reward", str(tiny_models / "reward")])

    rows = read_csv("details/ppo.csv")
    assert [row["episodes"] for row in rows] == [0, 8, 16]
    read_table(prepared / "details/ppo.csv", COLUMNS["ppo"])  # all that the report draws
    assert (rows[-1]["reward"] is None) == (algorithm == "dpo") and rows[-1]["eval_kl"] != 0
    metrics = read_json("details/ppo.json")
    assert metrics.pop("algorithm") == algorithm and metrics.pop("stopped") is None
    assert metrics.pop("episodes") == 16 and metrics.pop("alarm") is None
    assert read_json("metrics/ppo.json") == {"ppo_alarm_update": None}
    assert metrics.keys() == set(ppo.SUMMARY) and None not in metrics.values()
    assert not (prepared / "models/ppo/snapshots").exists()
    assert {path.suffix for path in (prepared / "models/ppo").iterdir()} <= {".safetensors", ".json"}
    config = {name: read_json(path / "config.json") for name, path in
              (("sft", tiny_models / "sft"), ("ppo", prepared / "models/ppo"))}  # fmt: skip
    assert config["ppo"] == config["sft"]
    assert load_file("models/ppo/model.safetensors").keys() == load_file(tiny_models / "sft/model.safetensors").keys()
    assert {sample["update"] for sample in read_jsonl("details/ppo_samples.jsonl")} == {0, 2}


def test_an_error_is_one_line_and_exit_code_1(prepared):
    (prepared / "empty").mkdir()
    change(prepared, "model", base="empty")
    done = subprocess.run([sys.executable, ROOT / "stages" / "sft.py"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: empty: ") and "Traceback" not in done.stderr
    assert not (prepared / "models").exists()


def test_bf16_adapters_and_checkpointing_go_through_all_stages(prepared):
    """Weights stay fp32; of the policy only what the adapters were on has changed."""
    settings = json.loads((prepared / "params.yaml").read_text()) | {"precision": "bf16"}
    settings["ppo"] |= {"lora": {"rank": 4, "alpha": 8.0, "target_modules": None}, "gradient_checkpointing": True}
    settings["ppo"] |= {"learning_rate": 1e-2, "kl_ceiling": None}
    settings["evaluate"] |= {"best_of_n": 1, "bootstrap": 20}
    write_json(prepared / "params.yaml", settings)
    for main in (sft.main, reward.main, ppo.main, evaluate.main):
        main([])
    before, after = (load_file(prepared / f"models/{name}/model.safetensors") for name in ("sft", "ppo"))
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"transformer.h.0.attn.c_attn.weight"}
    assert math.isfinite(read_json("details/evaluate.json")["kl"])
