"""Where data meets the model: local training, evaluation on held-out cases, prediction of one case, pictures."""
