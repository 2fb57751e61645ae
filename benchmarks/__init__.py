"""Scripts that measure the project; each has committed results beside the command that made them."""
