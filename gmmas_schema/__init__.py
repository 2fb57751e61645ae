"""The words all rooms share: modalities, tasks, labels, configuration, messages and errors.

Nothing here imports torch or flwr, so a validator, a portal or a hospital's preflight can read a configuration without them.
"""
