"""The command line: serf-haproxy run | once | check | render | boot | release | proof | status | ready | lab."""

import argparse
import json
import logging
import os
import sys
from typing import NoReturn

from serf_haproxy import __version__
from serf_haproxy.errors import EXIT_INPUT, EXIT_SYSTEM, SerfHaproxyError
from serf_haproxy.lab import command as lab
from serf_haproxy.settings import Settings, load_settings, unknown_variables


class Parser(argparse.ArgumentParser):
    """A parser that ends with our exit code for wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and end."""
        self.print_usage(sys.stderr)
        self.exit(EXIT_INPUT, f"{self.prog}: {message}\n")


def main() -> int:
    """Run one command; return its exit code: 0, 100 for wrong input, 111 for a system failure."""
    args = _parser().parse_args()
    try:
        code: int = args.command(args)
    except SerfHaproxyError as error:
        for line in str(error).splitlines():
            print(f"serf-haproxy: {line}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SYSTEM
    return code


def run(args: argparse.Namespace) -> int:
    """Be the resident."""
    from serf_haproxy.daemon.log import LossyHandler
    from serf_haproxy.daemon.loop import Resident

    level, handlers = args.log_level.upper(), [LossyHandler(2)]
    logging.basicConfig(level=level, format="level=%(levelname)s msg=%(message)r", handlers=handlers, force=True)
    Resident(lambda: load_settings(os.environ), args.notify_fd).run()
    return 0


def once(_args: argparse.Namespace) -> int:
    """Make one pass."""
    from serf_haproxy.control.reconcile import prepare_directories, reconcile
    from serf_haproxy.serf.client import Link

    logging.basicConfig(level=logging.WARNING, format="serf-haproxy: %(message)s")
    settings = load_settings(os.environ)
    prepare_directories(settings)
    link = Link(settings, patience_s=0.0)
    try:
        outcome = reconcile(settings, link.ask)
    finally:
        link.close()
    for problem in outcome.problems:
        print(f"serf-haproxy: {problem}", file=sys.stderr)
    print(f"{outcome.verdict} {outcome.reason}")
    return outcome.verdict.exit_code


def check(_args: argparse.Namespace) -> int:
    """Check the settings, the template and the resulting configuration; touch nothing."""
    import tempfile

    from serf_haproxy.haproxy import config_file

    settings = load_settings(os.environ)
    for name in unknown_variables(os.environ):
        print(f"serf-haproxy: {name}: there is no such setting; see docs/settings.md", file=sys.stderr)
    text = _rendered(settings)
    with tempfile.TemporaryDirectory(prefix="serf-haproxy-check-") as directory:
        words = config_file.check(settings.replace(config_path=os.path.join(directory, "haproxy.cfg")), text)
    if words is not None:
        print(
            f"serf-haproxy: HAProxy refuses the configuration; 'serf-haproxy render' prints it\n{words}",
            file=sys.stderr,
        )
        return EXIT_INPUT
    print(f"settings, template and configuration are valid ({text.count(chr(10))} lines)")
    return 0


def render(args: argparse.Namespace) -> int:
    """Print the configuration for the present node files."""
    settings = load_settings(os.environ)
    text = _rendered(settings)
    if args.output:
        from serf_haproxy.system.files import write_durably

        write_durably(os.path.abspath(args.output), text)
    else:
        sys.stdout.write(text)
    return 0


def boot(_args: argparse.Namespace) -> int:
    """Put the best configuration that HAProxy accepts into the place of a missing or broken one."""
    from serf_haproxy.control.boot import boot as put_best
    from serf_haproxy.control.reconcile import prepare_directories

    settings = load_settings(os.environ)
    prepare_directories(settings)
    print(put_best(settings))
    return 0


def release(_args: argparse.Namespace) -> int:
    """Let servers go that are held because too many were lost at once."""
    from serf_haproxy.control import state
    from serf_haproxy.control.goal import read_pool
    from serf_haproxy.serf.wake import wake

    settings = load_settings(os.environ)
    held = read_pool(settings).held
    state.release(settings)
    is_heard = wake(settings.wake_fifo)
    print(
        f"{len(held)} servers are let go{'' if is_heard else ', once the resident runs'}: {' '.join(held)}".rstrip(": ")
    )
    return 0


def proof(args: argparse.Namespace) -> int:
    """Print the tag by which a node shows that it belongs here."""
    from serf_haproxy.control.goal import read_secret_file
    from serf_haproxy.errors import InputError
    from serf_haproxy.policy.proof import PROOF_TAG, make_proof

    secrets = read_secret_file(load_settings(os.environ))
    if not secrets:
        raise InputError("SERF_HAPROXY_PROOF_SECRET_FILE is not set; name the file with the secret in it")
    try:
        tags = dict(tag.split("=", 1) for tag in args.tag)
        print(f"{PROOF_TAG}={make_proof(secrets[0], args.name, args.address, tags)}")
    except ValueError as error:
        raise InputError(f"no proof for {args.name!a}: {error}") from error
    return 0


def status(args: argparse.Namespace) -> int:
    """Show every node: evidence, decision, HAProxy's view."""
    from serf_haproxy.control.report import format_status, read_status

    report = read_status(load_settings(os.environ))
    print(json.dumps(report, indent=1) if args.json else format_status(report))
    return 0


def ready(args: argparse.Namespace) -> int:
    """Tell by the exit code whether HAProxy's worker runs, or runs the configuration last published."""
    from serf_haproxy.control.apply import runs_published
    from serf_haproxy.errors import HaproxyFault
    from serf_haproxy.haproxy import runtime

    settings = load_settings(os.environ)
    if args.what == "configuration":
        return 0 if runs_published(settings) else EXIT_SYSTEM
    try:
        return 0 if runtime.read_master(settings).worker_count else EXIT_SYSTEM
    except HaproxyFault:
        return EXIT_SYSTEM


def _rendered(settings: Settings) -> str:
    from serf_haproxy.control.goal import compute, read_pool

    return compute(settings, read_pool(settings).servers).text


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="serf-haproxy", description="From Serf's membership events to HAProxy.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(function, name: str | None = None) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
        command = commands.add_parser(name or function.__name__, help=function.__doc__)
        command.set_defaults(command=function)
        return command

    runner = add(run)
    runner.add_argument("--notify-fd", type=int, help="s6's notification fd")
    runner.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    add(once)
    add(check)
    add(render).add_argument("--output", metavar="PATH", help="write it there, durably, instead of printing it")
    add(boot)
    add(release)
    prover = add(proof)
    prover.add_argument("--name", required=True, help="the node's name")
    prover.add_argument("--address", required=True, help="the IP address under which the cluster sees it")
    prover.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="each of its other tags")
    add(status).add_argument("--json", action="store_true", help="for machines")
    add(ready).add_argument("what", choices=["haproxy", "configuration"])
    lab.add_parser(commands)
    return parser
