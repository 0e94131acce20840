"""The output of `lab status`, as JSON and as a table."""

from typing import Any

from serf_haproxy.lab import balancer as tree
from serf_haproxy.lab import node as web
from serf_haproxy.lab import processes, serf_agent
from serf_haproxy.lab.records import ALIVE, CRASHED, Balancer, Node, Record
from serf_haproxy.lab.services import locate
from serf_haproxy.serf.printing import printable
from serf_haproxy.services import DEFAULT_SERVICE
from serf_haproxy.services.service import HTTP, TCP

_BALANCER_COLUMNS = ("name", "state", "frontend_url", "stats_url", "serf_addr", "rpc_addr")
_HTTPS_COLUMNS = (*_BALANCER_COLUMNS[:3], "https_url", *_BALANCER_COLUMNS[3:])
_NODE_COLUMNS = ("name", "state", "address", "port", "serf_pid", "app_pid")
_SERVICE_COLUMNS = ("service", "mode", "nodes", "reached_at")


def describe(record: Record) -> dict[str, Any]:
    """Return all parts of a lab and their states: the value that `lab status --json` prints."""
    nodes = [_describe_node(record, node) for node in record.nodes.values()]
    return {
        "dir": record.lab_dir,
        "port_base": record.port_base,
        "balancers": [_describe_balancer(record, balancer) for balancer in record.balancers.values()],
        "nodes": nodes,
        "services": [_describe_service(record, name) for name in (DEFAULT_SERVICE, *record.services)],
        "backends": nodes,  # the key's name in the previous release; remove it after this one
    }


def format_table(status: dict[str, Any]) -> str:
    """Return the same as a table."""
    has_services = len(status["services"]) > 1
    columns = ("name", "service", *_NODE_COLUMNS[1:]) if has_services else _NODE_COLUMNS
    has_https = any(row["https_url"] for row in status["balancers"])
    blocks = [
        _format_rows(status["balancers"], _HTTPS_COLUMNS if has_https else _BALANCER_COLUMNS) or "no balancer",
        _format_rows(status["nodes"], columns) or "no node",
    ]
    if has_services:
        joined = dict.fromkeys(("nodes", "reached_at"), ", ".join)
        rows = [row | {key: join(row[key]) or None for key, join in joined.items()} for row in status["services"]]
        blocks.append(_format_rows(rows, _SERVICE_COLUMNS))
    return "\n\n".join(blocks)


def _describe_balancer(record: Record, balancer: Balancer) -> dict[str, Any]:
    environ = tree.make_settings_environ(record, balancer)
    is_up = processes.is_alive(balancer.svscan)
    return {
        "name": balancer.name,
        "state": "up" if is_up else "down",
        "address": balancer.address,
        "frontend_url": locate(record, balancer, DEFAULT_SERVICE),
        "https_url": f"https://{balancer.address}:{record.ports.https}" if record.has_https else None,
        "stats_url": f"http://{balancer.address}:{record.ports.stats}/",
        "serf_addr": f"{balancer.address}:{record.ports.gossip}",
        "rpc_addr": environ["SERF_HAPROXY_RPC_ADDR"],
        "rpc_auth_file": environ["SERF_HAPROXY_RPC_AUTH_FILE"],
        "config_path": environ["SERF_HAPROXY_CONFIG_PATH"],
        "nodes_dir": environ["SERF_HAPROXY_NODES_DIR"],
        "state_dir": environ["SERF_HAPROXY_STATE_DIR"],
        "runtime_socket": environ["SERF_HAPROXY_RUNTIME_SOCKET"],
        "master_socket": environ["SERF_HAPROXY_MASTER_SOCKET"],
        "service_dir": tree.scan_dir(record, balancer),
        "log_dir": tree.log_dir(record, balancer),
        "svscan_pid": balancer.svscan.pid if balancer.svscan and is_up else None,
        "env": environ,
    }


def _describe_service(record: Record, name: str) -> dict[str, Any]:
    return {
        "service": name,
        "mode": TCP if record.is_tcp(name) else HTTP,
        "nodes": [node.name for node in record.nodes.values() if node.service == name],
        "reached_at": [locate(record, balancer, name) for balancer in record.balancers.values()],
    }


def _describe_node(record: Record, node: Node) -> dict[str, Any]:
    is_broken = node.state == ALIVE and web.find_fault(record, node) is not None
    return {
        "name": node.name,
        "service": node.service,
        "address": node.address,
        "port": node.port,
        "state": CRASHED if is_broken else node.state,
        "serf_pid": node.serf.pid if node.serf and processes.is_alive(node.serf) else None,
        "app_pid": node.app.pid if node.app and processes.is_alive(node.app) else None,
        "tags": dict(node.tags),
        "rpc_addr": web.rpc_addr(record, node),
        "rpc_auth_file": serf_agent.auth_path(web.work_dir(record, node)),
        "serf_addr": f"{node.address}:{record.ports.gossip}",
        "log_dir": web.work_dir(record, node),
    }


def _format_rows(entries: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    if not entries:
        return ""
    rows = [
        columns,
        *(tuple("-" if entry[key] is None else printable(str(entry[key])) for key in columns) for entry in entries),
    ]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
