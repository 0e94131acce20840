"""The optimum that knows the future."""

from typing import Any

import numpy as np

from scaling.service import Array, Shape

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def count_optimum(rates: Array, shape: Shape) -> Array:
    """Return the servers that exist in each step if the rate of every moment is known in advance.

    At each moment those are in service that its mean demand needs at the target utilisation. Each begins to start so
    much earlier that it is there in time, and stays through a pause that is no longer than that. Nothing is cheaper:
    servers can be numbered so that the n-th one serves when n are needed, and each then decides for itself whether
    a pause is worth an end and a new start.
    """
    needed = np.ceil(rates * shape.service_s / shape.capacity - 1e-9).clip(shape.least, shape.most).astype(int)
    lead = round(shape.start_s / shape.step_s)
    levels = np.concatenate(([0], needed, [0]))
    begin_of, begins = _list_edges(levels, np.diff(levels))
    end_of, ends = _list_edges(levels[::-1], np.diff(levels[::-1]))
    ends = len(needed) - ends  # those of the reversed levels are counted from the end
    order, end_order = np.lexsort((begins, begin_of)), np.lexsort((ends, end_of))
    begin_of, begins, ends = begin_of[order], begins[order], ends[end_order]
    # A pause between two times in which the same server is needed, and that is worth an end and a new start.
    parts = (begin_of[1:] != begin_of[:-1]) | (begins[1:] - ends[:-1] > lead)
    first = np.ones(min(1, len(begins)), dtype=bool)  # none where no server is ever needed
    change = np.zeros(len(needed) + 1)
    np.add.at(change, np.maximum(0, begins[np.concatenate((first, parts))] - lead), 1)
    np.add.at(change, ends[np.concatenate((parts, first))], -1)
    existing: Array = np.cumsum(change)[:-1]
    return existing


def _list_edges(levels: Numbers, changes: Numbers) -> tuple[Numbers, Numbers]:
    """Return the number of each server that begins to be needed, and the step of that; one may begin several times."""
    steps = np.flatnonzero(changes > 0)
    counts = changes[steps]
    places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(levels[steps], counts) + places + 1, np.repeat(steps, counts)
