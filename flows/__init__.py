"""What runs, in which order. `python -m flows` is the terminal's door; deployments start the same flows."""
