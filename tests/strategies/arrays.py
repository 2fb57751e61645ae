"""The bytes of a Flower array, for tests of parcels that no codec of ours has packed."""

import io

import numpy as np


def npy(value, **options):
    stream = io.BytesIO()
    np.save(stream, value, **options)
    return stream.getvalue()
