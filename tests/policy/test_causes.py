"""Every cause that a decision can have: from a snapshot to the cause, and that each has a rule to explain it."""

import pytest
from test_entries import (
    ALL,
    ALONE,
    BUSY,
    DRAINED,
    FLAP,
    KEY,
    LOST,
    OTHERS,
    RULES,
    SERVER,
    STOPPED,
    file,
    ordered,
    snap,
    web,
)

from serf_haproxy.policy.admission import Policy
from serf_haproxy.policy.cause import Cause
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.proof import read_secrets
from serf_haproxy.policy.snapshot import Known, Snapshot
from serf_haproxy.serf.events import FAILED, LEAVING, LEFT, Member
from serf_haproxy.services.service import KEYS
from serf_haproxy.settings import Settings
from serf_haproxy.show.rules import RULES as EXPLAINED
from serf_haproxy.system.network import read_networks

SECRET = Policy(secrets=read_secrets("correct horse battery staple correct horse"))
NAMED = RULES._replace(are_named=True)
SHOP = ("shop", "web1")

TABLE: dict[Cause, Snapshot] = {
    Cause.ALIVE: snap(file(web()), *OTHERS),
    Cause.BALANCER: snap(file(web(role="balancer")), *OTHERS),
    Cause.ROLE: snap(file(web(role="db")), *OTHERS),
    Cause.TAG: snap(file(web(port="x")), *OTHERS),
    Cause.ADDRESS: snap(file(web(address="169.254.0.1")), *OTHERS),
    Cause.NETWORK: snap(file(web()), rules=RULES._replace(policy=Policy(read_networks("10.9.0.0/16")))),
    Cause.PORT: snap(file(web()), rules=RULES._replace(policy=Policy(ports=((80, 90),)))),
    Cause.PROOF: snap(file(web()), rules=RULES._replace(policy=SECRET)),
    Cause.REFUSED: snap(file(web()), *OTHERS, refused={KEY: (SERVER, "unknown keyword")}),
    Cause.DRAIN_TAG: snap(file(web(drain="true")), *OTHERS),
    Cause.DRAIN_ORDER: snap(file(web()), *OTHERS, orders=ordered(DRAINED)),
    Cause.STOP_ORDER: snap(file(web()), *OTHERS, orders=ordered(STOPPED)),
    Cause.NO_SHARE: snap(file(web()), *OTHERS, rules=RULES._replace(split=(("v1", 100),))),
    Cause.FINISHING: snap(file(web(), LEFT), *OTHERS, view=BUSY),
    Cause.GRACE: snap(file(web(), FAILED, 4), *OTHERS),
    Cause.MASS_LOSS: snap(file(web(), FAILED), *LOST, known=ALL),
    Cause.LAST_UP: snap(file(web(), LEFT), known=ALONE),
    Cause.FLAPPING: snap(file(web()), *OTHERS, flaps=FLAP, known=ALL),
    Cause.LEAVING: snap(file(web(), LEAVING), *OTHERS),
    Cause.LEFT: snap(file(web(), LEFT), *OTHERS),
    Cause.FAILED: snap(file(web(), FAILED, 11), *OTHERS),
    Cause.UNNAMED: snap(file(web(**{"svc.shop": "80"})), rules=NAMED),
    Cause.IMPROPER: snap(file(Member("web1", "10.0.0.1", "web", ("role=web", "svc.Shop!=80"))), rules=NAMED),
    Cause.NOT_OFFERED: snap(
        file(web()),
        rules=NAMED,
        further_rules=(NAMED._replace(service="shop"),),
        known={SHOP: Known(SERVER._replace(service="shop"), was_up=False, is_served=True)},
    ),
}
NOT_DECIDED = {Cause.UNREADABLE, Cause.OTHER}


@pytest.mark.parametrize("cause", TABLE)
def test_a_decision_names_its_cause(cause: Cause) -> None:
    """Each snapshot gives the node this cause in one of its services."""
    entries = decide(TABLE[cause]).entries
    assert cause in {entry.cause for key, entry in entries.items() if key[1] == "web1"}
    assert Cause.OTHER not in {entry.cause for entry in entries.values()}


def test_the_table_has_every_cause() -> None:
    """No cause that a decision can have is missing in the table."""
    assert TABLE.keys() == set(Cause) - NOT_DECIDED


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.OTHER}))
def test_every_cause_is_explained(cause: Cause) -> None:
    """Each cause has a rule, settings that exist, and something that would change its result."""
    rule = EXPLAINED[cause]
    assert rule.text.endswith(".")
    assert rule.changes
    assert {key for key in rule.keys if not hasattr(Settings, key) and key not in KEYS} == set()
