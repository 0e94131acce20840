"""What a balancer answers to queries of Serf: the files that the handler answers from, signed and dated."""

import os
import time
from pathlib import Path

import pytest

from serf_haproxy.control import replies
from serf_haproxy.control.outcome import Outcome, Verdict
from serf_haproxy.control.replies import Replies
from serf_haproxy.policy.admission import Rules
from serf_haproxy.policy.answer_wire import Question, Said, decode
from serf_haproxy.policy.decide import decide
from serf_haproxy.policy.decision import Decision
from serf_haproxy.policy.proof import Secret
from serf_haproxy.policy.snapshot import Running, Snapshot
from serf_haproxy.serf import answers
from serf_haproxy.serf.events import ALIVE, FAILED, make_member
from serf_haproxy.serf.nodes import NodeFile
from serf_haproxy.settings import Settings

SECRET = "a secret of sixteen"
FINE = Outcome(Verdict.UNCHANGED, "fine", "")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with a secret and a directory for answers."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    made = Settings(wake_fifo=str(tmp_path / "wake"), proof_secret_file=str(secret))
    os.mkdir(made.answers_dir)
    return made


def look(**statuses: str) -> Snapshot:
    """Return a snapshot with nodes of these statuses, on the balancer lb1, whose HAProxy answers."""
    files = {
        name: NodeFile(status, make_member(name, f"10.0.0.{number}", {}), time.time_ns())
        for number, (name, status) in enumerate(statuses.items(), 1)
    }
    return Snapshot(time.time_ns(), Rules(8080, self_name="lb1"), files, running=Running("", {}, "", is_open=True))


def write(made: Replies, settings: Settings, snapshot: Snapshot) -> Decision:
    """Write the answers of a pass that has made every entry anew."""
    decision = decide(snapshot)
    assert made.write(settings, snapshot, decision, FINE, list(decision.entries)) == ()
    return decision


def ask(settings: Settings, query: str, subject: str = "", balancer: str = "lb1") -> Said:
    """Ask as another balancer with the same settings does."""
    found = answers.find(settings.answers_dir, query, subject.encode())
    secrets = (Secret(SECRET.encode()),) if settings.proof_secret_file else ()
    return decode(found, Question(query, subject, balancer), secrets, time.time_ns() // 1_000_000)


def test_every_answer_is_signed(settings: Settings) -> None:
    """A holder of the secret can trust what a balancer says of itself and of each node."""
    write(Replies(), settings, look(web1=ALIVE, web2=FAILED))
    assert ask(settings, "lb-ready").text == "ready"
    assert ask(settings, "lb-status").text.startswith("lb1 UNCHANGED: fine\n")
    assert ask(settings, "lb-explain", "web1").text.startswith("nodes serving 10.0.0.1:8080: ")
    assert not ask(settings, "lb-explain", "web2").text.startswith("nodes serving")
    with pytest.raises(ValueError, match="no signature"):
        ask(settings, "lb-explain", "web3")  # the handler has no secret to say that there is no such node


def test_only_what_is_new_is_written(settings: Settings) -> None:
    """A pass that decides nothing new writes no file; another one forgets the nodes that are gone."""
    made, snapshot = Replies(), look(web1=ALIVE, web2=ALIVE)
    decision = write(made, settings, snapshot)

    def list_inodes() -> dict[str, tuple[int, int]]:
        found = {path.name: path.stat() for path in Path(settings.answers_dir).iterdir()}
        return {name: (one.st_ino, one.st_mtime_ns) for name, one in found.items()}

    before = list_inodes()
    made.write(settings, snapshot, decision, FINE, [])
    write(made, settings, snapshot)
    assert list_inodes() == before
    write(made, settings, look(web1=ALIVE))
    assert all(before[name] != found for name, found in list_inodes().items())
    assert b"web2 is not known" in answers.find(settings.answers_dir, "lb-explain", b"web2")
    assert ask(settings, "lb-explain", "web1").text.startswith("nodes serving")


@pytest.mark.parametrize("is_signed", [True, False])
def test_answers_are_dated_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch, is_signed: bool) -> None:
    """While the daemon runs, its answers do not grow old, with a secret or without one."""
    settings = settings if is_signed else settings.replace(proof_secret_file="")
    monkeypatch.setattr(replies, "_RENEW_S", 0.0)
    monkeypatch.setattr(replies, "_RENEW_NODES_S", 0.0)
    made = Replies()
    write(made, settings, look(web1=ALIVE))
    questions = (("lb-ready", ""), ("lb-status", ""), ("lb-explain", "web1"))
    before = [ask(settings, *question) for question in questions]
    time.sleep(0.002)  # dates are in milliseconds
    made.renew(settings)
    after = [ask(settings, *question) for question in questions]
    assert [one.text for one in after] == [one.text for one in before]
    assert all(new.sent_ms > old.sent_ms for new, old in zip(after, before, strict=True))


def test_a_failed_pass_is_told(settings: Settings) -> None:
    """After an error the balancer says, signed, that it is not ready; the next good pass takes that back."""
    made = Replies()
    write(made, settings, look(web1=ALIVE))
    made.tell_failure(settings, "the disk is full")
    assert ask(settings, "lb-ready").text == ask(settings, "lb-status").text == "not ready: the disk is full"
    write(made, settings, look(web1=ALIVE))
    assert ask(settings, "lb-ready").text == "ready"


def test_another_secret_or_name_signs_everything_anew(settings: Settings) -> None:
    """When the secret is replaced, or the balancer learns its name, answers that are not new are signed anew too."""
    made, snapshot = Replies(), look(web1=ALIVE)
    Path(settings.proof_secret_file).write_text("another secret of 16")
    decision = write(made, settings, snapshot)
    with pytest.raises(ValueError, match="another secret"):
        ask(settings, "lb-explain", "web1")
    Path(settings.proof_secret_file).write_text(SECRET)
    made.write(settings, snapshot, decision, FINE, [])
    assert ask(settings, "lb-explain", "web1").text.startswith("nodes serving")
    renamed = snapshot._replace(rules=Rules(8080, self_name="lb2"))
    made.write(settings, renamed, decision, FINE, [])
    assert ask(settings, "lb-explain", "web1", "lb2").text.startswith("nodes serving")


def test_without_its_secret_a_balancer_answers_unsigned(settings: Settings) -> None:
    """A secret that cannot be read is a complaint, and people are answered all the same."""
    os.unlink(settings.proof_secret_file)
    snapshot = look(web1=ALIVE)
    decision = decide(snapshot)
    (complaint,) = Replies().write(settings, snapshot, decision, FINE, list(decision.entries))
    assert "queries of Serf are answered unsigned" in complaint
    assert b"\n-- unsigned " in answers.find(settings.answers_dir, "lb-ready", b"")


def test_a_directory_that_is_missing_is_a_complaint(settings: Settings) -> None:
    """Where answers cannot be written the pass goes on; once they can be, all of them are written."""
    made, snapshot = Replies(), look(web1=ALIVE)
    os.rmdir(settings.answers_dir)
    decision = decide(snapshot)
    (complaint,) = made.write(settings, snapshot, decision, FINE, list(decision.entries))
    assert "queries of Serf are not answered" in complaint
    os.mkdir(settings.answers_dir)
    assert made.write(settings, snapshot, decision, FINE, []) == ()
    assert ask(settings, "lb-explain", "web1").text.startswith("nodes serving")
    assert ask(settings, "lb-ready").text == "ready"
