"""serf-haproxy proof: make the proof tag of a node."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import InputError
from serf_haproxy.settings import load_settings


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `proof`."""
    text = "Print the tag with which a node proves that it belongs to the cluster."
    parser = commands.add_parser("proof", help=text, description=text)
    parser.set_defaults(command=proof)
    parser.add_argument("--name", required=True, help="the node's name")
    parser.add_argument("--address", required=True, help="the IP address under which the cluster sees the node")
    tag = "another tag of the node; repeat the option for each one"
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help=tag)


def proof(args: argparse.Namespace) -> int:
    """Print the tag with which a node proves that it belongs to the cluster."""
    from serf_haproxy.control.goal import read_secret_file
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
