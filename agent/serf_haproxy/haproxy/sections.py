"""The numbers of HAProxy's backend sections, by which its `show stat` (Management Guide, section 9.1) can be asked.

Asked by a name, HAProxy takes the first section that has it, and that may be a frontend, which has no servers: a
service of mode tcp has both.
"""

import csv
import io

from serf_haproxy.haproxy.stat import reading

QUESTION = "show stat -1 2 -1"  # the backend sections alone, however many servers they have


def read_numbers(answer: str) -> dict[str, str]:
    """Return the number of each backend section by name; they stay until a reload.

    Raises:
        HaproxyFault: It is not an answer to QUESTION.
    """
    with reading():
        lines = csv.DictReader(io.StringIO(answer.removeprefix("# "), newline=""))
        return {line["pxname"]: str(int(line["iid"])) for line in lines if line["pxname"]}
