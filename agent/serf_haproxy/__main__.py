"""The entrance of the command line: `serf-haproxy` and `python -m serf_haproxy`."""

import _signal  # type: ignore[import-not-found]  # `signal` takes longer to load, and Ctrl-C would be told meanwhile
import sys


def main() -> int:
    """Run the command line; return its exit code. Ctrl-C is quiet while it loads and ends, too."""
    is_heard = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler  # not in the background of a shell
    if is_heard:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from serf_haproxy.cli.main import main as run

    show = sys.unraisablehook
    # Where Python cannot raise it, as in a callback of an import, Python would print it.
    sys.unraisablehook = lambda told: None if isinstance(told.exc_value, KeyboardInterrupt) else show(told)
    try:
        if is_heard:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        return run()
    except KeyboardInterrupt:  # just before or after the command
        return 130
    finally:
        if is_heard:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
