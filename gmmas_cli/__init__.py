"""The `gmmas` command, one file per command group."""
