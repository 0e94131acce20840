"""The counters in HAProxy's `show stat`."""

import pytest

from serf_haproxy.errors import HaproxyFault
from serf_haproxy.haproxy.sections import read_numbers
from serf_haproxy.haproxy.traffic import Traffic, read_traffic

HEADER = (
    "# pxname,svname,qcur,scur,stot,econ,eresp,wretr,wredis,status,uweight,bck,hrsp_5xx,req_tot,last_chk,ctime,mode,\n"
)


def row(name: str, *, text: str = "", mode: str = "http", status: str = "UP") -> str:
    """Return the row of a server."""
    return f'nodes,{name},1,4,100,2,3,4,1,{status},50,0,7,88,"{text}",9,{mode},\n'


def test_counters_are_read() -> None:
    """Connections that were repeated failed too; queued requests are at the server."""
    assert read_traffic(HEADER + row("web1") + "\n" + HEADER + row("web2", status="DOWN 1/2", mode="tcp")) == {
        ("nodes", "web1"): Traffic(50, True, True, False, 5, 9, 100, 88, 10, 17),
        ("nodes", "web2"): Traffic(50, False, False, False, 5, 9, 100, 88, 10, 17),
    }


@pytest.mark.parametrize("text", ['a, b""c', "x\nnodes,web9,0,0,0", "x\x0cnodes,web9,0\u2028", "\r"])
def test_what_a_server_says_makes_no_row(text: str) -> None:
    """The text of a health check, which a server chooses, cannot be taken for a counter or another server."""
    assert read_traffic(HEADER + row("web1", text=text) + row("web2")) == read_traffic(
        HEADER + row("web1") + row("web2")
    )


def test_a_section_that_is_not_there_has_no_servers() -> None:
    """HAProxy's complaint about an unknown section is no row."""
    assert read_traffic("No such proxy.\n") == {}


@pytest.mark.parametrize("answer", ["# pxname,svname,scur\nnodes,web1,1\n", HEADER + "nodes,web1,x\n"])
def test_anything_else_is_a_fault(answer: str) -> None:
    """Missing columns and texts instead of numbers are told as one line."""
    with pytest.raises(HaproxyFault, match="statistics"):
        read_traffic(answer)


def test_sections_have_numbers() -> None:
    """The numbers are those of the backend sections; anything else is a fault in one line."""
    assert read_numbers("# pxname,svname,iid,\nnodes,BACKEND,4,\npg,BACKEND,7,\n\n") == {"nodes": "4", "pg": "7"}
    for answer in ("# pxname,svname\nnodes,BACKEND\n", "# pxname,svname,iid,\nnodes,BACKEND,x\n", "No such proxy.\n"):
        with pytest.raises(HaproxyFault, match="statistics"):
            read_numbers(f"{answer}nodes\n")
