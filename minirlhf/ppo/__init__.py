"""Proximal policy optimization of language models: `from minirlhf.ppo import PPOConfig, PPOTrainer`.

`PPOConfig` needs no torch; the trainer and what it brings are imported when first asked for.
"""

from typing import TYPE_CHECKING

# Names as themselves mark what the package offers; no __all__, which would hide the modules' own API pages.
from minirlhf.settings.ppo import LoRAConfig as LoRAConfig
from minirlhf.settings.ppo import PPOConfig as PPOConfig

if TYPE_CHECKING:
    from minirlhf.ppo.trainer import PPOTrainer as PPOTrainer


def __getattr__(name: str):
    if name == "PPOTrainer":
        from minirlhf.ppo.trainer import PPOTrainer

        return PPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
