"""From trial files to comparisons, the gate and results."""
