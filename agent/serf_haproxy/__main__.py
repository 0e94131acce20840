"""Calls the command line: python -m serf_haproxy."""

import sys

from serf_haproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
