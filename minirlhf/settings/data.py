"""Settings of the data and of the base model."""

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from minirlhf.settings.section import Count, Name, Section

EMBEDDED = "embedded"


class DataParams(Section):
    """Where posts and comparisons come from, how many are used, and how long they may be."""

    posts: Name  # "embedded", a folder, or the name of a data set on the hub; see minirlhf/data/sources.py
    posts_revision: str | None  # hub only: branch, tag or commit; null is the newest
    comparisons: Name | None  # null: none are given, and people's votes make them; see docs/people.md
    comparisons_revision: str | None
    world_seed: Annotated[int, Field(ge=0)]  # of the embedded world: apart from the training seed
    habits: Annotated[float, Field(ge=0, le=1)]  # of its authors: 0 none, 1 at their rates (minirlhf/world/authors.py)
    max_posts: Count | None  # of the train split; null is all. The embedded world makes as many as these say.
    max_comparisons: Count | None
    max_validation: Count | None  # of posts, and as many comparisons
    max_test: Count | None
    max_prompt_tokens: Count  # a longer one is cut at its body's last paragraph, sentence or word that fits
    # null: where the body is, is found (minirlhf/text/truncate.py); or a regular expression with a group "body"
    body: str | None
    max_response_tokens: Annotated[int, Field(ge=2)]  # EOS included

    @field_validator("body")
    @classmethod
    def _has_a_body(cls, pattern: str | None) -> str | None:
        try:
            named = re.compile(pattern or "(?P<body>)").groupindex
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        if "body" not in named:
            raise ValueError('a regular expression with a group "body", as "Article:(?P<body>.*)TL;DR:$"')
        return pattern

    @model_validator(mode="after")
    def _embedded_world_is_whole(self) -> Self:
        if self.comparisons is not None and (self.posts == EMBEDDED) != (self.comparisons == EMBEDDED):
            raise ValueError("posts and comparisons are either both embedded or neither")
        if self.posts == EMBEDDED:
            for key in ("max_posts", "max_comparisons", "max_validation", "max_test"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} must be a number: the embedded world makes as many as it says")
        return self


class ModelParams(Section):
    """The model that training starts from, its tokenizer included."""

    base: Name  # a folder, or a name on the hub
    revision: str | None  # hub only
    # null: the base's own weights; {n_layer: 2, ...}: random ones, in the base's architecture with these changes
    random_weights: dict[str, int] | None
