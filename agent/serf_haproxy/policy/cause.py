"""The causes of decisions: which rule decided about a node. A reason is for people, a cause for programs."""

import enum


class Cause(enum.StrEnum):
    """The rule that decided."""

    ALIVE = "alive"  # nothing speaks against it
    BALANCER = "balancer"  # a balancer never serves
    ROLE = "role"  # its role is none of those that serve
    NOT_OFFERED = "not-offered"  # it does not offer the service any more
    UNNAMED = "unnamed"  # it offers a service that the operator has not named
    IMPROPER = "improper"  # its tags name no service properly
    TAG = "tag"  # a tag has a wrong value
    ADDRESS = "address"  # no server may be at its address, or at this port of it
    NETWORK = "network"  # the operator allows other networks
    PORT = "port"  # the operator allows other ports
    PROOF = "proof"  # its proof is missing or wrong
    REFUSED = "refused"  # HAProxy refuses its server
    DRAIN_TAG = "drain-tag"  # its own tag drains it
    DRAIN_ORDER = "drain-order"  # an operator's order drains it
    STOP_ORDER = "stop-order"  # an operator's order takes it out of service
    NO_SHARE = "no-share"  # its version has no share of the service's split
    FINISHING = "finishing"  # it left, and its clients may finish
    GRACE = "grace"  # it failed a moment ago
    MASS_LOSS = "mass-loss"  # it was lost together with many others
    LAST_UP = "last-up"  # no other server is up
    FLAPPING = "flapping"  # it failed and came back too often
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"
    UNREADABLE = "unreadable"  # its name or tags cannot be written down
    OTHER = "other"  # not said


class Refusal(ValueError):
    """A member cannot be a server; the text is for people.

    Args:
        cause: Which rule says so.
        text: Why.
    """

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(text)
        self.cause = cause
