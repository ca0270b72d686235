import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from minirlhf.hub.configs import load_tokenizer
from minirlhf.models.loading import load_policy, new_reward_model
from minirlhf.reward_modeling.train import train_reward_model
from minirlhf.runtime.errors import UserError
from minirlhf.runtime.files import read_json
from minirlhf.settings.params import parse_params
from minirlhf.training import loop as training
from minirlhf.training.sft import train_sft
from tests.conftest import SOAK
from tests.runtime.test_memory import rows_that_fit

PETS = ("cat", "dog", "cow", "hen", "pig", "fox", "bee")
POSTS = [{"prompt": f"my {pet} left. TL;DR:", "completion": f" {pet} left."} for pet in PETS]
COMPARISONS = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": " so much."} for row in POSTS]
COMPARISONS += [COMPARISONS[0] | {"rejected": " it."}, COMPARISONS[0] | {"chosen": " it."}]  # share their summaries


class Killed(Exception):
    pass


@pytest.fixture
def train(tiny_models, settings):
    """Train a stage's model in `folder` (and stop after the resume point of a step); the weights' bytes and history."""

    def run(stage, folder, stop_after=None, prepare=lambda model: None, **changes):
        # Seven rows, four a step in two parts: three epochs, whose last batch is short.
        steps = {"steps": 6, "batch_size": 4, "micro_batch_size": 2, "log_every": 1, "eval_every": 2}
        settings[stage] |= steps | changes
        params = parse_params(json.dumps(settings), "params.yaml")
        torch.manual_seed(0)
        tokenizer = load_tokenizer(str(tiny_models / "sft"))
        if stage == "sft":
            model, rows, function = load_policy(str(tiny_models / "sft")), POSTS, train_sft
        else:
            model, function = new_reward_model(tiny_models / "sft"), train_reward_model
            rows = COMPARISONS
        prepare(model)

        def stop(callback, args, state, control, **kwargs):
            on_save(callback, args, state, control, **kwargs)
            if state.global_step == stop_after:
                raise Killed

        on_save = training.RunCallback.on_save
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training.RunCallback, "on_save", stop)
            history = function(model, tokenizer, rows, rows[:2], params, folder)
        return {name: weights.numpy().tobytes() for name, weights in model.state_dict().items()}, history

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)  # its precision is that of the whole process


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_going_on_from_any_point_gives_the_same_bytes(train, stage, tmp_path, capfd):
    whole = train(stage, tmp_path / "whole")
    assert [row["step"] for row in whole[1]] == list(range(1, 7))
    for step in range(1, 6) if SOAK else (2, 5):  # the end of an epoch, the middle of one
        folder = tmp_path / str(step)
        with pytest.raises(Killed):
            train(stage, folder, stop_after=step)
        assert read_json(folder / "resume" / "trainer_state.json")["global_step"] == step
        assert train(stage, folder) == whole
        assert f"{stage}: goes on from step {step}" in capfd.readouterr().err


def test_points_come_at_logged_steps_only(train, tmp_path):
    """A trainer does not keep the loss that it has summed since the last log."""
    whole = train("sft", tmp_path / "whole", log_every=3)
    with pytest.raises(Killed):
        train("sft", tmp_path / "parts", log_every=3, stop_after=3)
    assert train("sft", tmp_path / "parts", log_every=3) == whole
    assert train("sft", tmp_path / "other", log_every=3, stop_after=4) == whole  # not stopped: there is no such point


def test_minutes_between_points(train, settings, tmp_path):
    settings["resume_minutes"] = 60
    train("sft", tmp_path)
    assert not (tmp_path / "resume").exists()


def test_half_a_checkpoint_is_passed_over(train, tmp_path, capfd):
    whole = train("sft", tmp_path / "whole")
    with pytest.raises(Killed):
        train("sft", tmp_path / "parts", stop_after=3)
    point = tmp_path / "parts" / "resume"
    # What a SIGKILL leaves while step 4 is written, and in the middle of the swap; no process has this number.
    for half in (tmp_path / "parts/writing/checkpoint-4", point.with_name(".resume.99999999.tmp")):
        half.mkdir(parents=True)
        (half / "model.safetensors").write_bytes((point / "model.safetensors").read_bytes()[:100])
    os.rename(point, point.with_name(".resume.99999999.old"))
    assert train("sft", tmp_path / "parts") == whole
    assert "goes on from step 3" in capfd.readouterr().err
    assert os.listdir(tmp_path / "parts") == ["resume"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
                                  "trainer_state.json"])  # fmt: skip
def test_a_damaged_point_is_refused(train, tmp_path, name):
    with pytest.raises(Killed):
        train("sft", tmp_path, stop_after=2)
    file = tmp_path / "resume" / name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="resume: cannot be read .*; delete it to begin anew"):
        train("sft", tmp_path)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("stage, limit", [("sft", 1), ("reward", 4)])
def test_halving_micro_batches_leaves_the_training_as_it_was(train, stage, limit, backward, tmp_path, capfd):
    """Memory runs out in a step's second micro-batch; in the backward pass some gradients are there already.

    In double precision: Adam makes steps of rounding errors where a gradient is zero, as that of a key's bias is.
    """
    sizes = {"steps": 3, "batch_size": 8, "micro_batch_size": 4, "eval_every": 3}
    passes = []

    def exact(model):
        model.double()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    def short_of_memory(model):
        exact(model)

        def check(module, arguments, output):
            if output.requires_grad:
                passes.append(len(output))
                fits = partial(rows_that_fit, limit=limit if len(passes) > 1 else len(output))
                output.register_hook(lambda gradient: fits(len(gradient))) if backward else fits(len(output))

        model.base_model.h[0].mlp.register_forward_hook(check)

    expected, history = train(stage, tmp_path / "whole", prepare=exact, **sizes)
    weights, actual = train(stage, tmp_path / "parts", prepare=short_of_memory, **sizes)
    for name in expected:
        assert np.frombuffer(weights[name]) == pytest.approx(np.frombuffer(expected[name]), rel=0, abs=1e-9)
    for row, other in zip(actual, history, strict=True):
        assert row == pytest.approx(other, abs=2e-6)
    said = capfd.readouterr().err
    assert said.count(f"{stage}: micro_batch_size: out of memory at 4; going on with 2") == 1
    # 4 rows go well; 3 do not, nor does a part of 2; all are done anew one by one, in this step and the next two.
    assert stage == "reward" or passes == [4, 3, 2, *[1] * 21]


def test_where_a_single_row_is_too_much_one_line_says_what_to_try(train, tmp_path):
    def never(model):
        hook = lambda module, arguments, output: rows_that_fit(int(output.requires_grad), 0)  # noqa: E731
        model.base_model.h[0].mlp.register_forward_hook(hook)

    with pytest.raises(UserError, match="^sft: micro_batch_size is 1 and memory still runs out; try gradient_checkp"):
        train("sft", tmp_path, prepare=never)


def test_nothing_in_a_point_runs_code(train, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "hacked"), "w"))

    with pytest.raises(Killed):
        train("sft", tmp_path, stop_after=2)
    assert not list(tmp_path.rglob("*.bin"))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        kept = (tmp_path / "resume" / name).read_bytes()
        torch.save({"state": Attack()}, tmp_path / "resume" / name)
        with pytest.raises(UserError, match="cannot be read"):
            train("sft", tmp_path)
        (tmp_path / "resume" / name).write_bytes(kept)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_bf16_is_the_arithmetic_of_the_passes(train, settings, stage, tmp_path):
    settings["precision"] = "bf16"
    seen = set()

    def look(model):
        model.transformer.h[0].mlp.c_fc.register_forward_hook(note)

    def note(module, inputs, output):
        if module.training:
            seen.add(output.dtype)

    train(stage, tmp_path, prepare=look)
    assert seen == {torch.bfloat16}
