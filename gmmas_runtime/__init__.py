"""What both kinds of machine need to run: atomic files, keys and certificates, supervised processes. No torch, no flwr."""
