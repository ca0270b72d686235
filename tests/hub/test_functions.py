import pytest

from minirlhf.hub.functions import load_function
from minirlhf.runtime.errors import UserError


@pytest.mark.parametrize(
    ("spec", "content", "message"),
    [
        ("judge", None, "expected path/to/file.py:function, got 'judge'"),
        ("{}/none.py:score", None, "no file"),
        ("{}/judge.py:other", "def score(p, r): return [0.0]", "has no function other"),
        ("{}/judge.py:score", "1 / 0", "cannot be run: ZeroDivisionError"),
    ],
)
def test_a_function_that_cannot_be_had_is_refused_in_one_line(tmp_path, spec, content, message):
    if content:
        (tmp_path / "judge.py").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_function(spec.format(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_function_is_loaded(tmp_path):
    (tmp_path / "length.py").write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    assert load_function(f"{tmp_path}/length.py:score")(["p"], ["four"]) == [4]
