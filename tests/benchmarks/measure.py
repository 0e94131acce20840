"""Functions of all benchmarks: CPU and memory of processes, percentiles, tables in Markdown, results in JSON."""

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

REPO = Path(__file__).parents[2]
RESULTS_DIR = REPO / "docs" / "benchmarks"

_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: the number of another process's CPU clock


class Report:
    """The results of one benchmark, printed at once and written to NAME.json at the end.

    Args:
        name: The benchmark's name; docs/benchmarks.md refers to its tables as NAME.TABLE.
        options: The parsed command line; `options.results` is the directory of the JSON file, None to write none.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self._path = Path(options.results, f"{name}.json") if options.results else None
        self._result: dict[str, Any] = {
            "benchmark": name,
            "command": command_line(),
            "commit": describe_commit(),
            "machine": describe_machine(),
            "load_before": round(os.getloadavg()[0], 2),
            "tables": {},
            "goals": [],
            "data": {},
        }

    def add_table(self, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print and record a table."""
        self._result["tables"][name] = format_table(header, rows)
        print(f"\n{format_table(header, rows)}", flush=True)

    def add_goal(self, goal: str, found: str, is_met: bool) -> None:
        """Print and record a goal and the result."""
        self._result["goals"].append({"goal": goal, "found": found, "is_met": is_met})
        print(f"goal: {goal}; found: {found}; {'met' if is_met else 'NOT MET'}", flush=True)

    def add_data(self, **data: object) -> None:
        """Record the data of the plots."""
        self._result["data"].update(data)

    def write(self) -> None:
        """Write the JSON file, if the command line names a directory."""
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Microseconds are precise enough.
            result = json.loads(json.dumps(self._result), parse_float=lambda text: round(float(text), 6))
            self._path.write_text(json.dumps(result, indent=1) + "\n")


def make_parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks; from now on SIGTERM exits with cleanup."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", metavar="DIR", help="write NAME.json to this directory")
    return parser


def command_line() -> str:
    """Return the command line, without the option for the results."""
    words = [os.path.relpath(sys.argv[0], REPO), *sys.argv[1:]]
    if "--results" in words:
        index = words.index("--results")
        del words[index : index + 2]
    return " ".join(["python", *words])


def describe_commit() -> str:
    """Return the commit of the code, with a plus sign where files differ from it; "unknown" outside a repository.

    The documents do not count: each benchmark of `make bench` writes results there.
    """
    commit = _ask_git("rev-parse", "--short=10", "HEAD")
    is_other = _ask_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs")
    return commit + ("+" if is_other else "") if commit else "unknown"


def _ask_git(*words: str) -> str:
    said = subprocess.run(["git", *words], cwd=REPO, capture_output=True, text=True, check=False)
    return said.stdout.strip()


def describe_machine() -> str:
    """Return processor, memory and versions in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    mhz = next((f" at {float(line.partition(': ')[2]):.0f} MHz" for line in lines if line.startswith("cpu MHz")), "")
    memory_gib = psutil.virtual_memory().total / 2**30
    versions = (_first_line("haproxy", "-v").partition(" ")[2].split("-")[0], _first_line("serf", "version"))
    haproxy, serf = (version.rpartition(" ")[2] for version in versions)
    python = platform.python_version()
    linux = platform.release().partition("-")[0]
    programs = f"HAProxy {haproxy}, Serf {serf}, Python {python}, Linux {linux}"
    return f"{os.cpu_count()} x {model}{mhz}, {memory_gib:.0f} GiB; {programs}"


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process with all threads, without children, seconds; /proc has only steps of 10 ms."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def ended_cpu_s(pid: int) -> float:
    """Return the CPU time of those children of a process that have ended, seconds."""
    return sum(psutil.Process(pid).cpu_times()[2:4])


def tree_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and all its descendants, also of those that have ended, seconds."""
    used_s = 0.0
    for each in (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))):
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            used_s += cpu_s(each) + ended_cpu_s(each)
    return used_s


def memory_mib(pid: int) -> tuple[float, float]:
    """Return a process's resident memory (RSS) and proportional share (PSS), MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes_kib = {words[0]: int(words[1]) for words in map(str.split, lines[1:])}
    return sizes_kib["Rss:"] / 1024, sizes_kib["Pss:"] / 1024


def peak_memory_mib(pid: int) -> float:
    """Return the most resident memory that a process has had, MiB."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def child_cpu_s(run: Callable[[], object]) -> float:
    """Run a function; return the CPU time, user and system, of the children that ended meanwhile, seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def spawn(argv: Sequence[str], environ: dict[str, str], stdin_path: str) -> None:
    """Run a program to its end with a file as its standard input, and no output, without what `subprocess` costs."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, stdin_path, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    ]
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, argv


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown, in the format of docs/benchmarks.md."""
    lines = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["| " + " | ".join(map(str.rjust, line, widths)) + " |" for line in lines]
    text.insert(1, "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    return "\n".join(text)


def _first_line(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[0]
