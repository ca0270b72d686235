"""People in the pipeline: collect leaves pairs, reward waits for votes and goes on, evaluate takes them as a judge."""

import shutil

import pytest

from minirlhf.feedback.pairs import Queue, candidate_pairs, result_pairs
from minirlhf.labelling.session import Session
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_csv, read_json, read_jsonl, write_json, write_jsonl
from stages import collect, evaluate, ppo, prepare, reward, sft, source
from tests.labelling.test_session import said
from tests.stages.test_training_stages import change, prepared  # noqa: F401


def without_truth(folder) -> None:
    """Own posts: what the embedded world knows of them is not there."""
    for path in (folder / "data/prepared/posts").glob("*.jsonl"):
        write_jsonl(path, [{key: row[key] for key in ("prompt", "completion")} for row in read_jsonl(path)])
    for split in ("train", "validation", "test"):
        write_jsonl(folder / f"data/prepared/comparisons/{split}.jsonl", [])


def vote(session: Session, count: int, voter: str = "anna") -> None:
    """A voter who always prefers the left one, up to so many times."""
    state = session.next(voter)
    while state["ask"] and state["done"] < count:
        state = session.vote(voter, said(state))


def candidates_of(folder) -> Session:
    """A session on what collect has left."""
    pairs = candidate_pairs(folder / "data/collected/candidates.jsonl")
    return Session(folder / "data/votes/candidates", Queue(pairs, 0.25))


@pytest.fixture
def own(prepared, tiny_models):  # noqa: F811
    """Own posts without comparisons, and the SFT model: the current folder."""
    change(prepared, "data", posts="own", comparisons=None)
    change(prepared, "collect", annotators="people", votes=20, candidates=2, posts=8, policy=str(tiny_models / "sft"))
    change(prepared, "evaluate", best_of_n=1, bootstrap=20, judge={"kind": "people"})
    without_truth(prepared)
    return prepared


def test_own_posts_without_comparisons_and_an_hour(own, tiny_models):
    collect.main([])
    assert [path.name for path in (own / "data/collected").iterdir()] == ["candidates.jsonl"]
    with pytest.raises(UserError, match=r"^20 of 20 votes are missing .*`minirlhf label`"):
        reward.main(["--sft", str(tiny_models / "sft")])

    session = candidates_of(own)
    vote(session, 12)
    with pytest.raises(UserError, match=r"^8 of 20 votes are missing|^9 of 20 votes are missing"):
        reward.main(["--sft", str(tiny_models / "sft")])
    vote(session, 60)
    assert all(session.votes.comparisons(split) for split in ("train", "validation", "test"))
    reward.main(["--sft", str(tiny_models / "sft")])
    metrics = read_json("details/reward.json")
    assert "reward_accuracy_collected" in metrics and "reward_accuracy_given" not in metrics
    assert metrics["reward_length"]["longer_by_annotators"]

    ppo.main(["--sft", str(tiny_models / "sft")])
    shutil.copytree(tiny_models / "ppo", "models/ppo", dirs_exist_ok=True)  # which writes what SFT does not
    policies = ["--sft", str(tiny_models / "sft")]
    evaluate.main(policies)
    metrics = read_json("details/evaluate.json")
    assert metrics["win_rate"]["judge"] == "training reward" and "people" not in metrics  # nobody has voted yet

    session = Session(own / "data/votes/results", Queue(result_pairs(own / "details/summaries.jsonl"), 1.0))
    for voter in ("anna", "ben"):
        vote(session, 15, voter)
    before = read_jsonl("details/summaries.jsonl")
    evaluate.main(policies)
    metrics = read_json("details/evaluate.json")
    assert metrics["win_rate"]["judge"] == "people" and metrics["win_rate"]["posts"] == metrics["people"]["posts"]
    assert metrics["people"]["voters"] == 2 and metrics["people"]["judges"]["people"]["first_place"]["value"] == 1
    assert metrics["people"]["judges"]["training reward"]["agreement"]
    assert "people" in {row["judge"] for row in read_csv("details/win_rates.csv")}
    assert [row["ppo_best"] for row in read_jsonl("details/summaries.jsonl")] == [row["ppo_best"] for row in before]


def test_dpo_learns_from_people(own, tiny_models):
    change(own, "collect", votes=0)
    settings = read_json("params.yaml") | {"algorithm": "dpo"}
    write_json("params.yaml", settings)
    collect.main([])
    session = candidates_of(own)
    vote(session, 70)
    reward.main(["--sft", str(tiny_models / "sft")])
    ppo.main(["--sft", str(tiny_models / "sft")])
    assert read_json("details/ppo.json")["algorithm"] == "dpo"


def test_votes_in_no_held_out_post_are_said_so(own, tiny_models):
    change(own, "collect", votes=1)
    collect.main([])
    session = candidates_of(own)
    vote(session, 2)
    with pytest.raises(UserError, match="no comparison of a (validation|test) post"):
        reward.main(["--sft", str(tiny_models / "sft")])


def test_no_comparisons_need_no_source(prepared, tiny_models):  # noqa: F811
    change(prepared, "data", posts=str(prepared / "data/prepared/posts"), comparisons=None)
    change(prepared, "data", max_response_tokens=200)
    source.main([])
    assert read_json("data/sources/comparisons.json") == {"kind": "none"}
    prepare.main(["--output", "out"])
    assert {path.name: path.read_text() for path in (prepared / "out/comparisons").iterdir()} == {
        f"{split}.jsonl": "" for split in ("train", "validation", "test")}  # fmt: skip
    sft.main([])


def test_a_second_round_is_written_by_another_policy(own, tiny_models):
    collect.main([])
    first = read_jsonl("data/collected/candidates.jsonl")
    change(own, "collect", policy=str(tiny_models / "ppo"))
    collect.main([])
    second = read_jsonl("data/collected/candidates.jsonl")
    assert [row["prompt"] for row in first] == [row["prompt"] for row in second]
    assert [row["summaries"][-1] for row in first] == [row["summaries"][-1] for row in second]  # the author's
    assert [row["summaries"][0] for row in first] != [row["summaries"][0] for row in second]
