"""What a trial is: choice contexts, weights, trials, prompts and replies.

Everything here needs numpy only. The rooms `train`, `eval` and `analysis` build on this one and never on each other.
"""
