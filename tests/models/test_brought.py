"""Models as people bring them: in half precision, with adapters, tied or projected, or of an architecture of its own.

On the real path: PPOTrainer, RewardModel, and the functions that every stage loads its models by.
"""

import copy
import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from minirlhf.models.loading import load_policy, load_reward_model, new_reward_model
from minirlhf.models.trunk import TrunkAndHead
from minirlhf.ppo import LoRAConfig, PPOConfig, PPOTrainer
from minirlhf.ppo.checkpoint import save_policy
from minirlhf.rewards.model import RewardModel
from minirlhf.runtime.errors import UserError
from tests.ppo.conftest import EOS, VOCABULARY, count_w7, make_policy, make_tokenizer

WARNED = "tie_word_embeddings|fan_in_fan_out|embeddings are no longer tied|save_embedding_layers"
pytestmark = pytest.mark.filterwarnings(f"ignore:.*({WARNED})")
SETTINGS = dict(episodes=32, batch_size=16, ppo_epochs=1, max_new_tokens=4, learning_rate=1e-3, temperature=1.0)
PROMPTS = [f"w{number} w{number + 1}" for number in range(20)]
HALF = (torch.bfloat16, torch.float16)
IDS = torch.arange(12).reshape(2, 6)


def make_trainer(policy, tokenizer=None, reward=count_w7, reference=None, critic_init=None, **changes):
    config = PPOConfig(**{**SETTINGS, **changes})
    options = {"reference": reference, "critic_init": critic_init, "device": "cpu"}
    return PPOTrainer(config, policy, tokenizer or make_tokenizer(), reward, PROMPTS, **options)


def make_reward_model(dtype=torch.float32):
    torch.manual_seed(3)
    config = make_policy().config
    config.num_labels, config.pad_token_id = 1, EOS
    return AutoModelForSequenceClassification.from_config(config).to(dtype).eval()


def adapted(policy, **options):
    """A policy with a LoRA adapter that has been trained: its factors are not zero."""
    model = peft.get_peft_model(policy, peft.LoraConfig(r=2, **options))
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weights.copy_(torch.randn_like(weights) * 0.3)
    return model.eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits.float()


# Half precision


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_policy_in_half_precision_learns_as_one_in_fp32(dtype, critic):
    """In half precision most of what the optimizer adds to a weight would be rounded away."""
    learnt = []
    for rounded in (make_policy().to(dtype), make_policy().to(dtype).float()):
        trainer = make_trainer(rounded, critic=critic, learning_rate=1e-5)
        before = {name: weights.detach().clone() for name, weights in trainer.models.named_trainable()}
        trainer.train()
        after = dict(trainer.models.named_trainable())
        assert {weights.dtype for weights in after.values()} == {torch.float32}
        moved = torch.cat([(after[name] != weights).flatten() for name, weights in before.items()])
        assert moved.float().mean() > 0.8
        learnt.append(after)
    assert all(torch.equal(weights, learnt[1][name]) for name, weights in learnt[0].items())


@pytest.mark.parametrize("dtype", HALF)
def test_reference_critic_and_reward_in_half_precision_count_in_fp32(dtype):
    own = {"reference": make_policy(1).to(dtype), "critic_init": make_reward_model(dtype)}
    reward = RewardModel(make_reward_model(dtype), make_tokenizer())
    trainer = make_trainer(make_policy(), reward=reward, critic="separate", **own)
    models = trainer.models
    for module in (models.reference.model, models.critic_trunk, models.value_head, reward.model):
        assert {weights.dtype for weights in module.parameters()} == {torch.float32}
    assert {weights.dtype for model in own.values() for weights in model.parameters()} == {dtype}  # the user's own
    trainer.train()


@pytest.mark.parametrize("dtype", HALF)
def test_a_checkpoint_in_half_precision_is_loaded_in_fp32(tmp_path, dtype):
    make_policy().to(dtype).save_pretrained(tmp_path / "policy")
    make_reward_model(dtype).save_pretrained(tmp_path / "reward")
    assert str(dtype).removeprefix("torch.") in (tmp_path / "policy/config.json").read_text()
    models = (
        load_policy(tmp_path / "policy"),
        load_reward_model(tmp_path / "reward"),
        new_reward_model(tmp_path / "policy"),
    )
    assert {weights.dtype for model in models for weights in model.parameters()} == {torch.float32}


def test_quantized_weights_are_refused():
    policy = make_policy()
    policy.transformer.h[0].mlp.c_fc.weight = torch.nn.Parameter(
        torch.ones(32, 128, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(UserError, match="^policy: its weights are quantized; give it in fp32, bf16 or fp16$"):
        make_trainer(policy)


# Adapters that are forgotten in a folder


def with_adapter(folder):
    """A folder of merged weights in which the adapter was left."""
    model = adapted(make_policy(), target_modules=["c_attn"])
    model.save_pretrained(folder)
    model.merge_and_unload().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


LOADERS = (load_policy, load_reward_model, new_reward_model, RewardModel.load)


@pytest.mark.parametrize("load", LOADERS)
def test_an_adapter_beside_weights_is_named(tmp_path, load):
    with_adapter(tmp_path)
    with pytest.raises(
        UserError, match=r"adapter_config.json: an adapter beside the model's weights: take adapter_\* away"
    ):
        load(tmp_path)


@pytest.mark.parametrize("load", LOADERS)
def test_an_adapter_alone_is_no_model(tmp_path, load):
    adapted(make_policy(), target_modules=["c_attn"]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="it holds an adapter alone, of None: merge it into that model"):
        load(tmp_path)


def test_weights_of_an_adapter_without_its_config_are_not_read(tmp_path):
    with_adapter(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    merged = adapted(make_policy(), target_modules=["c_attn"]).merge_and_unload()
    torch.testing.assert_close(logits(load_policy(tmp_path)), logits(merged))


def test_summarize_says_so_too(tmp_path, monkeypatch):
    from minirlhf.commands.summarize import summarize

    with_adapter(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="mine/adapter_config.json: an adapter beside"):
        summarize(["w1"], ["mine"])


# Adapters of a model that is handed over


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["c_attn"]},
        {"target_modules": ["c_attn", "lm_head"]},  # tied with the embeddings
        {"target_modules": ["wte"]},
        {"target_modules": ["c_attn"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["c_attn"], "modules_to_save": ["wte"]},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_policy_with_an_adapter_is_what_it_was_saved_and_loaded_too(tmp_path, options, dtype):
    policy = adapted(make_policy().to(dtype), **options)
    expected = logits(copy.deepcopy(policy).float())
    trainer = make_trainer(policy)
    torch.testing.assert_close(logits(trainer.models.policy.model), expected, rtol=0, atol=1e-4)
    save_policy(tmp_path, trainer.models, trainer.tokenizer)
    torch.testing.assert_close(logits(load_policy(tmp_path)), expected, rtol=0, atol=1e-4)


def test_resized_embeddings_are_saved_as_they_are(tmp_path):
    policy = make_policy()
    policy.resize_token_embeddings(VOCABULARY + 8)
    model = adapted(policy, target_modules=["c_attn"], modules_to_save=["wte", "lm_head"])
    expected = logits(model)
    trainer = make_trainer(model, lora=LoRAConfig(rank=2, target_modules=["c_attn"]))
    save_policy(tmp_path, trainer.models, trainer.tokenizer)
    torch.testing.assert_close(logits(load_policy(tmp_path)), expected, rtol=0, atol=1e-4)


def test_a_reference_and_a_critic_keep_their_adapters():
    """Merging the policy's adapter takes its layers from a peft model that is the reference as well."""
    policy = adapted(make_policy(), target_modules=["c_attn"])
    expected = logits(policy)
    trainer = make_trainer(policy, reference=policy, critic="separate", critic_init=adapted(make_policy(2)))
    trainer.train()
    assert not torch.equal(logits(trainer.models.policy.model), expected)
    torch.testing.assert_close(logits(trainer.models.reference.model), expected, rtol=0, atol=1e-4)


def test_a_reward_model_keeps_its_adapter():
    model = adapted(make_reward_model(), task_type="SEQ_CLS")
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[1, 2, 3]])).logits.flatten().tolist()
    assert RewardModel(model, make_tokenizer())(["w1 w2"], ["w3"], [False]) == pytest.approx(expected, abs=1e-5)


def test_adapters_that_cannot_be_merged_are_refused(tmp_path):
    line = "^policy: it carries an adapter that is not merged: give peft_model.merge_and_unload"
    prompt_tuning = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    with pytest.raises(UserError, match=line):
        make_trainer(peft.get_peft_model(make_policy(), prompt_tuning))
    make_policy().save_pretrained(tmp_path)
    adapted(make_policy(), target_modules=["c_attn"]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=line):
        make_trainer(AutoModelForCausalLM.from_pretrained(tmp_path))  # transformers puts the adapter in by itself


# Adapters that PPO is to train


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["c_attn", "lm_head"], "lm_head shares its weights with another layer of GPT2LMHeadModel; leave it out"),
        (["wte"], "wte shares its weights with another layer of GPT2LMHeadModel; leave it out"),
        (["q_proj"], "GPT2LMHeadModel has no layer q_proj; it has wpe, c_attn, c_proj, c_fc"),
        (["c_attn", "q_proj"], "GPT2LMHeadModel has no layer q_proj; it has wpe, c_attn, c_proj, c_fc"),
        (["ln_1"], "GPT2LMHeadModel: Target module LayerNorm"),
    ],
)
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_layers_that_take_no_adapter_are_named(names, line, critic):
    with pytest.raises(UserError, match=f"^ppo.lora.target_modules: {line}"):
        make_trainer(make_policy(), critic=critic, lora=LoRAConfig(rank=2, target_modules=names))


def test_a_head_of_its_own_may_have_an_adapter(tmp_path):
    policy = make_policy(tie_word_embeddings=False)
    lora = LoRAConfig(rank=2, target_modules=["c_attn", "lm_head"])
    trainer = make_trainer(policy, critic="separate", lora=lora, learning_rate=1e-2)
    trainer.train()
    save_policy(tmp_path, trainer.models, trainer.tokenizer)
    torch.testing.assert_close(logits(load_policy(tmp_path)), logits(trainer.models.policy.model), rtol=0, atol=1e-4)
    with pytest.raises(UserError, match="GPT2Model has no layer lm_head"):
        make_trainer(make_policy(tie_word_embeddings=False), critic="separate",
                     lora=LoRAConfig(rank=2, target_modules=["lm_head"]))  # fmt: skip


# Architectures


def of_kind(kind, **changes):
    sizes = dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    sizes |= dict(max_position_embeddings=64, intermediate_size=32, initializer_range=0.2)
    ends = dict(bos_token_id=EOS, eos_token_id=EOS, pad_token_id=EOS)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **ends, **changes})).eval()


@pytest.mark.parametrize("critic", ["shared", "separate", "reward"])
def test_hidden_states_narrower_than_hidden_size(tmp_path, critic):
    """OPT-350m projects its last hidden states."""
    policy = of_kind("opt", ffn_dim=32, word_embed_proj_dim=8)
    policy.save_pretrained(tmp_path)
    init = new_reward_model(tmp_path) if critic == "reward" else None
    trainer = make_trainer(policy, critic="shared" if critic == "shared" else "separate", critic_init=init)
    assert trainer.models.value_head.in_features == 8
    assert trainer.train()[-1]["ratio_error"] < 1e-4


@pytest.mark.parametrize("kind", ["bloom", "gpt_neox", "falcon"])
def test_other_architectures_train(kind):
    assert make_trainer(of_kind(kind)).train()[0]["ratio_error"] < 1e-4


def test_recurrent_networks_are_refused_rather_than_sampled_wrongly():
    """Their states count the padding before a prompt: what is sampled is not what is trained."""
    for kind in ("mamba", "rwkv"):
        with pytest.raises(UserError, match="not supported: its logits depend on padding before the first token"):
            TrunkAndHead(of_kind(kind))
    with pytest.raises(UserError, match=r"\(OpenAIGPTLMHeadModel\): cannot be sampled from with a cache"):
        TrunkAndHead(of_kind("openai-gpt"))


def test_a_folder_of_a_tokenizer_that_lost_its_vocabulary(tmp_path):
    from minirlhf.hub.configs import read_tokenizer

    make_policy().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    with pytest.raises(UserError, match="the tokenizer has no vocabulary: its file .* is missing"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_in_sentencepiece_alone(tmp_path, monkeypatch):
    """As DeBERTa-v3 ships it. Without the package transformers would ask for tiktoken."""
    import sentencepiece

    from minirlhf.hub import configs

    text = "\n".join(f"my cat left the house at {hour} and came in again" for hour in range(100))
    (tmp_path / "text").write_text(text)
    pieces = dict(pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]")
    sentencepiece.SentencePieceTrainer.train(input=str(tmp_path / "text"), model_prefix=str(tmp_path / "spm"),
                                             vocab_size=40, minloglevel=3, unk_piece="[UNK]", **pieces)  # fmt: skip
    folder = tmp_path / "deberta"
    folder.mkdir()
    shutil.copy(tmp_path / "spm.model", folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "deberta-v2"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "DebertaV2Tokenizer"}))
    tokenizer = configs.read_tokenizer(folder)
    assert tokenizer.decode(tokenizer("my cat left")["input_ids"], skip_special_tokens=True) == "my cat left"

    def missing(*ignored, **options):
        raise ValueError("`tiktoken` is required to read a `tiktoken` file.")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", missing)
    monkeypatch.setattr(configs, "_is_installed", lambda module: module != "sentencepiece")
    line = f"{folder}: cannot load the tokenizer: spm.model needs a package: pip install sentencepiece"
    with pytest.raises(UserError) as caught:
        configs.read_tokenizer(Path(folder))
    assert str(caught.value) == line
