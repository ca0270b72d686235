"""Posts that are met again, in another spelling, cut or whole; and answers that a prompt has already."""

import pytest

from minirlhf.text.prompts import Post, build_prompt
from minirlhf.text.spelling import digest, names_of, same_post, strip_answer, without

BODY = "My cat left me on Tuesday and I do not know why."


def test_votes_on_held_out_posts_are_left_out_whole_or_cut():
    whole, cut, other = (build_prompt(Post("a", "b", body)) for body in (f"{BODY} And more.", BODY, "A dog left me."))
    names = {*same_post(whole)[0], *same_post(cut)[0]}
    noted = {"prompt": cut, "completion": " a", "names": sorted(digest(name).hex() for name in names)}
    votes = [{"prompt": prompt} for prompt in (whole.lower(), cut, build_prompt(Post("a", "b", "Another.")), other)]
    assert without(votes, [noted]) == votes[2:] and without(votes, [{"prompt": other}]) == votes[:3]
    assert without(votes, []) == votes and names_of({"messages": [{"role": "user", "content": BODY}]})


@pytest.mark.parametrize(
    ("prompt", "alone"),
    [
        ("A post.\n\nTL;DR: cat left", "A post.\n\nTL;DR:"),
        ("A post. **tl;dr** Cat  left.**", "A post. **tl;dr**"),
        ("A post. TL;DR: cat left. EDIT: she is back.", "A post.\n\nEDIT: she is back."),
        ("A post.\nAnswer: cat left", "A post.\nAnswer:"),
        ("A post. TL;DR: cat left, and then a dog.", None),
        ("A post. TL;DR: cat lefty", None),
        ("What does answer: cat left mean?", None),
        ("A post of a cat left.\n\nTL;DR:", None),
        ("", None),
    ],
)
def test_an_answer_under_a_heading_goes(prompt, alone):
    assert strip_answer(prompt, "cat left") == (prompt if alone is None else alone)
