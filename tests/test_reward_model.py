import json

import torch

from minirlhf.models import load_reward_model, load_tokenizer, new_reward_model
from minirlhf.params import parse_params
from minirlhf.prompts import encode
from minirlhf.reward_model import collate_groups, encode_group, last_token_scores, train_reward_model
from minirlhf.rewards.model import RewardModel

ROWS = [
    {"prompt": f"POST: my {pet} left.\n\nTL;DR:", "chosen": f" {pet} left.", "rejected": " so much to say."}
    for pet in ("cat", "dog", "horse", "bird", "cow", "pig", "hen", "goat")
]


def test_eos_follows_exactly_what_ended(small_bpe):
    group = {"prompt": "a", "summaries": [(" b", True), (" b", False)], "pairs": [(0, 1)]}
    ended, cut = encode_group(small_bpe, group)["sequences"]
    assert ended == [*cut, small_bpe.eos_token_id]
    assert cut == encode(small_bpe, "a") + encode(small_bpe, " b")


def test_scores_do_not_depend_on_padding(tiny_models):
    """GPT-2's padding is its EOS: a score found by looking for padding would skip a generated EOS."""
    model = load_reward_model(str(tiny_models / "reward")).eval()
    eos = model.config.eos_token_id
    groups = [{"sequences": [[5, 6, eos], [5, 6], [5, 6, 7, 8, 9]], "pairs": [[0, 1]]}]
    batch = collate_groups(groups)
    with torch.no_grad():
        together = last_token_scores(model, batch["input_ids"], batch["lengths"])
        alone = [
            last_token_scores(model, torch.tensor([ids]), torch.tensor([len(ids)])) for ids in groups[0]["sequences"]
        ]
    torch.testing.assert_close(together, torch.cat(alone))
    assert together[0] != together[1]


def test_training_learns_and_scores_what_is_delivered(tiny_models, settings, tmp_path):
    settings["reward"] |= {"steps": 30, "learning_rate": 0.01, "batch_size": 8, "micro_batch_size": 8, "eval_every": 15}
    params = parse_params(json.dumps(settings), "params.yaml")
    torch.manual_seed(0)
    model = new_reward_model(tiny_models / "sft")
    tokenizer = load_tokenizer(str(tiny_models / "sft"))
    history = train_reward_model(model, tokenizer, ROWS[:6], ROWS[6:], params, tmp_path / "resume")
    assert [row["step"] for row in history if row["eval_loss"] is not None] == [15, 30]
    losses = [row["train_loss"] for row in history if row["train_loss"] is not None]
    assert losses[-1] < 0.5 * losses[0]
    assert history[-1]["eval_accuracy"] == 1.0

    # The reward function reads text as the training did.
    model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    texts = [(row["prompt"], row["chosen"]) for row in ROWS] + [("a <|endoftext|> b", " c <|endoftext|>")]
    ended = [True, False] * 4 + [True]
    sequences = [
        encode_group(tokenizer, {"prompt": p, "summaries": [(s, e)], "pairs": []})["sequences"][0]
        for (p, s), e in zip(texts, ended, strict=True)
    ]
    batch = collate_groups([{"sequences": sequences, "pairs": []}])
    with torch.no_grad():
        expected = last_token_scores(model.eval(), batch["input_ids"], batch["lengths"])
    scores = RewardModel.load(tmp_path / "rm")([p for p, _ in texts], [s for _, s in texts], ended)
    torch.testing.assert_close(torch.tensor(scores), expected, rtol=1e-4, atol=1e-5)
