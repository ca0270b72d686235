"""Texts: the prompt format and its truncation, the one way in which text becomes tokens, comparisons by post."""
