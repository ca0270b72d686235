import json

import torch

from minirlhf.models import load_policy, load_tokenizer
from minirlhf.params import parse_params
from minirlhf.sft import encode_example, train_sft


def test_the_loss_is_on_the_summary_and_its_eos_only(small_bpe):
    example = encode_example(small_bpe, "my cat", " left")
    count = len(small_bpe("my cat")["input_ids"])
    assert example["labels"][:count] == [-100] * count
    assert example["labels"][count:] == example["input_ids"][count:]
    assert example["input_ids"][-1] == small_bpe.eos_token_id


def test_training_is_a_function_of_the_seed_and_learns(tiny_models, settings, tmp_path):
    settings["sft"] |= {"steps": 10, "learning_rate": 0.05, "warmup_steps": 0, "log_every": 1, "eval_every": 10}
    params = parse_params(json.dumps(settings), "params.yaml")
    rows = [{"prompt": f"my {pet}. TL;DR:", "completion": " it left."} for pet in ("cat", "dog", "cow", "hen")] * 4
    trained = []
    for _ in range(2):
        model, tokenizer = load_policy(str(tiny_models / "sft")), load_tokenizer(str(tiny_models / "sft"))
        history = train_sft(model, tokenizer, rows, rows[:4], params, str(tmp_path))
        trained.append({name: weights.clone() for name, weights in model.state_dict().items()})
    assert history[-1]["step"] == 10 and history[-1]["eval_loss"] is not None
    assert history[9]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
