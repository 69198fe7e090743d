"""Entry points that put the rooms together: experiments, benchmarks, fetching the small model."""
