"""Which pairs are asked about: reproducible, balanced, a random share always, repeats with sides swapped."""

import itertools
from collections import Counter

import pytest

from minirlhf.feedback.pairs import (
    CHECK_EVERY,
    CHECKS,
    CLEAR,
    REPEAT_AFTER,
    REPEAT_EVERY,
    Queue,
    by_closeness,
    by_disagreement,
    candidate_pairs,
    clear_pairs,
    result_pairs,
)
from minirlhf.feedback.votes import Pair, Summary, Vote, Votes, add, digest
from minirlhf.runtime.files import write_jsonl
from minirlhf.world.grammar import VALUES
from minirlhf.world.judge import judge


def some(count: int, split: str = "train", each: int = 3) -> list[Pair]:
    """Pairs of `count` posts, `each` of a post."""
    return [
        Pair(prompt=f"{split} {post}", split=split, summaries=(Summary(text=f"a{i}"), Summary(text=f"b{i}")))
        for post, i in itertools.product(range(count), range(each))
    ]


def cast(ask, voter: str, number: int, choice: str = "left") -> Vote:
    pair, left, rule, repeat = ask
    return Vote(id=digest(voter, str(number)), voter=voter, pair=pair.id, left=left, choice=choice,
                shown=pair.shown(left), rule=rule, repeat=repeat)  # fmt: skip


def session(queue: Queue, voter: str, count: int, votes: list[Vote] | None = None) -> list:
    """What a voter is asked, who always takes the left one."""
    votes, asks = votes if votes is not None else [], []
    for number in range(count):
        asks.append(queue.ask(voter, votes))
        votes.append(cast(asks[-1], voter, number))
    return asks


RECORD = {slot: values[0] for slot, values in VALUES.items()}
PAIRS = some(60) + some(10, "validation") + some(10, "test")


def test_a_reload_or_another_day_changes_nothing():
    votes = []
    session(Queue(PAIRS, 0.25), "anna", 20, votes)
    assert Queue(PAIRS, 0.25).ask("anna", votes) == Queue(PAIRS, 0.25).ask("anna", votes)
    again = Queue(PAIRS, 0.25).ask("anna", votes[:-1])  # the last one was taken back
    assert (again.pair.id, again.left) == (votes[-1].pair, votes[-1].left)


def test_every_post_comes_once_before_any_comes_twice():
    asks = [ask for ask in session(Queue(PAIRS, 1.0), "anna", 50) if not ask.repeat and ask.pair.split == "train"]
    assert max(Counter(ask.pair.prompt for ask in asks).values()) == 1


def test_sides_are_drawn_for_each_voter_and_about_even():
    asks = {voter: session(Queue(PAIRS, 1.0), voter, 100) for voter in ("anna", "ben")}
    lefts = {voter: {ask.pair.id: ask.left for ask in of if not ask.repeat} for voter, of in asks.items()}
    assert lefts["anna"].keys() == lefts["ben"].keys()  # judged by all in the same order
    assert lefts["anna"] != lefts["ben"]
    assert all(30 < sum(of.values()) < 65 for of in lefts.values())


def test_a_pair_comes_again_with_its_sides_swapped():
    asks = session(Queue(PAIRS, 0.25), "anna", 150)
    again = [place for place, ask in enumerate(asks) if ask.repeat]
    assert again == list(range(REPEAT_EVERY - 1, 150, REPEAT_EVERY))
    for place in again:
        first = next(at for at, ask in enumerate(asks) if ask.pair == asks[place].pair)
        assert place - first > REPEAT_AFTER and asks[first].left == 1 - asks[place].left
    assert len({asks[place].pair.id for place in again}) == len(again)


def test_what_was_skipped_does_not_come_again():
    queue, votes = Queue(PAIRS, 1.0), []
    for number in range(REPEAT_EVERY - 1):
        votes.append(cast(queue.ask("anna", votes), "anna", number, "skip"))
    assert not queue.ask("anna", votes).repeat


def test_a_quarter_of_the_candidates_is_alike_for_all_and_random_whatever_the_rule():
    ranking = PAIRS[:180]
    queue, votes = Queue(PAIRS, 0.25, rule="closest", ranking=ranking), []
    asks = session(queue, "anna", 100, votes), session(queue, "ben", 100, votes)
    ids = [{ask.pair.id for ask in of if not ask.repeat} for of in asks]
    assert 15 <= len(ids[0] & ids[1]) <= 45
    rules = Counter(ask.rule for ask in asks[0])
    assert rules["random"] >= 20 and rules["closest"] >= 40
    chosen = [ask.pair for ask in asks[0] if ask.rule == "closest" and not ask.repeat]
    assert [pair.prompt for pair in chosen[:3]] == ["train 0", "train 1", "train 2"]  # the ranking, a post once
    assert all(ask.pair.split == "train" for of in asks for ask in of if ask.rule == "closest")


def test_held_out_posts_come_in_their_share():
    queue = Queue(some(400) + some(60, "validation") + some(60, "test"), 0.25)
    splits = Counter(ask.pair.split for ask in session(queue, "anna", 300))
    assert 15 <= splits["validation"] <= 50 and 15 <= splits["test"] <= 50


def test_all_pairs_come_and_then_none():
    queue, votes = Queue(some(3, each=2), 0.5), []
    asks = []
    while (ask := queue.ask("anna", votes)) is not None:
        asks.append(ask)
        votes.append(cast(ask, "anna", len(votes)))
    assert {ask.pair.id for ask in asks} == {pair.id for pair in queue.pairs}


def test_rules_by_hand():
    assert by_closeness([3.0, -0.1, 0.5]).tolist() == [1, 2, 0]
    agreed, opposed, shaky = (5.0, 5.0), (3.0, -3.0), (0.0, 0.5)
    assert by_disagreement(list(zip(agreed, opposed, shaky, strict=True))).tolist() == [1, 2, 0]


def test_candidates_make_all_pairs_but_equal_ones(tmp_path):
    summaries = [[" a", True], [" a", False], [" b", True], ["b ", False]]
    write_jsonl(tmp_path / "c.jsonl", [{"split": "test", "prompt": "p", "summaries": summaries, "record": {"x": "y"}}])
    pairs = candidate_pairs(tmp_path / "c.jsonl")
    assert [(p.summaries[0].text, p.summaries[1].text) for p in pairs] == [(" a", " b"), (" a", "b ")] * 2
    assert {(p.split, p.record["x"]) for p in pairs} == {("test", "y")}


def test_results_make_pairs_of_systems_without_equal_ones(tmp_path):
    row = {
        name: {"summary": text, "ended": True}
        for name, text in (("reference", "r"), ("sft_best", "s"), ("ppo_best", "s"))
    }
    write_jsonl(tmp_path / "s.jsonl", [{"post": "p", **row}])
    pairs = result_pairs(tmp_path / "s.jsonl")
    assert [tuple(side.system for side in pair.summaries) for pair in pairs] == [
        ("ppo", "reference"),
        ("sft", "reference"),
    ]


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_two_voters_share_as_much_as_they_are_told_to(shared):
    queue, votes = Queue(some(100, each=1), shared), []
    ids = [{ask.pair.id for ask in session(queue, voter, 40, votes)} for voter in ("anna", "ben")]
    assert bool(ids[0] & ids[1]) == bool(shared)


def test_a_chat_is_shown_as_what_is_said_and_trained_on_as_its_messages(tmp_path):
    messages = [{"role": "user", "content": "Sum it up."}]
    row = {"split": "train", "prompt": "<|user|>Sum it up.<|end|>", "messages": messages}
    write_jsonl(tmp_path / "c.jsonl", [row | {"summaries": [[" a", True], [" b", True]]}])
    (pair,) = candidate_pairs(tmp_path / "c.jsonl")
    assert pair.post == "Sum it up."
    votes = Votes()
    add(tmp_path, votes, [cast(Queue([pair], 1.0).ask("anna", []), "anna", 0)], {pair.id: pair})
    (row,) = votes.comparisons("train")
    assert row["prompt"] == "<|user|>Sum it up.<|end|>" and row["prompt"].messages == messages


def test_one_of_fifteen_pairs_has_a_known_answer_and_its_post_no_other():
    checks = [pair.with_answer(0) for pair in PAIRS[:30:3]]
    asks = session(Queue(PAIRS, 0.25, checks=checks), "anna", 12 * CHECK_EVERY)
    places = [place for place, ask in enumerate(asks) if ask.pair.known is not None]
    assert [place // CHECK_EVERY for place in places] == list(range(10))  # until there are no more
    assert len({place % CHECK_EVERY for place in places}) > 3  # at places that nobody can learn
    assert len({asks[place].pair.id for place in places}) == 10 and not any(asks[place].repeat for place in places)
    assert {asks[place].rule for place in places} == {"random"}
    posts = {pair.prompt for pair in checks}
    assert not [ask for ask in asks if ask.pair.known is None and ask.pair.prompt in posts]


def test_the_embedded_world_has_clear_pairs_and_others_have_none():
    good, bad = Summary(text=" my sister hid my tent"), Summary(text=" long story. no words. and so on", ended=False)
    record = {"relation": "sister", "verb": "hid", "object": "tent"}
    golds = [judge(side.text, RECORD | record, side.ended).score for side in (good, bad)]
    assert golds[0] - golds[1] >= CLEAR
    pairs = [
        Pair(prompt=f"{post}", summaries=sides, record=RECORD | record)
        for post in range(2 * CHECKS)
        for sides in ((good, bad), (bad, good), (good, good))
    ]
    found = clear_pairs(pairs)
    assert len({pair.prompt for pair in found}) == len(found) == CHECKS
    assert all(pair.summaries[pair.known] == good for pair in found)
    assert clear_pairs(PAIRS) == []
    assert clear_pairs([pair.model_copy(update={"split": "test"}) for pair in pairs]) == []
