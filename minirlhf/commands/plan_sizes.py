"""How long posts and summaries are, and how many: as prepare counted them, or as the params allow."""

from dataclasses import dataclass
from pathlib import Path

from minirlhf.runtime.files import read_json, read_text
from minirlhf.settings.params import Params

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

    @property
    def typical(self) -> int:
        return self.prompt + self.summary

    @property
    def longest(self) -> int:
        return self.longest_prompt + self.longest_summary


def read_data(params: Params, root: Path = Path()) -> Data:
    """Sizes as prepare counted them, if dvc.lock says that it was with these params; otherwise what params allow."""
    data = params.data
    if _prepared_with(params, root / "dvc.lock"):
        found = read_json(root / "metrics" / "prepare.json")
        parts = [found[what]["tokens"] for what in ("posts", "comparisons") if what in found]
        summaries = [tokens for part in parts for name, tokens in part.items() if name != "prompt"]
        return Data(
            prompt=found["posts"]["tokens"]["prompt"]["median"],
            longest_prompt=max(part["prompt"]["max"] for part in parts),
            summary=found["posts"]["tokens"]["completion"]["median"],
            longest_summary=max(tokens["max"] for tokens in summaries),
            posts={split: found["posts"][split]["kept"] for split in ("train", "validation", "test")},
            source="metrics/prepare.json",
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


def _prepared_with(params: Params, lock: Path) -> bool:
    from ruamel.yaml import YAML

    if not lock.exists() or not (lock.parent / "metrics" / "prepare.json").exists():
        return False
    stages = YAML(typ="safe", pure=True).load(read_text(lock))["stages"]
    now = {"data": params.data.model_dump(mode="json"), "model.base": params.model.base}
    return stages.get("prepare", {}).get("params", {}).get("params.yaml") == now
