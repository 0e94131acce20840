"""The study: its sums on answers that are known, and one small cell from end to end."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serf_haproxy.lab.clients import Answer
from study import constant, orders, results, sums, tables
from study.algorithms import list_algorithms
from study.cases import SICK, list_cases
from study.cell import Cell, Lengths, run_cell
from study.page import write_page

NAMES = ["s1", "s2", "s3", "s4", "s5"]
PAGE = "# A page\n\n<!-- runs -->\n<!-- end -->\n\n<!-- slow -->\n<!-- end -->\n\n<!-- orders -->\n<!-- end -->\n"


def make_cell(case: str = "slow", algorithm: str = "leastconn", **lengths: float) -> Cell:
    """Return a cell of five servers."""
    return Cell(list_cases()[case], 50, 5, list_algorithms()[algorithm], 1, Lengths(**lengths))


def make_answers(sick: Mapping[int, int], count: int = 100, seconds: int = 16) -> list[Answer]:
    """Return answers of so many requests a second; `sick` says how many of a second s1 has had, else a fifth."""
    answers = []
    for second in range(seconds):
        had = sick.get(second, count // 5)
        for number in range(count):
            server = SICK if number < had else NAMES[1 + number % 4]
            took_s = 0.2 if server == SICK else 0.02
            answers.append(Answer(second + number / count, 0.0, took_s, server, number, ""))
    return answers


def test_a_server_is_left_and_comes_back() -> None:
    """The time to leave a slow server and to come back are in seconds after the fault and after its end."""
    cell = make_cell(fault_s=10.0, rest_s=4.0)
    sick = {3: 20, 4: 9, 5: 9, 6: 5, 7: 5, 8: 5, 9: 5, 10: 5, 11: 5, 12: 5, 13: 12}
    found = sums.sum_up(cell, make_answers(sick), (2.0, 12.0), NAMES)
    assert (found["divert_s"], found["recover_s"]) == (2, 2)
    # What counts begins 2 s after the fault: from second 4 to second 11.
    assert found["requests"] == 800
    assert found["shares"][SICK] == pytest.approx((9 + 9 + 6 * 5) / 800)
    assert found["p50_ms"] == 20.0


def test_a_server_that_is_never_left_has_no_time() -> None:
    """An algorithm that goes on sending a slow server its share never leaves it."""
    found = sums.sum_up(make_cell(), make_answers({}), (2.0, 12.0), NAMES)
    assert (found["divert_s"], found["recover_s"]) == (None, 1)
    # Four servers at full speed and one at a tenth, all with the same number of requests.
    assert found["fairness"] == pytest.approx(14**2 / (5 * 104), abs=1e-3)


def test_failures_are_infinitely_long() -> None:
    """A percentile that failures reach has no value, and each failure is counted with its reason."""
    answers = make_answers({})
    for answer in answers[::40]:
        answer.fault, answer.took_s = "500", math.inf
    found = sums.sum_up(make_cell(), answers, (2.0, 12.0), NAMES)
    assert (found["p99_ms"], found["p50_ms"]) == (None, 20.0)
    assert found["failed"] == found["histogram"]["inf"] == 800 // 40
    assert found["faults"] == {"500": len(answers) // 40}
    assert tables.pooled_ms([found], 97) < tables.pooled_ms([found], 99) == math.inf


def test_fairness_is_by_capacity() -> None:
    """A server that can do a tenth is treated fairly with a tenth; one that can do nothing does not count."""
    speeds = dict.fromkeys(NAMES, 1.0) | {SICK: 0.1}
    assert sums.fairness({"s1": 10, **dict.fromkeys(NAMES[1:], 100)}, speeds) == pytest.approx(1.0)
    assert sums.fairness(dict.fromkeys(NAMES[1:], 7), speeds | {SICK: 0.0}) == pytest.approx(1.0)
    assert sums.fairness({"s2": 100}, dict.fromkeys(NAMES, 1.0)) == pytest.approx(0.2)


def test_clients_that_meet_two_servers_have_moved() -> None:
    """A client is counted once, however often it moves, and an answer without a server counts for nothing."""
    answers = [Answer(0, 0, 0.1, server, client, "") for client, server in ((1, "a"), (1, "b"), (1, "a"), (2, "a"))]
    assert sums.count_moves([*answers, Answer(0, 0, client=2)]) == 1


def make_result(algorithm: str, seed: int, p99_ms: float | None) -> dict[str, Any]:
    """Return a result of the case slow with this p99."""
    found = sums.sum_up(make_cell(), make_answers({}), (2.0, 12.0), NAMES)
    about = {
        "algorithm": algorithm,
        "seed": seed,
        "load": 50,
        "count": 5,
        "machine": "a machine",
        "commit": "abc Do it",
    }
    return found | about | {"p99_ms": p99_ms, "lag_p99_ms": 1.0, "is_void": False}


def test_orders_are_judged_by_the_median_of_the_seeds() -> None:
    """An order holds if the median ratio of cells of one seed is small enough; infinite is more than everything."""
    cells = {
        str(number): make_result(algorithm, seed, p99_ms)
        for number, (algorithm, seed, p99_ms) in enumerate(
            [
                *(("leastconn", 1, 100.0), ("leastconn", 2, 300.0), ("leastconn", 3, 100.0)),
                *(("roundrobin", 1, None), ("roundrobin", 2, 200.0), ("roundrobin", 3, None)),
                *(("random(2)", 1, 50.0), ("random(1)", 4, 10.0)),
            ]
        )
    }
    groups = tables.group_results(list_cases().values(), {"slow": cells}, list(list_algorithms(is_whole=True)))
    found = {(one.order.lesser, one.order.greater): one for one in orders.check_orders(groups)}
    assert found.keys() == {("leastconn", "roundrobin"), ("leastconn", "random(2)"), ("random(2)", "roundrobin")}
    verdict = found["leastconn", "roundrobin"]
    assert (verdict.holds, verdict.ratio, verdict.most) == (True, 0.0, 1.5)
    assert not found["leastconn", "random(2)"].holds
    assert "**Does not hold**" in orders.describe(found["leastconn", "random(2)"])


def test_the_page_is_filled_and_says_what_is_missing(tmp_path: Path) -> None:
    """Tables come from the results, the same ones give the same bytes, and what has not run is named."""
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    write_page(tmp_path / "study", page)
    assert "Nothing has been measured yet." in page.read_text()
    cells = {"one": make_result("leastconn", 1, 123.0), "two": make_result("roundrobin", 1, None)}
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "slow.json").write_text(json.dumps(cells))
    write_page(tmp_path / "study", page)
    text = page.read_text()
    assert re.search(r"\| +algorithm \| seeds \| void \| requests \| p50, ms \| p99, ms \|", text)
    assert re.search(r"\| +leastconn \| +1 \| +- \| +800 \| +20 \| +123 \|", text)
    assert "∞" in text
    assert "Not run yet: 5 servers at 10 %, 5 servers at 75 %, 12 servers at 50 %." in text
    assert "Holds: slow, 50 %: p99 of leastconn at most that of roundrobin" in text
    write_page(tmp_path / "study", page)
    assert page.read_text() == text


def test_a_run_of_constant_load_is_summed_up(tmp_path: Path) -> None:
    """Weights count from ten seconds after the fault to its end, for as long as each of them lasted."""
    assert constant.show(tmp_path) == "Not run yet."
    whole = dict.fromkeys(NAMES, 100.0)
    changes = [(0.5, whole), (4.0, whole | {SICK: 1.0}), (52.0, whole | {SICK: 3.0, "s2": 40.0}), (72.0, whole)]
    result = make_result("random(2) + weights", 1, 50.0)
    result |= {"marks_s": [2.0, 62.0], "weights": changes, "share_of_sick": [(second, 0.01) for second in range(62)]}
    (tmp_path / "constant").mkdir()
    (tmp_path / "constant" / "result.json").write_text(json.dumps(result | {"is_void": True}))
    text = constant.show(tmp_path)
    assert "s1, ten times slower, had a weight of 1 to 3, 1.4 on average, and 1.00 % of the requests" in text
    assert "Its whole weight was back 10 s after" in text
    assert "had 97.0 of 100 on average, 40 at least, and less than 50 in 5.00 % of the time" in text
    assert "**So the run is void" in text


def test_one_cell_from_end_to_end(tmp_path: Path) -> None:
    """A real HAProxy and daemon turn away from a slow server, answer every request, and the result is found again."""
    cell = dataclasses.replace(make_cell(fault_s=5.0, rest_s=1.0), load=10)
    found = run_cell(cell, lag_s=math.inf)
    assert found
    assert found["failed_in_all"] == 0
    assert found["requests_in_all"] == len(cell.make_requests())
    assert found["shares"].keys() <= set(NAMES)
    assert found["shares"].get(SICK, 0.0) < 1 / len(NAMES)
    code = {"commit": "abc Do it", "code": "trees"}
    results.write_result(tmp_path, cell, results.describe(cell, found, code))
    kept = results.read_results(tmp_path)
    assert results.is_done(kept, cell, code, math.inf)
    assert not results.is_done(kept, cell, code, -1.0)
    assert not results.is_done(kept, cell, code | {"code": "others"}, math.inf)
    assert not results.is_done(kept, dataclasses.replace(cell, seed=2), code, math.inf)
    assert not results.is_done(kept, dataclasses.replace(cell, lengths=Lengths(fault_s=6.0)), code, math.inf)


def test_a_generator_that_is_late_makes_a_cell_void() -> None:
    """A cell in which more requests are late than allowed ends early and has no result."""
    assert run_cell(make_cell("equal", fault_s=30.0), lag_s=-1.0) is None
