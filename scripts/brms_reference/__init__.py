"""The reference of the logistic estimator: the authors' model, fitted by brms to trials of ours."""
