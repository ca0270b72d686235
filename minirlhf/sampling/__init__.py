"""The sampler, and a policy's summaries of posts."""
