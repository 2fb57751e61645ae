"""FedAvg as Flower's own quickstart writes it, with a stand-in for training."""
