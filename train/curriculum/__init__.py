"""Trainings by a curriculum: the warm-up of a small model, and the making of the model organism."""
