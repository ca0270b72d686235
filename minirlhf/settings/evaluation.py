"""Settings of the comparison of policies, and of who judges it."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from minirlhf.settings.section import Count, Name, Positive, Section

PEOPLE = "people"


class Judge(Section):
    """A judge of summaries other than the reward that PPO was trained on; see docs/evaluation.md."""

    @field_validator("name", check_fields=False)
    @classmethod
    def _name_is_its_own(cls, name: str) -> str:
        if name in ("gold", "training reward", PEOPLE):
            raise ValueError(f"{name!r} is what results call another judge; a folder can be written ./{name}")
        return name


class RewardModelJudge(Judge):
    """A second reward model."""

    kind: Literal["reward_model"]
    name: Name  # a folder or a hub name
    revision: str | None  # hub only
    format: Literal["concat", "pair"] | None  # as reward.format


class FunctionJudge(Judge):
    """A function that scores summaries, or one that compares two."""

    kind: Literal["function", "pairwise_function"]
    name: Name  # path/to/file.py:function


class EndpointJudge(Judge):
    """A language model behind an OpenAI-compatible chat endpoint. Its key is in the environment, never here."""

    kind: Literal["endpoint"]
    name: Name  # of the model there
    url: str  # base, as https://api.openai.com/v1
    max_posts: Count  # the first ones of the test split: six requests each
    timeout: Positive  # seconds for one request

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and not set(url) & set(" ?#") and "@" not in parts.netloc
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            # Without showing the url, which may hold a password.
            raise ValueError("expected http:// or https://, a host and a path, without user, password, ? or #")
        return url


class PeopleJudge(Judge):
    """People, who vote on a page: docs/people.md."""

    kind: Literal["people"]

    @property
    def name(self) -> str:
        """What results call them."""
        return PEOPLE


JudgeParams = Annotated[RewardModelJudge | FunctionJudge | EndpointJudge | PeopleJudge, Field(discriminator="kind")]


class EvaluateParams(Section):
    """The comparison of policies on held-out posts."""

    batch_size: Count  # summaries generated or scored at a time
    bootstrap: Count  # resamples behind each 95% interval
    judge: JudgeParams | None  # null: the gold judge of the embedded world; elsewhere the training reward itself
    # each policy is compared at the one of these that suits it; 0 is greedy
    temperatures: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
    selection_posts: Count  # of the validation split, on which that one is chosen
    best_of_n: Count  # the largest n of the frontier's best-of-n; 1: none
    frontier_posts: Count  # of the test split, for the frontier
