"""The edges of a pass: what it reads from and acts on, made from the settings."""

import os
from typing import NamedTuple

from serf_haproxy.control.ahead import Ahead
from serf_haproxy.control.certificates import Certificates
from serf_haproxy.control.history import History
from serf_haproxy.control.order_book import OrderBook
from serf_haproxy.control.services_file import ServicesFile
from serf_haproxy.control.state import State
from serf_haproxy.haproxy.config_file import ConfigFile
from serf_haproxy.haproxy.master import Master
from serf_haproxy.haproxy.runtime import Runtime
from serf_haproxy.haproxy.socket import PATIENT, Limits
from serf_haproxy.serf.rpc import RpcAddress
from serf_haproxy.settings import Settings


class Edges(NamedTuple):
    """What a pass reads from and acts on.

    Attributes:
        nodes_dir: The node directory.
        state: The state directory.
        config_file: HAProxy's configuration file.
        master: HAProxy's master.
        runtime: HAProxy's runtime socket.
        services_file: The operator's services file.
        certificates: The certificates of the HTTPS listener.
        orders: The operators' orders.
        history: What was decided, ordered and done.
        ahead: What HAProxy was given ahead of the published file.
    """

    nodes_dir: str
    state: State
    config_file: ConfigFile
    master: Master
    runtime: Runtime
    services_file: ServicesFile
    certificates: Certificates
    orders: OrderBook
    history: History
    ahead: Ahead

    def set_aside(self) -> None:
        """Set aside what is in the place of a file of ours and is none: no pass could replace it.

        The caller holds the lock of the pass.

        Raises:
            SystemFault: A file of which the content is in memory cannot be written again.
        """
        self.state.set_aside()
        self.orders.set_aside()
        self.history.set_aside()
        self.config_file.set_aside()


def make_edges(settings: Settings, limits: Limits = PATIENT) -> Edges:
    """Return the edges that the settings describe.

    Args:
        settings: The settings.
        limits: How long to wait for an answer of HAProxy's.
    """
    return Edges(
        settings.nodes_dir,
        State(settings.state_dir),
        ConfigFile(settings.config_path, settings.haproxy_bin, settings.check_timeout_s, settings.template_path),
        Master(settings.master_socket, settings.service_dir, settings.reload_timeout_s, limits),
        Runtime(settings.runtime_socket, settings.master_socket, limits),
        ServicesFile(settings),
        Certificates(settings),
        OrderBook(settings.state_dir),
        History(settings.state_dir),
        Ahead(os.path.dirname(settings.wake_fifo)),
    )


def find_serf(settings: Settings) -> RpcAddress:
    """Return where the Serf agent's RPC is."""
    host, port = settings.rpc_addr
    return RpcAddress(host, port, settings.rpc_auth_file, settings.rpc_timeout_s)
