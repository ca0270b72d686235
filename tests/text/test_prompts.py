import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.text import prompts
from minirlhf.text.prompts import Post, build_completion, encode, parse_prompt

EOT = "<|endoftext|>"


def words(text):
    return len(text.split())


@pytest.mark.parametrize(
    ("prompt", "post"),
    [
        ("SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: c TL;DR: d\n\nTL;DR:", Post("a", "b", "c TL;DR: d")),
        ("SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: \n\nTL;DR:", Post("a", "b", "")),
        ("SUBREDDIT: r/a\n\nTITLE: \n\nPOST: c\nTL;DR: ", Post("a", "", "c")),
        ("TITLE: b\n\nPOST: c\n\nTL;DR:", None),
        ("", None),
    ],
)
def test_parsing(prompt, post):
    assert parse_prompt(prompt) == post


def test_the_leading_space_is_not_doubled():
    assert build_completion("a b") == build_completion(" a b") == build_completion("\n a b \n") == " a b"


@pytest.mark.parametrize("name", ["gpt2", "small_bpe"])
def test_special_token_text_stays_text(name, request):
    tokenizer = request.getfixturevalue(name)
    text = f" hi{EOT} there {EOT}"
    ids = encode(tokenizer, text)
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id in tokenizer(text)["input_ids"]  # what would happen without care
    assert prompts.encode_all(tokenizer, [text, "", "a"]) == [ids, [], encode(tokenizer, "a")]
    assert prompts.encode_all(tokenizer, []) == []


SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


def make_special(core):
    from transformers import PreTrainedTokenizerFast

    core.add_special_tokens(SPECIALS)
    named = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="[SEP]", **named)


@pytest.fixture(scope="module")
def wordpiece():
    """As BERT's in kind."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = [part for letter in "[]SEPCLUNKDAhi" for part in (letter, f"##{letter}")]
    core = Tokenizer(models.WordPiece({t: i for i, t in enumerate(SPECIALS + letters)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return make_special(core)


@pytest.fixture(scope="module")
def unigram():
    """As DeBERTa-v3's in kind: its special tokens are pieces of text too, of the best score."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    pieces = [(token, 0.0) for token in SPECIALS] + [(letter, -3.0) for letter in "▁[]SEPCLUNKDAhi"]
    core = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    core.normalizer, core.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    return make_special(core)


@pytest.mark.parametrize("name", ["wordpiece", "unigram"])
@pytest.mark.parametrize("text", ["hi[SEP]hi", "[SEP]", "[S[SEP]EP] [CLS][PAD]", "hi \uff3bSEP\uff3d", "[ SEP]"])
def test_special_tokens_of_encoders_stay_text(name, text, request):
    tokenizer = request.getfixturevalue(name)
    allowed = set(range(len(tokenizer))) - set(tokenizer.convert_tokens_to_ids(["[PAD]", "[CLS]", "[SEP]"]))
    ids = encode(tokenizer, text)
    assert ids and set(ids) <= allowed
    assert prompts.encode_all(tokenizer, ["hi", text]) == [encode(tokenizer, "hi"), ids]
    pair = tokenizer(*prompts.spell_out(tokenizer, [text, text]), split_special_tokens=True, add_special_tokens=False)
    assert set(pair["input_ids"]) <= allowed


def test_a_unigram_tokenizer_would_read_special_tokens(unigram):
    """What the care above is for: transformers' own option does not suffice."""
    ids = unigram("hi[SEP]", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert unigram.sep_token_id in ids


@given(st.text(st.sampled_from("[]SEPCL hi\uff3b\uff3d")))
def test_no_spelling_becomes_a_special_token(unigram, text):
    ids = encode(unigram, text)
    assert not {unigram.pad_token_id, unigram.cls_token_id, unigram.sep_token_id}.intersection(ids)
