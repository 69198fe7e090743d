"""`python -m scripts.check_gpu`: what has to hold on a GPU before hours are spent on it."""
