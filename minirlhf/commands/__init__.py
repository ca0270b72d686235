"""The `minirlhf` command and what it offers beside the pipeline. No stage needs anything here."""
