"""From an experiment file to a finished run: the file's model, the planner, the launchers, tokens, memory, SLURM."""
