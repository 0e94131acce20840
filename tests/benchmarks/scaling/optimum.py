"""The optimum that knows the future."""

import numpy as np

from scaling.service import Array, Shape


def count_optimum(rates: Array, shape: Shape) -> Array:
    """Return the servers that exist in each step if the rate of every moment is known in advance.

    At each moment those are in service that its mean demand needs at the target utilisation. Each begins to start so
    much earlier that it is there in time, and stays through a pause that is no longer than that. Nothing is cheaper:
    servers can be numbered so that the n-th one serves when n are needed, and each then decides for itself whether
    a pause is worth an end and a new start.
    """
    needed = np.ceil(rates * shape.service_s / shape.capacity - 1e-9).clip(shape.least, shape.most).astype(int)
    lead = round(shape.start_s / shape.step_s)
    existing = np.zeros(len(needed))
    for number in range(1, needed.max() + 1):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], (needed >= number).astype(np.int8), [0]))))
        begins, ends = edges[::2], edges[1::2]
        keeps = begins[1:] - ends[:-1] > lead  # a pause that is worth an end
        begins = np.concatenate((begins[:1], begins[1:][keeps]))
        ends = np.concatenate((ends[:-1][keeps], ends[-1:]))
        begins = np.maximum(0, begins - lead)
        change = np.zeros(len(needed) + 1)
        np.add.at(change, begins, 1)
        np.add.at(change, ends, -1)
        existing += np.cumsum(change)[:-1]
    return existing
