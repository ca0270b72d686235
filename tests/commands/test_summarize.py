import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minirlhf.commands import cli
from minirlhf.commands.summarize import Decoding, read_posts, side_by_side, summarize, to_prompt
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import write_json, write_jsonl

FORMATTED = "SUBREDDIT: r/tifu\n\nTITLE: help\n\nPOST: my cat left. it took my boat.\n\nTL;DR:"


@pytest.fixture
def project(tiny_models, tmp_path, monkeypatch):
    """A folder with models/sft, models/ppo and models/reward, and no params.yaml."""
    (tmp_path / "models").symlink_to(tiny_models)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(printed):
    return [json.loads(line) for line in printed.splitlines()]


def test_a_raw_post_gets_the_format_and_a_formatted_one_stays():
    assert to_prompt(FORMATTED + "\n") == FORMATTED
    raw = to_prompt("My cat left.\r\nIt did.\n", title=" Help ", subreddit="advice")
    assert raw == "SUBREDDIT: r/advice\n\nTITLE: Help\n\nPOST: My cat left.\nIt did.\n\nTL;DR:"
    assert to_prompt("Anything.\n\nTL;DR:") == "Anything.\n\nTL;DR:"
    # What a model was trained on, in a format of its own.
    assert to_prompt("Article: my cat left.\n\nSummary:", whole=True) == "Article: my cat left.\n\nSummary:"
    for empty in ("", " \n", "TL;DR:", "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: \n\nTL;DR:"):
        with pytest.raises(UserError, match="stdin: the post is empty"):
            to_prompt(empty, where="stdin")
    with pytest.raises(UserError, match="not text in UTF-8"):
        to_prompt("a \udcff")


def test_posts_of_files_and_folders(tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "notes.md").write_text("no post")
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "first"}, {"prompt": "next"}])
    found = [(text, whole) for _, text, whole in read_posts(tmp_path)]
    assert found == [("first", True), ("next", True), ("second", False)]
    write_jsonl(tmp_path / "c.jsonl", [{"text": "x"}])
    with pytest.raises(UserError, match=r"c.jsonl, post 1: expected a text in `prompt`; its keys are text"):
        read_posts(tmp_path)
    with pytest.raises(UserError, match="missing.txt: cannot be read"):
        read_posts(tmp_path / "missing.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no .txt or .jsonl files there"):
        read_posts(tmp_path / "empty")


def test_both_summaries_with_their_rewards_are_those_of_the_pipelines_own_code(project, capsys):
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.models.loading import load_policy
    from minirlhf.rewards.model import RewardModel
    from minirlhf.sampling.summaries import sample

    cli.command(["summarize", FORMATTED, "--jsonl", "--max-new-tokens", "9", "--temperature", "0.7", "--seed", "3"])
    (row,) = rows_of(capsys.readouterr().out)
    assert row["prompt"] == FORMATTED and row["source"] == "post" and row["reward_model"] == "models/reward"
    assert list(row["summaries"]) == ["models/sft", "models/ppo"]
    for name, found in row["summaries"].items():
        own = sample(load_policy(name), load_tokenizer(name), [FORMATTED], temperature=0.7, max_new_tokens=9, seed=3)
        reward = RewardModel.load("models/reward")([FORMATTED], own.texts, own.ended.tolist())
        assert found["summary"] == own.texts[0].strip() and found["ended"] == own.ended[0] and not found["cut"]
        assert found["reward"] == pytest.approx(reward[0], abs=1e-4)


def test_standard_input_and_any_checkpoint_without_a_reward(project, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("my cat left."))
    cli.command(["summarize", "--models", "models/ppo", "--reward", "none", "--max-new-tokens", "4", "--title", "cat"])
    printed = capsys.readouterr().out
    assert printed.startswith("r/AskReddit: cat\n\nmodels/ppo\n") and "reward" not in printed
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(UserError, match="the post is empty"):
        cli.command(["summarize"])


def test_a_folder_of_posts_becomes_json_lines(project, capsys):
    (project / "posts").mkdir()
    (project / "posts" / "a.txt").write_text("my boat left.")
    write_jsonl(project / "posts" / "b.jsonl", [{"prompt": FORMATTED}])
    cli.command(["summarize", "--posts", "posts", "--jsonl", "--max-new-tokens", "4"])
    rows = rows_of(capsys.readouterr().out)
    assert [row["source"] for row in rows] == ["posts/a.txt", "posts/b.jsonl, post 1"]


def test_a_long_post_is_cut_as_in_the_pipeline(project, settings, capsys):
    from minirlhf.hub.configs import load_tokenizer
    from minirlhf.text.prompts import encode
    from minirlhf.text.truncate import truncate_prompt

    tokenizer = load_tokenizer("models/sft")
    body = "my cat left. " * 30
    settings["data"]["max_prompt_tokens"] = 120
    write_json(project / "params.yaml", settings)
    prompt = to_prompt(body)
    cut = truncate_prompt(prompt, 120, lambda text: len(encode(tokenizer, text)))
    cli.command(["summarize", body, "--jsonl", "--max-new-tokens", "4"])
    (row,) = rows_of(capsys.readouterr().out)
    found = row["summaries"]["models/sft"]
    assert found["cut"]
    (same,) = summarize([cut], ["models/sft"], "models/reward", Decoding(max_new_tokens=4))
    assert same["summaries"]["models/sft"] == found | {"cut": False}
    with pytest.raises(UserError, match="post 1: title and subreddit leave no room for the post in 120 tokens"):
        cli.command(["summarize", "my cat", "--title", "boat " * 200])


@pytest.mark.parametrize(
    "options, error",
    [
        (["--models", "models/none"], "models/none: no such folder; `dvc repro` makes"),
        (["--reward", "nowhere"], "nowhere: no such folder"),
        (["--models", "empty"], "empty: cannot load the tokenizer"),
        (["--posts", "empty"], "either a post or --posts"),
        (["--temperature", "-1"], "--temperature: expected a number >= 0"),
        (["--temperature", "nan"], "--temperature: expected a number >= 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens: expected a number >= 1"),
    ],
)
def test_errors_name_what_is_wrong(project, options, error):
    (project / "empty").mkdir()
    with pytest.raises(UserError, match=error):
        cli.command(["summarize", "my cat left.", *options])


def test_side_by_side():
    summaries = {
        "models/sft": {"summary": "one two three four five six seven", "reward": 0.123, "ended": True, "cut": False},
        "m\x1b": {"summary": "bad \x1b[31m\nline", "reward": -1.5, "ended": False, "cut": True},
    }
    shown = side_by_side({"prompt": FORMATTED, "reward_model": "models/reward", "summaries": summaries}, width=63)
    assert shown.splitlines() == [
        "r/tifu: help",
        "",
        "models/sft  reward 0.12          m\\x1b  reward -1.50",
        "one two three four five six      bad \\x1b[31m\\nline [cut at the",
        "seven                            limit]",
        "",
        "(reward by models/reward; the post was too long and has been cut)",
    ]


def test_the_command_prints_an_error_in_one_line(tmp_path):
    command = [sys.executable, "-m", "minirlhf", "summarize", "my cat"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: models/sft: no such folder") and not done.stdout
