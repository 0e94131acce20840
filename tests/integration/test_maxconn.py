"""HAProxy's size follows the setting, not the number of files that the machine or a container allows."""

import contextlib
import re
import resource
import socket
from pathlib import Path

import pytest

from integration.proxy import Proxy, running_proxy, wait_for
from serf_haproxy.haproxy.socket import ask


def read_info(proxy: Proxy, name: str) -> int:
    """Return a number of HAProxy's `show info`."""
    found = re.search(rf"^{name}: (\d+)$", ask(proxy.settings.runtime_socket, "show info", 5), re.MULTILINE)
    assert found
    return int(found[1])


def test_a_high_limit_of_files_does_not_make_haproxy_large(short_dir: Path) -> None:
    """With far more files allowed than needed, HAProxy's tables are for `maxconn` connections."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running_proxy(short_dir, SERF_HAPROXY_MAXCONN="100") as proxy:
        assert hard_limit > 2 * proxy.settings.file_limit or hard_limit == resource.RLIM_INFINITY
        limit = proxy.settings.file_limit
        assert limit - 2 <= read_info(proxy, "Maxsock") <= limit
        assert 100 <= read_info(proxy, "Maxconn") <= proxy.settings.file_limit / 2


@pytest.mark.parametrize("file_limit", [400, 1024])
def test_a_low_limit_of_files_only_lowers_the_number_of_connections(short_dir: Path, file_limit: int) -> None:
    """HAProxy starts and is reloaded where fewer files are allowed than the default would take."""
    proxy = Proxy(short_dir)
    with contextlib.ExitStack() as stack:
        stack.callback(proxy.stop)
        proxy.start("prlimit", f"--nofile={file_limit}")
        proxy.record("web1", 8001)
        proxy.run_pass(balance="leastconn")
        assert proxy.reload_count() == 1
        assert file_limit - 2 <= read_info(proxy, "Maxsock") <= file_limit


def test_connections_beyond_the_limit_wait(short_dir: Path) -> None:
    """The frontend takes `maxconn` connections; the stats page still answers."""
    with running_proxy(short_dir, SERF_HAPROXY_MAXCONN="100") as proxy, contextlib.ExitStack() as stack:
        host, _, port = proxy.settings.frontend_bind.rpartition(":")
        clients = [stack.enter_context(socket.create_connection((host, int(port)), 5)) for _ in range(103)]
        wait_for(lambda: read_info(proxy, "CurrConns") >= 100, "connections")
        clients[-1].settimeout(0.5)
        clients[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            clients[-1].recv(1)
        with socket.create_connection(proxy.settings.stats_bind.split(":"), 5) as stats:
            stats.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert stats.recv(12) == b"HTTP/1.1 200"
        for client in clients[:50]:
            client.close()
        clients[-1].settimeout(10)
        assert clients[-1].recv(12) == b"HTTP/1.1 503"
