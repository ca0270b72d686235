import json
from functools import partial

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from minirlhf.rewards.model import RewardModel
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.progress import Progress
from tests.ppo.conftest import EOS, VOCABULARY, make_tokenizer

PROMPTS = ["w1 w2 w3 w4 w5 w6", "w9", "w8 w2 w2", "w4 w4 w4 w4 w4"]
RESPONSES = [" w3", " w1 w2 w9 w8 w7", " w5 w5", " w30 w1"]
ENDED = [True, False, True, False]


def make_decoder():
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2,
        n_embd=16,
        n_head=2,
        vocab_size=VOCABULARY,
        n_positions=16,
        num_labels=1,
        initializer_range=0.3,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    return GPT2ForSequenceClassification(config).eval()


def make_bert_tokenizer():
    """A tokenizer that is not the policy's: [CLS] question [SEP] answer [SEP], no EOS."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"] + [f"w{index}" for index in range(31)]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def make_encoder(kind="bert"):
    torch.manual_seed(0)
    sizes = dict(
        vocab_size=35,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=1,
        initializer_range=0.3,
        pad_token_id=0,
    )
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**sizes)).eval()
    config = DebertaV2Config(
        **sizes, relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"], type_vocab_size=0
    )
    return DebertaV2ForSequenceClassification(config).eval()


def one_by_one(model, sequences):
    """Scores of unpadded sequences: what every batching must give."""
    with torch.no_grad():
        return [model.score(model.base_model(torch.tensor([ids]))[0][0, -1]).item() for ids in sequences]


def test_concat_has_eos_exactly_where_the_response_ended():
    tokenizer, model = make_tokenizer(), make_decoder()
    sequences = [
        tokenizer(prompt + response)["input_ids"] + [EOS] * ended
        for prompt, response, ended in zip(PROMPTS, RESPONSES, ENDED, strict=True)
    ]
    expected = one_by_one(model, sequences)
    for batch_size in (1, 3, 8):
        scores = RewardModel(model, tokenizer, batch_size=batch_size)(PROMPTS, RESPONSES, ENDED)
        assert scores == pytest.approx(expected, abs=1e-5)
    # The pad token is EOS: reading ends off the ids would give both the same score.
    reward = RewardModel(model, tokenizer)
    assert abs(reward(PROMPTS[:1], RESPONSES[:1], [True])[0] - reward(PROMPTS[:1], RESPONSES[:1], [False])[0]) > 1e-3


@pytest.mark.parametrize(
    ("device", "size", "elements", "batches"),
    [
        ("cuda", 1, 100, [(1, 7), (3, 2), (2, 2)]),
        ("cuda", 2, 100, [(2, 7), (4, 2)]),
        ("cpu", 4, 10**6, [(4, 7), (2, 2)]),
        ("cpu", 4, 2 * 16, [(1, 7), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2)]),  # one sequence at least
        ("cpu", 4, 6 * 16, [(1, 7), (3, 2), (2, 2)]),
    ],
)
def test_a_pass_has_so_many_tokens_or_elements(monkeypatch, device, size, elements, batches):
    model, tokenizer, shapes = make_decoder(), make_tokenizer(), []
    texts = ["w1", "w2", "w3 w4 w5 w6 w7 w8", "w3", "w4", "w5"], [" w9"] * 6, [False] * 6
    expected = one_by_one(model, [tokenizer(prompt + " w9")["input_ids"] for prompt in texts[0]])
    monkeypatch.setattr("minirlhf.rewards.model.CPU_ELEMENTS", elements)
    reward = RewardModel(model, tokenizer, batch_size=size)
    model.base_model.wte.register_forward_pre_hook(lambda module, ids: shapes.append(tuple(ids[0].shape)))
    score, reward.device = reward._score, torch.device(device)  # of the count alone: there may be no such device

    def on_cpu(*args):
        with monkeypatch.context() as patch:
            patch.setattr(reward, "device", torch.device("cpu"))
            return score(*args)

    monkeypatch.setattr(reward, "_score", on_cpu)
    assert reward(*texts) == pytest.approx(expected, abs=1e-5)
    assert shapes == batches


def test_normalisation():
    model, tokenizer = make_decoder(), make_tokenizer()
    raw = RewardModel(model, tokenizer)(PROMPTS, RESPONSES, ENDED)
    scores = RewardModel(model, tokenizer, mean=2.0, scale=4.0)(PROMPTS, RESPONSES, ENDED)
    assert scores == pytest.approx([(score - 2.0) / 4.0 for score in raw], abs=1e-6)


def test_concat_shortens_the_prompt_at_its_beginning():
    model, tokenizer = make_decoder(), make_tokenizer()
    reward = RewardModel(model, tokenizer)
    prompt = " ".join(["w1"] * 10 + ["w2"] * 10)
    kept = " ".join(["w2"] * 10)  # 16 positions: 10 of the prompt, 5 of the response, EOS
    response = " w3 w4 w5 w6 w7"
    assert reward([prompt], [response], [True]) == pytest.approx(reward([kept], [response], [True]), abs=1e-6)


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_pair_agrees_with_the_model_itself(kind):
    model, tokenizer = make_encoder(kind), make_bert_tokenizer()
    scores = RewardModel(model, tokenizer, format="pair", batch_size=3)(PROMPTS, RESPONSES, ENDED)
    with torch.no_grad():
        for prompt, response, score in zip(PROMPTS, RESPONSES, scores, strict=True):
            assert score == pytest.approx(
                model(**tokenizer(prompt, response, return_tensors="pt")).logits.item(), abs=1e-5
            )


def test_pair_shortens_the_post_never_the_summary():
    tokenizer = make_bert_tokenizer()
    reward = RewardModel(make_encoder(), tokenizer, format="pair")
    [encoded] = reward._encode_pairs([" ".join(["w1"] * 40)], ["w2 w3 w4"])
    assert encoded["input_ids"] == [1] + [5] * 10 + [2, 6, 7, 8, 2]
    assert encoded["token_type_ids"] == [0] * 12 + [1] * 4


@pytest.mark.parametrize("format, make", [("concat", make_decoder), ("pair", make_encoder)])
def test_a_response_that_cannot_fit_is_refused(format, make):
    reward = RewardModel(make(), make_tokenizer() if format == "concat" else make_bert_tokenizer(), format=format)
    with pytest.raises(UserError, match="does not fit its 16 positions"):
        reward(["w1"], [" w2" * 20], [False])


def test_folders(tmp_path):
    """A trained folder, and a folder that only names a pretrained model."""
    model, tokenizer = make_decoder(), make_tokenizer()
    model.save_pretrained(tmp_path / "weights")
    tokenizer.save_pretrained(tmp_path / "weights")
    expected = RewardModel(model, tokenizer, mean=1.0, scale=2.0)(PROMPTS, RESPONSES, ENDED)

    (tmp_path / "weights" / "reward.json").write_text(json.dumps({"format": "concat", "mean": 1.0, "scale": 2.0}))
    assert RewardModel.load(tmp_path / "weights")(PROMPTS, RESPONSES, ENDED) == pytest.approx(expected, abs=1e-6)

    settings = {"model": str(tmp_path / "weights"), "revision": None, "format": "concat", "mean": 1.0, "scale": 2.0}
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "reward.json").write_text(json.dumps(settings))
    assert RewardModel.load(tmp_path / "named")(PROMPTS, RESPONSES, ENDED) == pytest.approx(expected, abs=1e-6)


def test_the_format_is_found_out():
    assert RewardModel(make_decoder(), make_tokenizer(), format=None).format == "concat"
    assert RewardModel(make_encoder("deberta"), make_bert_tokenizer(), format=None).format == "pair"


def test_long_scoring_shows_its_progress(capsys, monkeypatch):
    monkeypatch.setattr("minirlhf.rewards.model.Progress", partial(Progress, interval=0.0))
    model, tokenizer = make_decoder(), make_tokenizer()
    RewardModel(model, tokenizer, batch_size=3)(PROMPTS, RESPONSES, ENDED)
    assert capsys.readouterr().err == ""
    RewardModel(model, tokenizer, batch_size=3, desc="reward: scoring")(PROMPTS, RESPONSES, ENDED)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" summaries")[0] for line in lines] == ["reward: scoring: 3/4", "reward: scoring: 4/4"]


def test_refusals():
    two = make_decoder()
    two.config.num_labels = 2
    with pytest.raises(UserError, match="2 labels"):
        RewardModel(two, make_tokenizer())
    with pytest.raises(UserError, match="format is 'pairs'"):
        RewardModel(make_decoder(), make_tokenizer(), format="pairs")
    with pytest.raises(UserError, match="no EOS"):
        RewardModel(make_encoder(), make_bert_tokenizer())
