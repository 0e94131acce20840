"""A coverage-guided fuzz of one parser, with atheris.

    python tests/fuzz/run.py PARSER -runs=1000000

It starts from `corpus/PARSER` and stores interesting inputs in `FUZZ_WORK_DIR/PARSER`, where the next run continues. A
finding ends the run; its input is in a file `crash-...` of that directory. Minimize it
(`-minimize_crash=1 -runs=10000 FILE`), fix the code, and add the file to `corpus/PARSER`, where `make test` replays it.
The other options are those of libFuzzer.
"""

import os
import sys
import tempfile

import atheris

FUZZ_DIR = os.path.dirname(os.path.abspath(__file__))
LENGTH_BYTES = 4096
HANG_S = 20

sys.path[:0] = [os.path.dirname(FUZZ_DIR)]
with atheris.instrument_imports(include=["serf_haproxy", "ipaddress"]):
    from fuzz.checks import CHECKS


def main() -> None:
    """Fuzz the parser named on the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: run.py {{{','.join(CHECKS)}}} [-runs=COUNT] [libFuzzer's options]")
    parser, *options = sys.argv[1:]
    work_dir = os.path.join(
        os.environ.get("FUZZ_WORK_DIR") or os.path.join(tempfile.gettempdir(), "serf-haproxy-fuzz"), parser
    )
    os.makedirs(work_dir, exist_ok=True)
    own = [f"-max_len={LENGTH_BYTES}", f"-timeout={HANG_S}", f"-artifact_prefix={work_dir}/", "-print_final_stats=1"]
    dictionary = os.path.join(FUZZ_DIR, "words.dict")
    seeds = [] if any(not option.startswith("-") for option in options) else [work_dir, _corpus_dir(parser)]
    argv = [sys.argv[0], *own, f"-dict={dictionary}", *options, *seeds]
    atheris.Setup(argv, CHECKS[parser])
    atheris.Fuzz()


def _corpus_dir(parser: str) -> str:
    return os.path.join(FUZZ_DIR, "corpus", parser)


if __name__ == "__main__":
    main()
