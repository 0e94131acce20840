"""How many connections clients have opened, as `show stat` tells (HAProxy's Management Guide, section 9.1)."""

import csv
import io

from serf_haproxy.haproxy.stat import reading

QUESTION = "show stat -1 1 -1"
_OWN = ("stats", "handover")  # not for clients


def read_arrivals(answer: str) -> dict[str, int]:
    """Return the connections since the worker started, by the name of the frontend.

    Raises:
        HaproxyFault: It is not such an answer.
    """
    with reading():
        rows = list(csv.DictReader(io.StringIO(answer.removeprefix("# "), newline="")))
        return {row["pxname"]: int(row["conn_tot"] or 0) for row in rows if row["pxname"] not in _OWN}
