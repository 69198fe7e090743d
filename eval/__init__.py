"""From arms to trial files: engines that answer trials, and the runner that writes what they answered.

Knows nothing of statistics.
"""
