import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.text import prompts
from minirlhf.text.prompts import Post, build_completion, build_prompt, encode, parse_prompt
from minirlhf.text.truncate import truncate_prompt

EOT = "<|endoftext|>"


def words(text):
    return len(text.split())


def test_the_worked_example_of_the_docstring():
    prompt = build_prompt(Post("a", "b", "One two. Three four.\nFive"))
    assert prompt == "SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: One two. Three four.\nFive\n\nTL;DR:"
    cuts = {limit: truncate_prompt(prompt, limit, words) for limit in (11, 10, 9, 8, 7, 6)}
    assert {limit: cut and parse_prompt(cut).body for limit, cut in cuts.items()} == {
        11: "One two. Three four.\nFive",
        10: "One two. Three four.",
        9: "One two.",
        8: "One two.",
        7: "One",
        6: None,
    }
    assert all(cut is None or cut.endswith("\n\nTL;DR:") for cut in cuts.values())


def test_a_word_too_long_is_cut_between_letters():
    prompt = build_prompt(Post("a", "b", "x" * 100_000))
    assert parse_prompt(truncate_prompt(prompt, 100, len)).body == "x" * (100 - len(prompt) + 100_000)


@pytest.mark.parametrize("body", ["x" * 100_000, " " * 99_999 + "x", "\n" * 99_999 + "x", "🙂 \x00.\n" * 20_000])
def test_long_and_odd_posts_take_no_time(body):
    cut = truncate_prompt("SUBREDDIT: r/a\n\nTITLE: b\n\nPOST: y " + body + "\n\nTL;DR:", 100, len)
    assert len(cut) <= 100 and parse_prompt(cut).body.startswith("y")
    assert truncate_prompt(" " * 99_999 + "x", 10, len) == "x"


def test_other_formats_are_cut_at_their_end():
    assert truncate_prompt("one two three", 2, words) == "one two"
    assert truncate_prompt("one two three\n\nTL;DR:", 3, words) == "one two\n\nTL;DR:"


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


def test_real_posts_are_cut_to_fit(gpt2, real_posts):
    def count(text):
        return len(encode(gpt2, text))

    for row in real_posts[:40]:
        prompt, post = row["prompt"], parse_prompt(row["prompt"])
        assert truncate_prompt(prompt, 512, count) == prompt
        assert build_completion(row["completion"]) == row["completion"].rstrip()
        cut = truncate_prompt(prompt, 150, count)
        assert count(cut) <= 150
        part = parse_prompt(cut)
        assert part[:2] == post[:2] and post.body.startswith(part.body) and part.body
        assert cut.endswith("\n\nTL;DR:")


@pytest.mark.parametrize("limit", [64, 128, 256])
def test_real_posts_are_cut_at_the_last_line_break_or_sentence_that_fits(gpt2, real_posts, limit):
    """By trying every break, best kind first."""

    def count(text):
        return len(encode(gpt2, text))

    def fits(post, end):
        return count(build_prompt(post._replace(body=post.body[:end].rstrip()))) <= limit

    kinds = (r"\n", r"(?<=[.!?])\s|(?<=[.!?][\"')])\s", r"\s")
    used = [0] * len(kinds)
    for row in real_posts[:25]:
        post, cut = parse_prompt(row["prompt"]), truncate_prompt(row["prompt"], limit, count)
        if fits(post, None):
            assert cut == row["prompt"]
            continue
        for kind, pattern in enumerate(kinds):
            ends = [match.start() for match in re.finditer(pattern, post.body) if fits(post, match.start())]
            if ends:
                used[kind] += 1
                assert cut == build_prompt(post._replace(body=post.body[: max(ends)].rstrip()))
                break
    assert used[0] and used[1]  # the cases are there


@given(st.text(), st.text(max_size=20), st.integers(0, 60))
def test_whatever_the_post_the_cut_fits_and_keeps_the_frame(body, title, limit):
    prompt = build_prompt(Post("a", title, body))
    cut = truncate_prompt(prompt, limit, len)
    if cut is None:
        assert len(prompt) > limit
        return
    assert len(cut) <= limit
    assert cut.endswith("TL;DR:")
    if parse_prompt(prompt):
        assert parse_prompt(cut).title == parse_prompt(prompt).title


@given(st.text(), st.integers(0, 60))
def test_any_text_is_cut_to_a_beginning_of_it_or_refused(text, limit):
    cut = truncate_prompt(text, limit, len)
    assert cut is None or len(cut) <= limit


@given(text=st.text() | st.text(st.sampled_from("ab \n.!?🙂\x00\u202e")), limit=st.integers(0, 40))
def test_what_is_cut_fits_as_a_tokenizer_counts(small_bpe, text, limit):
    """Token counts are not monotonic in the text; what is returned fits all the same."""

    def count(part):
        return len(encode(small_bpe, part))

    for prompt in (text, build_prompt(Post("a", "b", text))):
        cut = truncate_prompt(prompt, limit, count)
        assert cut is None or count(cut) <= limit
