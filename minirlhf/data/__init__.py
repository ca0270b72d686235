"""Posts and comparisons: where they come from, which rows are refused and why, what a source's content is."""
