"""serf-haproxy proof: make the proof tag of a node."""

import argparse
import os
from typing import Any

from serf_haproxy.errors import InputError
from serf_haproxy.settings import Settings, load_settings, variable


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the command `proof`."""
    text = "Print the tag with which a node proves that it belongs to the cluster."
    parser = commands.add_parser("proof", help=text, description=text)
    parser.set_defaults(command=proof)
    parser.add_argument("--name", required=True, help="the node's name")
    parser.add_argument("--address", required=True, help="the IP address under which the cluster sees the node")
    tag = "another tag of the node; repeat the option for each one"
    service = "the service that the node offers by its tag svc.NAME; without it the proof is for its tag port"
    parser.add_argument("--service", metavar="NAME", default="", help=service)
    parser.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help=tag)


def proof(args: argparse.Namespace) -> int:
    """Print the tag with which a node proves that it belongs to the cluster."""
    from serf_haproxy.control.rules import read_secret_file
    from serf_haproxy.policy.claim import read_value, tag_of
    from serf_haproxy.policy.proof import PROOF_TAG, Offer, make_proof

    secrets = read_secret_file(*_find_secret_file(load_settings(os.environ), args.service))
    if not secrets:
        raise InputError("SERF_HAPROXY_PROOF_SECRET_FILE is not set; name the file with the secret in it")
    try:
        tags = dict(tag.split("=", 1) for tag in args.tag)
        offer = None
        if args.service:
            tag = tag_of(args.service)
            if tag not in tags:
                raise InputError(f"no proof for {args.name!a}: name the tag {tag} with --tag {tag}=PORT")
            offer = Offer(args.service, tag, read_value(tag, tags[tag]).signed)
        proof = make_proof(secrets[0], args.name, args.address, tags, offer)
        print(f"{offer.proof_tag if offer else PROOF_TAG}={proof}")
    except ValueError as error:
        raise InputError(f"no proof for {args.name!a}: {error}") from error
    return 0


def _find_secret_file(settings: Settings, name: str) -> tuple[str, str]:
    """Return the file with the secret of a service, and where an operator names it."""
    from serf_haproxy.control.secrets import PROOF, find_origin
    from serf_haproxy.control.services_file import ServicesFile
    from serf_haproxy.services import DEFAULT_SERVICE

    services = ServicesFile(settings).read({})
    is_announced = bool(settings.announced_domain) and name not in services.claimed
    if name and services.are_named and name not in services.names and not is_announced:
        wrong = next((fault for fault in services.faults if f"[{name}]" in fault), "it is not there")
        raise InputError(f"{settings.services_file} has no good table [{name}]: {wrong}")
    listed = {service.name: service for service in services.listed}
    service = listed.get(name or DEFAULT_SERVICE)
    if service:
        return service.proof_secret_file, find_origin(service, PROOF, settings)
    return settings.proof_secret_file, variable(PROOF)
