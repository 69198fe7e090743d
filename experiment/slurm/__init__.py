"""Runs on a SLURM cluster: what jobs ask for, the chain of jobs, what the queue says."""
