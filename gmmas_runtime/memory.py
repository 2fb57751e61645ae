"""How much memory this process has taken."""

import resource


def peak_memory_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
