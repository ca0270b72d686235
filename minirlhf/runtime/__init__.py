"""The ground that all stands on: errors, files, processes, progress, memory, resuming, and what surrounds a stage."""
