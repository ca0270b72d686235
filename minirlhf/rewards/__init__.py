"""Rewards as functions over text: `(prompts, responses) -> scores`.

- `text`: what a reward function is, how it is called, what is refused
- `model`: a sequence-classification model with its own tokenizer
- `combine`: weighted sums and ensembles
"""
