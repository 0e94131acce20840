"""What the benchmarks share: the CPU time of child processes, medians, and a table."""

import os
import resource
import statistics
from collections.abc import Callable, Sequence


def child_cpu_s(run: Callable[[], object]) -> float:
    """Return the CPU time, user and system, of the children that ended while a function ran, seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def spawn(argv: Sequence[str], environ: dict[str, str], stdin_path: str) -> None:
    """Run a program to its end with a file as its standard input, at no cost of Python's own machinery."""
    actions = [(os.POSIX_SPAWN_OPEN, 0, stdin_path, os.O_RDONLY, 0)]
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, argv


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown, as docs/benchmarks.md holds it."""
    lines = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
