"""What a reward and a judge of the runs on Reddit posts learn beside comparisons."""

from benchmarks.real_text import mismatched, shuffled


def test_another_posts_summary_is_rejected():
    compared = [
        {"prompt": f"post {post}", "chosen": f" of {post}, {at}", "rejected": " bad"} for post in "abc" for at in (1, 2)
    ]
    posts = [{"prompt": f"post {post}", "completion": f" of {post}"} for post in "xyz"]
    rows = mismatched(compared, posts, each=3)
    assert [row["prompt"] for row in rows] == [f"post {post}" for post in "aaabbbcccxyz"]
    for row in rows:
        post = row["prompt"][-1]
        assert row["chosen"].startswith(f" of {post}") and not row["rejected"].startswith(f" of {post}")
        assert row["rejected"] != " bad"
    assert rows == mismatched(compared, posts, each=3)


def test_shuffled_words_are_rejected():
    rows = [
        {"prompt": "post", "chosen": f" {' '.join(map(str, range(count)))}", "rejected": " bad"} for count in (9, 1)
    ]
    found = shuffled(rows)
    assert [row | {"rejected": " bad"} for row in found] == rows
    assert sorted(found[0]["rejected"].split()) == sorted(found[0]["chosen"].split())
    assert found[0]["rejected"] != found[0]["chosen"] and found == shuffled(rows)
