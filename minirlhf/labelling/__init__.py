"""The page on which people compare summaries, served or as one file."""
