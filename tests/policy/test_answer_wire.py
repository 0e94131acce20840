"""Answers to queries of Serf: only what a balancer has signed a moment ago, about what was asked, counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serf_haproxy.policy.answer_wire import Question, Said, decode, encode
from serf_haproxy.policy.order_wire import FRESH_MS
from serf_haproxy.policy.proof import Secret
from serf_haproxy.serf.answers import MOST_BYTES

NOW_MS = 1_795_662_000_000
SECRET, OTHER = Secret(b"a secret of sixteen"), Secret(b"another secret of 16")
ASKED = Question("lb-explain", "web1", "lb1")
TEXT = "api serving\nnodes draining: disk swäp"
NOT_SIGNED = "signed with another secret, for another question, or not at all"


def test_an_answer_comes_back_as_it_was() -> None:
    """What one balancer signs another one with the secret reads, also while the secret is being replaced."""
    for signing, checking in (((SECRET,), (SECRET,)), ((SECRET, OTHER), (OTHER, SECRET)), ((), ())):
        answer = encode(ASKED, TEXT, NOW_MS, signing).encode()
        assert decode(answer, ASKED, checking, NOW_MS) == Said(TEXT, NOW_MS)
        assert decode(answer + b"\n", ASKED, checking, NOW_MS + FRESH_MS) == Said(TEXT, NOW_MS)


def test_an_answer_is_for_people_too() -> None:
    """The text comes first, as it is; the last line has the signature, or says that there is none."""
    assert encode(ASKED, TEXT, NOW_MS, ()) == f"{TEXT}\n-- unsigned {NOW_MS}"
    assert encode(ASKED, TEXT, NOW_MS, (SECRET,)).startswith(f"{TEXT}\n-- v1.")


@pytest.mark.parametrize(
    "question",
    [ASKED._replace(query="lb-status"), ASKED._replace(subject="web2"), ASKED._replace(balancer="lb2")],
)
def test_an_answer_counts_for_its_question_alone(question: Question) -> None:
    """An answer to another query, about another node or of another balancer proves nothing."""
    with pytest.raises(ValueError, match=NOT_SIGNED):
        decode(encode(ASKED, TEXT, NOW_MS, (SECRET,)).encode(), question, (SECRET,), NOW_MS)


@pytest.mark.parametrize("signing", [(), (OTHER,)])
def test_an_answer_without_the_secret_is_refused(signing: tuple[Secret, ...]) -> None:
    """Where there is a secret, an answer that another one has signed, or none, does not count."""
    with pytest.raises(ValueError, match=NOT_SIGNED):
        decode(encode(ASKED, TEXT, NOW_MS, signing).encode(), ASKED, (SECRET,), NOW_MS)


def test_a_signed_answer_cannot_be_checked_without_a_secret() -> None:
    """A balancer without a secret says that it needs one."""
    with pytest.raises(ValueError, match="this balancer has no secret"):
        decode(encode(ASKED, TEXT, NOW_MS, (SECRET,)).encode(), ASKED, (), NOW_MS)


@pytest.mark.parametrize("away_ms", [-FRESH_MS - 1, FRESH_MS + 1])
def test_an_old_answer_is_refused(away_ms: int) -> None:
    """A copy of an old answer does not count, nor one from the future; the caller may ask for a fresher one."""
    answer = encode(ASKED, TEXT, NOW_MS, (SECRET,)).encode()
    with pytest.raises(ValueError, match="by its own date"):
        decode(answer, ASKED, (SECRET,), NOW_MS + away_ms)
    with pytest.raises(ValueError, match="by its own date"):
        decode(answer, ASKED, (SECRET,), NOW_MS + 2001, fresh_ms=2000)


@given(st.data())
def test_no_changed_byte_is_accepted(data: st.DataObject) -> None:
    """An answer with one other byte, one more or one less is refused; a line feed at its end is Serf's."""
    whole = encode(ASKED, TEXT, NOW_MS, (SECRET,)).encode()
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.binary(max_size=2).filter(lambda some: some != whole[place : place + 1]))
    changed = whole[:place] + other + whole[place + 1 :]
    if changed.rstrip(b"\n") == whole:
        return
    with pytest.raises(ValueError, match="it "):
        decode(changed, ASKED, (SECRET,), NOW_MS)


@given(st.binary(max_size=1000) | st.text(alphabet="-\n v1.unsigned0", max_size=60).map(str.encode))
def test_nothing_that_is_not_signed_is_read(data: bytes) -> None:
    """Any bytes without the right signature are refused, and nothing else is raised."""
    with pytest.raises(ValueError, match="it "):
        decode(data, ASKED, (SECRET,), NOW_MS)


@given(st.text(max_size=2000))
def test_every_answer_fits_into_one_of_serf(text: str) -> None:
    """Any text is signed as it is sent, and a long one is cut."""
    answer = encode(ASKED, text, NOW_MS, (SECRET,)).encode()
    assert len(answer) <= MOST_BYTES
    said = decode(answer, ASKED, (SECRET,), NOW_MS).text
    whole = text.rstrip("\n")
    assert said == whole or (said.endswith("...") and whole.startswith(said[:-3]) and len(whole.encode()) > 800)
