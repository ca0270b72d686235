"""Rewards as functions over text: `(prompts, responses) -> scores`."""
