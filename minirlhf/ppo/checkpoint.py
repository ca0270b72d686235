"""Resume points and delivered policies.

A resume point is a folder that is written beside and swapped in whole:

    weights.safetensors   the trained parameters of policy and critic (frozen ones come from the models given)
    optimizer.pt          the optimizer's state; read with weights_only=True, which runs no code
    state.json            counters, KL coefficient, history, samples, random states, settings

Prompts, sampling and minibatches are functions of the seed and the episode's number, so the position in the data is a
counter too. Resuming gives the same bytes as never having stopped.
"""

import copy
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from minirlhf.models.finite import first_bad
from minirlhf.models.loading import end_at
from minirlhf.ppo.model import Models
from minirlhf.runtime.errors import UserError, first_line
from minirlhf.runtime.files import read_object, replace_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def save_policy(folder: str | Path, models: Models, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the policy as a whole folder that `AutoModelForCausalLM.from_pretrained` loads.

    With LoRA the adapters are merged into the weights, and kept in `adapter/` besides.
    """
    end_at(models.policy.model, tokenizer)
    with replace_folder(folder) as new:
        if models.adapter is None:
            models.policy.model.save_pretrained(new)
        else:
            copy.deepcopy(models.adapter).merge_and_unload().save_pretrained(new)
            models.adapter.save_pretrained(str(new / "adapter"))
        tokenizer.save_pretrained(new)


def save_resume_point(folder: Path, models: Models, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write a resume point. `state` must be JSON; random states are added to it."""
    with replace_folder(folder) as new:
        weights = {name: parameter.detach().contiguous() for name, parameter in models.named_trainable()}
        save_file(weights, new / "weights.safetensors")
        torch.save(optimizer.state_dict(), new / "optimizer.pt")
        (new / "state.json").write_text(json.dumps(state | {"random": _random_states()}), encoding="utf-8")


def load_resume_point(
    folder: Path, models: Models, optimizer: torch.optim.Optimizer, settings: dict[str, Any], keys: Sequence[str]
) -> dict[str, Any]:
    """Put weights, optimizer and random states back, in place, and return the state that was saved, of these keys.

    Raises UserError: a damaged file, or a resume point of a run with other settings.
    """
    state = read_object(folder / "state.json", ("settings", "random", *keys))
    known = state["settings"] if isinstance(state["settings"], dict) else {}
    changed = [key for key, value in settings.items() if known.get(key) != value]
    if changed:
        raise UserError(f"{folder}: a run with another {changed[0]} stopped here; delete it to begin anew")
    try:
        weights = load_file(folder / "weights.safetensors")
        trainable = dict(models.named_trainable())
        if {name: w.shape for name, w in weights.items()} != {name: p.shape for name, p in trainable.items()}:
            raise ValueError("the weights of another model")
        broken = first_bad(weights.items())
        if broken is not None:
            raise ValueError(f"the weights {broken} are not finite")
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(weights[name])
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        _restore_random_states(state.pop("random"))
    except Exception as error:  # damage shows as nearly any type, from the readers as from what they fill
        raise UserError(f"{folder}: cannot be read ({first_line(error)}); delete it to begin anew") from error
    return state


def _random_states() -> dict[str, Any]:
    """The global random states, as JSON. The trainer draws from none of them; a user's reward function may."""
    version, words, gauss = random.getstate()
    drawn = np.random.get_state(legacy=False)
    keys, position = drawn["state"]["key"].tolist(), drawn["state"]["pos"]
    return {
        "python": [version, list(words), gauss],
        "numpy": [drawn["bit_generator"], keys, position, drawn["has_gauss"], drawn["gauss"]],
        "torch": torch.get_rng_state().tolist(),
    }


def _restore_random_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
