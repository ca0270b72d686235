import copy
import json
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minirlhf.runtime.errors import UserError
from minirlhf.settings.params import Params, load_params, parse_params


def put(settings, key, value):
    *parents, last = key.split(".")
    for parent in parents:
        settings = settings[parent]
    settings[last] = value


def message(settings):
    with pytest.raises(UserError) as caught:
        parse_params(json.dumps(settings), "params.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_settings_come_out_typed_and_frozen(settings, tmp_path):
    (tmp_path / "params.yaml").write_text(json.dumps(settings))
    params = load_params(tmp_path / "params.yaml")
    assert params.model_dump(mode="json") == settings
    with pytest.raises(pydantic.ValidationError):
        params.seed = 2
    with pytest.raises(pydantic.ValidationError):
        params.sft.steps = 2


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("ppo.kl_coef", "abc", "ppo.kl_coef: expected a number >= 0, got 'abc' (params.yaml)"),
        ("ppo.kl_coef", -1, "ppo.kl_coef: expected a number >= 0, got -1 (params.yaml)"),
        ("feedback.rounds", 1, "feedback.rounds: expected a list, each of it a group of settings, got 1 (params.yaml)"),
        ("feedback.rounds", [1], "feedback.rounds.0: expected the settings round, after, got 1 (params.yaml)"),
        ("feedback.rounds", [{"round": 0}], "feedback.rounds.0.after: missing; expected text that is not empty "
         "(params.yaml)"),
        ("feedback.rounds", [{"round": 0, "after": "collected", "posts": 9}],
         "feedback.rounds.0.posts: unknown setting; expected one of round, after (params.yaml)"),
        ("feedback.rounds", [{"round": -1, "after": "collected"}],
         "feedback.rounds.0.round: expected an integer >= 0, got -1 (params.yaml)"),
        ("feedback.rounds", [{"round": 0, "after": "collected"}, {"round": 2, "after": "feedback/1"}],
         "feedback: 2 rounds, one after the other, are rounds: [{round: 0, after: collected}, "
         "{round: 1, after: feedback/0}] (params.yaml)"),
        ("ppo.klcoef", 1, "ppo.klcoef: unknown setting; did you mean kl_coef? (params.yaml)"),
        ("model.xyz", 1, "model.xyz: unknown setting; expected one of base, revision, "
         "random_weights (params.yaml)"),
        ("threads", 0, "threads: expected an integer >= 1, got 0 (params.yaml)"),
        ("threads", True, "threads: expected an integer >= 1, got true (params.yaml)"),
        ("threads", 1.5, "threads: expected an integer >= 1, got 1.5 (params.yaml)"),
        ("threads", "2", "threads: expected an integer >= 1, got '2' (params.yaml)"),
        ("device", "gpu", "device: expected one of auto, cpu, cuda, mps, got 'gpu' (params.yaml)"),
        ("data.max_posts", 0, "data.max_posts: expected an integer >= 1 or null, got 0 (params.yaml)"),
        ("sft.warmup_steps", -1, "sft.warmup_steps: expected an integer >= 0, got -1 (params.yaml)"),
        ("model.random_weights", 2, "model.random_weights: expected a group of settings or null, got 2 "
         "(params.yaml)"),
        ("algorithm", "reinforce", "algorithm: expected one of ppo, rloo, grpo, dpo, got 'reinforce' (params.yaml)"),
        ("rloo.num_generations", 1, "rloo.num_generations: expected an integer >= 2, got 1 (params.yaml)"),
        ("grpo.beta", 0, "grpo.beta: expected a number > 0, got 0 (params.yaml)"),
        ("dpo.num_generations", 4, "dpo.num_generations: unknown setting; expected one of episodes, batch_size, "
         "micro_batch_size, beta, learning_rate (params.yaml)"),
        ("model.base", "", "model.base: expected text that is not empty, got '' (params.yaml)"),
        ("sft", 3, "sft: expected the settings steps, batch_size, micro_batch_size, learning_rate, "
                   "warmup_steps, log_every, eval_every, gradient_checkpointing, got 3 (params.yaml)"),
    ],
)  # fmt: skip
def test_one_line_names_the_setting_and_what_it_accepts(settings, key, value, expected):
    put(settings, key, value)
    assert message(settings) == expected


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("sft.micro_batch_size", 3, "sft: batch_size (8) must be a multiple of micro_batch_size (3)"),
        ("data.posts", "mine", "data: posts and comparisons are either both embedded or neither"),
        ("data.max_test", None, "data: max_test must be a number"),
        ("reward.format", "pair", "reward: format must be concat"),
        ("dpo.episodes", 12, "dpo: episodes (12) must be a multiple of batch_size (8)"),
        ("grpo.micro_batch_size", 3, "grpo: batch_size (8) must be a multiple of micro_batch_size (3)"),
        ("rloo.num_generations", 3, "rloo: num_generations (3) must divide batch_size (8)"),
    ],
)
def test_settings_that_do_not_fit_together(settings, key, value, part):
    put(settings, key, value)
    assert message(settings).startswith(part)


def test_a_reward_model_is_trained_from_a_base_or_taken_as_it_is(settings):
    settings["reward"] |= {"base": "a/b", "format": "pair"}
    assert parse_params(json.dumps(settings), "params.yaml").reward.base == "a/b"
    settings["reward"]["pretrained"] = "c/d"
    assert message(settings).startswith("reward: base (train from it) and pretrained (use it as it is) are both set")


MODEL = {"kind": "reward_model", "name": "models/own/judge", "revision": None, "format": "pair"}
ENDPOINT = {"kind": "endpoint", "name": "m", "url": "http://localhost:8000/v1", "max_posts": 200, "timeout": 60}


@pytest.mark.parametrize("judge", [MODEL, ENDPOINT, {"kind": "function", "name": "a.py:f"}])
def test_each_kind_of_judge_has_settings_of_its_own(settings, judge):
    settings["evaluate"]["judge"] = judge
    params = parse_params(json.dumps(settings), "params.yaml")
    assert params.model_dump(mode="json") == settings


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        ({**ENDPOINT, "timeout": 0}, ".timeout: expected a number > 0, got 0"),
        ({**ENDPOINT, "max_posts": None}, ".max_posts: expected an integer >= 1, got null"),
        ({**ENDPOINT, "api_key": "sk-1"}, ".api_key: unknown setting; expected one of kind, name, url, max_posts, "
         "timeout"),
        ({**MODEL, "url": "x"}, ".url: unknown setting; expected one of kind, name, revision, format"),
        ({"kind": "endpoint", "name": "m"}, ".url: missing; expected text"),
        ({"name": "m"}, ".kind: missing; expected one of endpoint, function, pairwise_function, people, reward_model"),
        ({"kind": 0}, ".kind: expected one of endpoint, function, pairwise_function, people, reward_model, got 0"),
        ({"kind": []}, ".kind: expected one of endpoint, function, pairwise_function, people, reward_model, got []"),
        ("gpt", ": expected a group of settings or null, got 'gpt'"),
        ({**MODEL, "name": "gold"}, ".name: 'gold' is what results call another judge; a folder can be written ./gold"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_judge_is_said_of_its_kind(settings, judge, expected):
    settings["evaluate"]["judge"] = judge
    assert message(settings) == f"evaluate.judge{expected} (params.yaml)"


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://host/v1", "http:///v1", "http://me:secret@host/v1", "http://host/v1?key=secret",
     "http://host /v1", "http://[host/v1", "http://höst/v1"],
)  # fmt: skip
def test_a_url_with_more_than_host_and_path_is_refused_without_showing_it(settings, url):
    settings["evaluate"]["judge"] = {**ENDPOINT, "url": url}
    said = message(settings)
    assert said.startswith("evaluate.judge.url: ") and "secret" not in said


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo", "dpo"])
def test_the_aligner_is_the_section_of_the_algorithm(settings, algorithm):
    params = parse_params(json.dumps(settings | {"algorithm": algorithm}), "params.yaml")
    assert params.aligner is getattr(params, algorithm)


def test_candidates_need_the_embedded_world(settings):
    settings["collect"]["candidates"] = 4
    settings["data"] |= {"posts": "own", "comparisons": "own"}
    assert message(settings).startswith("collect.annotators must be people")


def test_every_key_must_be_there_even_with_a_default(settings):
    del settings["ppo"]["kl_coef"]
    assert message(settings) == "ppo.kl_coef: missing; expected a number >= 0 (params.yaml)"
    del settings["ppo"]
    assert message(settings).startswith("ppo: missing; expected a group of settings")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: c: d\n", "p.yaml, line 2: not YAML: mapping values are not allowed here"),
        ("seed: 1\nseed: 2\n", 'p.yaml, line 2: not YAML: found duplicate key "seed"'),
        ("", "params: expected the settings seed, ppo_seed, launch, threads, "),
        ("- 1\n", "params: expected the settings seed, ppo_seed, launch, threads, "),
        ("seed: !!python/object:os.system 1", "p.yaml, line 1: not YAML: could not determine a constructor"),
        ("seed: &x [*x]", "ppo_seed: missing"),
        ("\x00", "p.yaml: not YAML"),
    ],
)
def test_what_is_no_settings_file(text, expected):
    with pytest.raises(UserError) as caught:
        parse_params(text, "p.yaml")
    assert str(caught.value).startswith(expected)


def test_numbers_are_read_as_in_yaml_1_2(settings):
    text = json.dumps(settings).replace("0.0005", "3e-6")
    assert parse_params(text, "params.yaml").sft.learning_rate == 3e-6
    for bad in (".nan", ".inf"):
        with pytest.raises(UserError, match=f"sft.learning_rate: expected a number > 0, got {bad[1:]}"):
            parse_params(text.replace("3e-6", bad, 1), "params.yaml")


def test_no_rate_of_ppo_is_infinite(settings):
    settings["ppo"]["lora"] = {"rank": 2, "alpha": 1.5, "target_modules": None}
    for old, key in (("3e-06", "ppo.learning_rate"), ("0.7", "ppo.temperature"), ("1.5", "ppo.lora.alpha")):
        for bad in (".inf", ".nan"):
            text = json.dumps(settings)
            assert text.count(f": {old}") == 1
            with pytest.raises(UserError, match=f"^{key}: expected a number > 0, got {bad[1:]}"):
                parse_params(text.replace(f": {old}", f": {bad}"), "params.yaml")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="none.yaml: cannot be read"):
        load_params(tmp_path / "none.yaml")


def test_importing_params_imports_no_torch():
    code = "import sys, minirlhf.settings.params; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(text=st.text() | VALUES.map(json.dumps))
def test_any_text_is_params_or_a_user_error(text):
    try:
        assert isinstance(parse_params(text, "params.yaml"), Params)
    except UserError:
        pass


TEXT = (Path(__file__).parents[2] / "profiles" / "embedded.yaml").read_text()
SYNTAX = ["\t", "\n", ": ", "- ", "{", "}", "&a ", "*a", "!!", "|", "#", ".inf", "\ufeff"]
PIECES = st.text(max_size=4) | st.sampled_from(SYNTAX)
EDITS = st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 12), PIECES), min_size=1, max_size=3)


@given(EDITS)
def test_any_edit_of_a_params_file_is_params_or_a_user_error(edits):
    text = TEXT
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    try:
        assert isinstance(parse_params(text, "params.yaml"), Params)
    except UserError as error:
        assert "params.yaml" in str(error)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_place_is_params_or_a_user_error(settings, data):
    settings = copy.deepcopy(settings)
    section = data.draw(st.sampled_from(sorted(settings)))
    where = settings[section] if isinstance(settings[section], dict) else settings
    where[data.draw(st.sampled_from(sorted(where)) | st.text())] = data.draw(VALUES)
    try:
        assert parse_params(json.dumps(settings), "p").model_dump(mode="json").keys() == settings.keys()
    except UserError as error:
        assert str(error).endswith(" (p)") or str(error).startswith("p")


ROUND = [{"round": 0, "after": "collected"}]


def test_a_round_needs_somebody_who_compares_at_once(settings):
    settings["feedback"]["rounds"] = ROUND
    assert "must be [] where nobody compares what a policy writes (collect.candidates: 0)" in message(settings)
    settings["collect"] |= {"candidates": 2}
    assert parse_params(json.dumps(settings), "params.yaml").feedback.rounds[0].after == "collected"
    settings["collect"] |= {"annotators": "people"}
    assert message(settings).startswith("feedback.rounds must be [] where people compare: for their next round copy")
    settings["collect"] |= {"annotators": "simulated"}
    settings["data"] |= {"posts": "mine", "comparisons": None}
    assert "collect.annotators must be people: only the embedded world has simulated ones" in message(settings)
