"""The rule behind each cause of a decision: what it says, which settings govern it, what would change its result."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from serf_haproxy.policy.cause import Cause


class Rule(NamedTuple):
    """The rule behind a cause. In its texts NAME stands for the node and SERVICE for the service.

    Attributes:
        text: What it says.
        keys: The settings that govern it, or keys of the service.
        changes: What would change its result.
    """

    text: str
    keys: tuple[str, ...]
    changes: tuple[str, ...]


_TAGS = "correct the tags on the node: `serf tags -set KEY=VALUE`"
_SERVES = "A node serves while it is alive in Serf, its role is one that serves, and its address and tags are valid."
_LEAVE = "it leaves or fails, or its own tag drains it: `serf tags -set drain=true` on the node"
_UNDO = "the order is undone: `serf-haproxy maint unset NAME`"
_RETURN = "it comes back: start its Serf agent"

RULES: Mapping[Cause, Rule] = MappingProxyType(
    {
        Cause.ALIVE: Rule(_SERVES, ("roles", "balancer_roles"), (_LEAVE,)),
        Cause.BALANCER: Rule(
            "This balancer's own node, and every node with the role of a balancer, never serves.",
            ("balancer_roles",),
            ("another role of the node, or a setting without its role",),
        ),
        Cause.ROLE: Rule(
            "Only nodes with one of these roles serve.",
            ("roles",),
            ("another role of the node: `serf tags -set role=...` on it", "a setting with its role"),
        ),
        Cause.NOT_OFFERED: Rule(
            "Where the operator has named services, a node serves those that it offers by tags svc.NAME.",
            ("services_file",),
            ("the node offers it: `serf tags -set svc.SERVICE=PORT` on it",),
        ),
        Cause.UNNAMED: Rule(
            "A node serves only services that the operator has named, or that members may announce.",
            ("services_file", "announced_domain", "announced_max"),
            ("a table [SERVICE] in the services file", "the node drops the tag svc.SERVICE"),
        ),
        Cause.IMPROPER: Rule(
            "The name of a service is a letter a-z, then up to 30 of a-z, 0-9 and dash.", ("services_file",), (_TAGS,)
        ),
        Cause.TAG: Rule("A node with a wrong tag is left out alone.", ("default_port",), (_TAGS,)),
        Cause.ADDRESS: Rule(
            "No server is at the address of a balancer's listener, or in a special block that no network of the "
            "operator's allows. No tag addr leads there at all, or to this machine.",
            ("networks", "frontend_bind", "stats_bind"),
            ("another address of the node", "a setting with a network that allows it"),
        ),
        Cause.NETWORK: Rule(
            "Servers are only in the operator's networks, and by a tag addr only in those that are for such tags.",
            ("networks", "addr_networks"),
            ("a setting with its network", "another address of the node, or another tag addr"),
        ),
        Cause.PORT: Rule(
            "Servers have only the operator's ports.", ("ports",), ("another port of the node", "a setting with it")
        ),
        Cause.PROOF: Rule(
            "Where there is a secret, a node proves with a tag that it belongs to the cluster.",
            ("proof_secret_file",),
            ("a valid proof as a tag: `serf-haproxy proof --name NAME --address ADDRESS` prints it",),
        ),
        Cause.REFUSED: Rule(
            "A server that HAProxy refuses is left out alone, and tried again after a while.",
            ("retry_max_s",),
            (_TAGS, "a template or service that HAProxy accepts for it"),
        ),
        Cause.DRAIN_TAG: Rule(
            "A node that drains keeps its present clients and gets no new ones.",
            ("cookie",),
            ("the tag goes: `serf tags -delete drain` or `serf tags -delete weight` on the node",),
        ),
        Cause.DRAIN_ORDER: Rule(
            "A node that an order drains keeps its present clients and gets no new ones. An order counts on all "
            "balancers, unless it was given for one alone.",
            ("cookie",),
            (_UNDO,),
        ),
        Cause.STOP_ORDER: Rule(
            "A node that an order takes out has no server, even if no other one is up.", (), (_UNDO,)
        ),
        Cause.NO_SHARE: Rule(
            "A service that is split gives requests only to versions with a share.",
            ("split",),
            ("a share for its version in the services file", "another version of the node"),
        ),
        Cause.FINISHING: Rule(
            "A node that left keeps its present clients for a while, with weight 0.",
            ("drain_timeout_s",),
            ("its last connection ends, or the time is over", _RETURN),
        ),
        Cause.GRACE: Rule(
            "A node that has just failed stays under HAProxy's health checks for a while: gossip may be wrong.",
            ("failed_grace_s",),
            ("the time is over", _RETURN),
        ),
        Cause.MASS_LOSS: Rule(
            "When more than a share of the servers is lost at once, they stay under HAProxy's health checks: the "
            "gossip is more likely broken than all of them.",
            ("guard_share", "guard_window_s", "guard_hold_s"),
            ("it comes back", "an operator ends the hold: `serf-haproxy release`", "the time is over"),
        ),
        Cause.LAST_UP: Rule(
            "While no other server is up, one that HAProxy sees up goes on, whatever Serf, tags and settings say.",
            (),
            ("another server comes up", "HAProxy's health check finds it down"),
        ),
        Cause.FLAPPING: Rule(
            "A node that fails and comes back again and again is kept out until it has been steady.",
            ("flap_cutoff", "flap_half_life_s"),
            ("it stays alive until the time is over", "no other server is up"),
        ),
        Cause.LEAVING: Rule("A node that leaves gets no requests.", (), (_RETURN,)),
        Cause.LEFT: Rule("A node that left gets no requests.", ("drain_timeout_s",), (_RETURN,)),
        Cause.FAILED: Rule(
            "A node that failed gets no requests.",
            ("failed_grace_s", "guard_share"),
            (_RETURN, "it is forgotten: `serf force-leave -prune NAME`"),
        ),
        Cause.UNREADABLE: Rule(
            "A member whose name or tags cannot be written down is left out alone.",
            (),
            ("another name of the node", _TAGS),
        ),
        Cause.OTHER: Rule("No rule is named.", (), ()),
    }
)
