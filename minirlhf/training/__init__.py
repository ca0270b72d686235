"""Supervised fine-tuning, and the training loop around TRL's trainers that reward modelling shares."""
