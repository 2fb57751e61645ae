"""The federated algorithms: which tensors leave a site, how they travel, and how replies become the next model. No torch."""
