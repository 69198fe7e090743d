"""Benchmarks: each runs the alternative beside ours and prints ratios."""
