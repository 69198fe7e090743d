"""The model organism: a very small language model, made by us, that chooses and reports by weights that are known."""
