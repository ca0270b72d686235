"""Settings of supervised fine-tuning, of collecting comparisons in rounds, and of the reward model."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from minirlhf.runtime.errors import UserError
from minirlhf.runtime.launch import world_size
from minirlhf.settings.section import Count, Name, Positive, Section


class TrainParams(Section):
    """What supervised fine-tuning and reward modelling have in common."""

    steps: Count  # optimizer steps
    batch_size: Count  # examples an optimizer step
    micro_batch_size: Count  # examples at a time on the device
    learning_rate: Positive
    warmup_steps: Annotated[int, Field(ge=0)]  # before a cosine decay to 0
    log_every: Count  # steps between two training losses in the curves
    eval_every: Count  # steps between two losses on the validation split
    gradient_checkpointing: bool  # less memory, a third more time

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            sizes = self.batch_size, self.micro_batch_size
            raise ValueError("batch_size ({}) must be a multiple of micro_batch_size ({})".format(*sizes))
        return self


class SFTParams(TrainParams):
    """Supervised fine-tuning on the authors' summaries."""


class CollectParams(Section):
    """Comparisons of summaries that a policy writes, by annotators; see docs/people.md."""

    annotators: Literal["simulated", "people"]  # who compares; only the embedded world has simulated ones
    votes: Annotated[int, Field(ge=0)]  # of people, that decide, before the reward model is trained
    policy: Name  # a folder: who writes the candidates; models/sft, in later rounds a copy of an aligned policy
    candidates: Annotated[int, Field(ge=0)]  # summaries a post, compared with each other and the author's; 0: none
    posts: Count  # of the train split that they are sampled for
    temperature: Positive


class Round(Section):
    """A round of feedback before the last. DVC cannot count, so each says which it is and what it comes after."""

    round: Annotated[int, Field(ge=0)]  # its comparisons are in data/feedback/ROUND
    after: Name  # the folder in data/ of the comparisons up to it: collected, feedback/0, feedback/1, ...


class FeedbackParams(Section):
    """Rounds of feedback on aligned policies; see docs/rounds.md."""

    rounds: tuple[Round, ...]

    @model_validator(mode="after")
    def _one_after_the_other(self) -> Self:
        befores = ["collected", *(f"feedback/{number}" for number in range(len(self.rounds)))]
        due = [Round(round=number, after=before) for number, before in enumerate(befores)][: len(self.rounds)]
        if list(self.rounds) != due:
            listed = ", ".join(f"{{round: {one.round}, after: {one.after}}}" for one in due)
            raise ValueError(f"{len(due)} rounds, one after the other, are rounds: [{listed}]")
        return self


class RewardParams(TrainParams):
    """The reward model: trained here, or pretrained and used as it is."""

    base: Name | None  # what to train it from, an encoder or a decoder: folder or hub name; null: the SFT model
    pretrained: Name | None  # in the place of training: a sequence classifier, folder or hub name
    revision: str | None  # of base or pretrained, hub only
    # true: the SFT model's likelihood of a summary counts as well, by weights learnt from the validation comparisons;
    # it is left out again where these say that it does not help
    likelihood: bool
    # prompt and response as one text, or as question and answer; null: concat for a decoder, pair for an encoder
    format: Literal["concat", "pair"] | None

    @model_validator(mode="after")
    def _format_fits(self) -> Self:
        if self.base is not None and self.pretrained is not None:
            raise ValueError("base (train from it) and pretrained (use it as it is) are both set; one must be null")
        if self.base is None and self.pretrained is None and self.format == "pair":
            raise ValueError("format must be concat or null where the reward model is trained from the SFT model")
        return self


def accumulation_steps(stage: str, section: "TrainParams") -> int:
    """Micro-batches that each process takes for one optimizer step, so that all of them together are `batch_size`.

    Raises:
        UserError: that is no whole number.
    """
    together = section.micro_batch_size * world_size()
    if section.batch_size % together:
        raise UserError(
            f"{stage}.batch_size: {section.batch_size} is no multiple of micro_batch_size x processes "
            f"({section.micro_batch_size} x {world_size()} = {together})"
        )
    return section.batch_size // together
