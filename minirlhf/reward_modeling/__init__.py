"""Reward models: trained on comparisons, and examined. How they score is `minirlhf.rewards`."""
