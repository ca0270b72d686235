"""How long posts and summaries are, and how many: as prepare counted them, or as the params allow."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirlhf.commands.dvc import parse_lock
from minirlhf.runtime.files import parse_json
from minirlhf.settings.params import Params

COUNTED = "details/prepare.json"
UNKNOWN_POSTS = 1000  # of a split that no setting limits, before prepare has counted it


@dataclass(frozen=True)
class Data:
    """Lengths in tokens and numbers of posts."""

    prompt: int  # median
    longest_prompt: int
    summary: int  # median
    longest_summary: int
    posts: dict[str, int]  # by split
    source: str  # where these numbers come from
    compared: int = 2  # summaries of a post that has comparisons, median
    most_compared: int = 2

    @property
    def typical(self) -> int:
        return self.prompt + self.summary

    @property
    def longest(self) -> int:
        return self.longest_prompt + self.longest_summary


def read_data(params: Params, root: Path = Path()) -> Data:
    """Sizes as prepare counted them, if dvc.lock says that it was with these params; otherwise what params allow."""
    data = params.data
    if found := _counted_with(params, root):
        parts = [found[what]["tokens"] for what in ("posts", "comparisons") if what in found]
        compared = found.get("comparisons", {}).get("summaries_of_a_post", {"median": 2, "max": 2})
        summaries = [tokens for part in parts for name, tokens in part.items() if name != "prompt"]
        return Data(
            prompt=found["posts"]["tokens"]["prompt"]["median"],
            longest_prompt=max(part["prompt"]["max"] for part in parts),
            summary=found["posts"]["tokens"]["completion"]["median"],
            longest_summary=max(tokens["max"] for tokens in summaries),
            posts={split: found["posts"][split]["kept"] for split in ("train", "validation", "test")},
            source=COUNTED,
            compared=compared["median"],
            most_compared=compared["max"],
        )
    limits = {"train": data.max_posts, "validation": data.max_validation, "test": data.max_test}
    return Data(
        prompt=data.max_prompt_tokens,
        longest_prompt=data.max_prompt_tokens,
        summary=data.max_response_tokens,
        longest_summary=data.max_response_tokens,
        posts={split: limit or UNKNOWN_POSTS for split, limit in limits.items()},
        source="the params: the longest that they allow",
    )


def _counted_with(params: Params, root: Path) -> dict[str, Any] | None:
    """What prepare counted with these params: its output, or in a clone without DVC's data the copy that git keeps."""
    if not (root / "dvc.lock").exists():
        return None
    stage = parse_lock((root / "dvc.lock").read_bytes()).get("prepare")
    now = {"data": params.data.model_dump(mode="json"), "model.base": params.model.base}
    for file in (root / COUNTED, root / "results" / COUNTED):
        if stage and stage["params"] == now and file.exists():
            raw = file.read_bytes()
            if hashlib.md5(raw).hexdigest() == stage["outs"].get(COUNTED):
                return parse_json(raw.decode(), COUNTED)
    return None
