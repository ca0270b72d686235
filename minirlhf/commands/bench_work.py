"""The work that `minirlhf bench` gives to every trainer: shapes, and what they cost at least; needs no package."""

from dataclasses import dataclass, replace

PHASES = ("sample", "score", "learn")


@dataclass(frozen=True)
class Work:
    """One update of GPT-2 of some size, on random weights and random prompts."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int
    episodes: int  # a batch
    prompt_tokens: tuple[int, int]  # shortest, longest
    response_tokens: int
    ppo_epochs: int
    micro_batch: int

    def of(self, episodes: int | None) -> "Work":
        """The same with so many episodes an update; None: as it is."""
        episodes = episodes or self.episodes
        return replace(self, episodes=episodes, micro_batch=min(self.micro_batch, episodes))

    @property
    def tokens(self) -> float:
        """Tokens of an episode, on average, its prompt's included."""
        return sum(self.prompt_tokens) / 2 + self.response_tokens

    def flops(self, separate_critic: bool) -> dict[str, float]:
        """Multiply-adds (counted twice) of one episode that no implementation of this recipe can leave out, by phase.

        Forward passes: the policy while sampling; to score, the reference, the reward model and a separate critic
        once each; each epoch of the update takes one forward and two backward passes through policy and critic. Heads
        count at response positions only; attention counts half its square, as causal.
        """
        trunk = self.tokens * 2 * 12 * self.layers * self.width**2 + 2 * self.layers * self.width * self.tokens**2
        head = self.response_tokens * 2 * self.width * self.vocabulary
        score = trunk + head + trunk + separate_critic * trunk
        learn = 3 * self.ppo_epochs * (trunk + head + separate_critic * trunk)
        return {"sample": trunk + head, "score": score, "learn": learn}

    def description(self) -> str:
        """The work in words."""
        shortest, longest = self.prompt_tokens
        prompts = f"{longest}" if shortest == longest else f"{shortest} to {longest}"
        epochs = f"{self.ppo_epochs} epoch{'s' if self.ppo_epochs > 1 else ''}"
        return (
            f"{self.layers} layers x {self.width}, {self.vocabulary} tokens; {self.episodes} episodes an update, "
            f"prompts of {prompts} tokens, responses of {self.response_tokens}, {epochs}, "
            f"micro-batches of {self.micro_batch}"
        )


WORKS = {
    # For a GPU: the settings of Huang et al. 2024 (arXiv 2403.17031) at GPT-2's and GPT-2 medium's shapes.
    "124M": Work(12, 768, 12, 50_257, 1024, 512, (512, 512), 53, 4, 32),
    "355M": Work(24, 1024, 16, 50_257, 1024, 512, (512, 512), 53, 4, 16),
    # For a CPU: GPT-2's shape with fewer, shorter episodes and one epoch, and a small model.
    "gpt2": Work(12, 768, 12, 50_257, 1024, 8, (128, 256), 53, 1, 4),
    "small": Work(4, 128, 4, 2_048, 256, 64, (64, 128), 48, 4, 16),
    # To try things out in seconds, and for what is checked on a CPU.
    "tiny": Work(2, 32, 2, 64, 64, 8, (8, 16), 8, 2, 4),
}
