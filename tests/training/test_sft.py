import json

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy
from minirlhf.settings.params import parse_params
from minirlhf.training.sft import SummaryTrainer, encode_example, train_sft


def test_the_loss_is_on_the_summary_and_its_eos_only(small_bpe):
    example = encode_example(small_bpe, "my cat", " left")
    count = len(small_bpe("my cat")["input_ids"])
    assert example["labels"][:count] == [-100] * count
    assert example["labels"][count:] == example["input_ids"][count:]
    assert example["input_ids"][-1] == small_bpe.eos_token_id


def test_the_loss_and_gradient_are_trls_and_the_head_sees_labelled_positions_only(tiny_models, tmp_path):
    tokenizer = load_tokenizer(str(tiny_models / "sft"))
    rows = [encode_example(tokenizer, "my cat and my dog. TL;DR:", " gone."), encode_example(tokenizer, "my", " left")]
    measured, seen = [], []
    for kind in (SFTTrainer, SummaryTrainer):
        model = load_policy(str(tiny_models / "sft")).eval()
        args = SFTConfig(str(tmp_path), max_length=None, use_cpu=True, bf16=False, report_to="none")
        trainer = kind(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        batch = trainer.data_collator(rows)
        if kind is SummaryTrainer:
            model.get_output_embeddings().register_forward_hook(lambda _, __, out: seen.append(len(out)))
        loss = trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(7))
        loss.backward()
        measured.append([loss.detach(), *(weights.grad for weights in model.parameters())])
    assert seen == [sum(label != -100 for row in rows for label in row["labels"])]
    for theirs, ours in zip(*measured, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_training_is_a_function_of_the_seed_and_learns(tiny_models, settings, tmp_path):
    settings["sft"] |= {"steps": 10, "learning_rate": 0.05, "warmup_steps": 0, "log_every": 1, "eval_every": 10}
    params = parse_params(json.dumps(settings), "params.yaml")
    rows = [{"prompt": f"my {pet}. TL;DR:", "completion": " it left."} for pet in ("cat", "dog", "cow", "hen")] * 4
    trained = []
    for turn in range(2):
        model, tokenizer = load_policy(str(tiny_models / "sft")), load_tokenizer(str(tiny_models / "sft"))
        history = train_sft(model, tokenizer, rows, rows[:4], params, tmp_path / str(turn))
        trained.append({name: weights.clone() for name, weights in model.state_dict().items()})
    assert history[-1]["step"] == 10 and history[-1]["eval_loss"] is not None
    assert history[9]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
