"""MiniRLHF: summarisation by human feedback, whole and small. Import what you need from the modules."""
