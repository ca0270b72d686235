import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from minirlhf.hub.configs import read_tokenizer
from minirlhf.models.loading import load_reward_model, new_reward_model
from minirlhf.reward_modeling.train import collate_groups, encode_group, train_reward_model
from minirlhf.rewards.model import RewardModel, raw_scores
from minirlhf.runtime.errors import UserError
from minirlhf.settings.params import parse_params
from minirlhf.text.comparisons import group_comparisons
from minirlhf.text.prompts import encode

ROWS = [
    {"prompt": f"POST: my {pet} left.\n\nTL;DR:", "chosen": f" {pet} left.", "rejected": " so much to say."}
    for pet in ("cat", "dog", "horse", "bird", "cow", "pig", "hen", "goat")
]
LONG = {"prompt": f"POST: {'my cat left. ' * 90}\n\nTL;DR:", "chosen": " my cat left.", "rejected": " so much to say."}


def test_eos_follows_exactly_what_ended(tiny_models, small_bpe):
    reward = RewardModel(load_reward_model(tiny_models / "reward"), small_bpe)
    group = {"prompt": "a", "summaries": [(" b", True), (" b", False)], "pairs": [(0, 1)]}
    ended, cut = (sequence["input_ids"] for sequence in encode_group(reward, group)["sequences"])
    assert ended == [*cut, small_bpe.eos_token_id]
    assert cut == encode(small_bpe, "a") + encode(small_bpe, " b")


def test_scores_do_not_depend_on_padding(tiny_models):
    """GPT-2's padding is its EOS: a score found by looking for padding would skip a generated EOS."""
    model = load_reward_model(str(tiny_models / "reward")).eval()
    eos = model.config.eos_token_id
    sequences = [{"input_ids": ids} for ids in ([5, 6, eos], [5, 6], [5, 6, 7, 8, 9])]
    together, alone = scored(model, sequences)
    torch.testing.assert_close(together, alone)
    assert together[0] != together[1]


def scored(model, sequences):
    """Scores of sequences in one batch, and each for itself."""
    batches = [
        collate_groups([{"sequences": part, "pairs": []}]) for part in (sequences, *([one] for one in sequences))
    ]
    for batch in batches:
        del batch["pairs"], batch["comparisons"]
    with torch.no_grad():
        together, *alone = (raw_scores(model.eval(), **batch) for batch in batches)
    return together, torch.cat(alone)


@pytest.mark.parametrize("name", ["gpt2", "bert", "deberta", "llama"])
def test_training_learns_and_what_is_delivered_reads_and_scores_the_same(name, bases, settings, tmp_path):
    """A policy, an encoder whose head is wholly new, one with a head of another kind, another family of decoders."""
    settings["reward"] |= {"steps": 30, "learning_rate": 0.01, "batch_size": 8, "micro_batch_size": 8, "eval_every": 15}
    settings["reward"] |= {"base": str(bases[name]), "format": None}
    params = parse_params(json.dumps(settings), "params.yaml")
    torch.manual_seed(0)
    model, tokenizer = new_reward_model(bases[name]), read_tokenizer(bases[name])
    history = train_reward_model(model, tokenizer, ROWS[:6], ROWS[6:], params, tmp_path / "resume")
    assert [row["step"] for row in history if row["eval_loss"] is not None] == [15, 30]
    losses = [row["train_loss"] for row in history if row["train_loss"] is not None]
    assert losses[-1] < 0.5 * losses[0]
    assert history[-1]["eval_accuracy"] == 1.0

    model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    trained, delivered = RewardModel(model, tokenizer, format=None), RewardModel.load(tmp_path / "rm", format=None)
    assert trained.format == delivered.format == ("pair" if name in ("bert", "deberta") else "concat")
    assert tokenizer.backend_tokenizer.truncation is None  # nothing of how it was used is left in it
    strange = {"prompt": "a <|endoftext|> [SEP] b", "chosen": " c <|endoftext|>", "rejected": "", "chosen_ended": False}
    groups = group_comparisons([*ROWS, LONG, strange])
    sequences = [sequence for group in groups for sequence in encode_group(trained, group)["sequences"]]
    summaries = [(group["prompt"], *summary) for group in groups for summary in group["summaries"]]
    texts = tuple(map(list, zip(*summaries, strict=True)))
    assert delivered.encode(*texts) == sequences
    together, alone = scored(model, sequences)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(delivered(*texts)), alone, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def bases(tiny_models, tiny_encoders, small_bpe, tmp_path_factory):
    """Folders of what a reward model may be trained from."""
    llama = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": small_bpe.eos_token_id, "max_position_embeddings": 64}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(small_bpe), **sizes, **ends)).save_pretrained(llama)
    small_bpe.save_pretrained(llama)
    return {"gpt2": tiny_models / "sft", "llama": llama} | {name: tiny_encoders / name for name in ("bert", "deberta")}


@pytest.mark.parametrize("name", ["bert", "deberta"])
def test_an_encoder_reads_post_and_summary_as_a_pair_and_the_post_is_shortened(name, bases):
    tokenizer = read_tokenizer(bases[name])
    reward = RewardModel(new_reward_model(bases[name]), tokenizer, format=None)
    [group] = group_comparisons([LONG])
    for (text, _), read in zip(group["summaries"], encode_group(reward, group)["sequences"], strict=True):
        summary = encode(tokenizer, text)
        cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        post = encode(tokenizer, LONG["prompt"])[: 128 - len(summary) - 3]
        assert read["input_ids"] == [cls, *post, sep, *summary, sep]
        assert read["token_type_ids"] == [0] * (len(post) + 2) + [1] * (len(summary) + 1)
    with pytest.raises(UserError, match="does not fit its 128 positions"):
        encode_group(reward, group | {"summaries": [(" cat" * 126, True)]})


@pytest.mark.parametrize(
    ("name", "pooler", "head"),
    [
        ("bert", {"bert.pooler.dense.weight"}, {"classifier.weight"}),  # biases begin as 0
        ("deberta", {"pooler.dense.weight"}, {"classifier.weight"}),
        ("llama", set(), {"score.weight"}),
    ],
)
def test_of_a_base_the_head_alone_may_be_new_and_follows_the_seed(name, pooler, head, bases, tmp_path):
    def load(seed, folder):
        torch.manual_seed(seed)
        return new_reward_model(folder).state_dict()

    def drawn(folder):
        one, again, other = (load(seed, folder) for seed in (1, 1, 2))
        assert all(torch.equal(one[key], again[key]) for key in one)
        return {key for key in one if not torch.equal(one[key], other[key])}

    assert drawn(bases[name]) == pooler | head
    # A head of three labels is dropped, and what is under it kept; a head of one label is kept.
    for labels, new in ((3, head), (1, set())):
        classifier = AutoModelForSequenceClassification.from_pretrained(bases[name], num_labels=labels)
        classifier.save_pretrained(tmp_path / str(labels))
        assert drawn(tmp_path / str(labels)) == new


@pytest.mark.parametrize("name", ["bert", "deberta", "llama"])
def test_a_base_without_some_of_its_trunk_is_refused(name, bases, tmp_path):
    folder = shutil.copytree(bases[name], tmp_path / name)
    weights = load_file(folder / "model.safetensors")
    lost = next(key for key in weights if key.endswith(("query.weight", "query_proj.weight", "q_proj.weight")))
    part = weights.pop(lost)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=f"no weights .*{lost.split('.', 1)[1]}, which a .*ForSequenceClassification has"
    ):
        new_reward_model(folder)
    save_file(weights | {lost: part[:8].clone()}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"cannot load the model .the weights .*{lost.split('.', 1)[1]} do not fit"):
        new_reward_model(folder)


def test_a_format_that_the_tokenizer_does_not_suit_is_refused(bases, settings, tmp_path):
    params = parse_params(json.dumps(settings), "params.yaml")  # concat
    model, tokenizer = new_reward_model(bases["bert"]), read_tokenizer(bases["bert"])
    with pytest.raises(UserError, match="no EOS, which the format 'concat' needs; try 'pair'"):
        train_reward_model(model, tokenizer, ROWS, ROWS, params, tmp_path)
