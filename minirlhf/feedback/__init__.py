"""Feedback on what a policy writes: summaries are sampled and compared."""
