"""What programs were made of: known for each where it is, and elsewhere by its digest, if that is one thing."""

from __future__ import annotations

from nkform.model import Explanation
from nkform.observe.explanations import Known, merged

GIVEN = Explanation("d1", "guard", {"prefixes": ["10.0.0.2/32"]}, at=(("v0", "peer", "g"),))
BY_FACT = Explanation("d1", "guard", facts={"peer_addresses": ["10.0.0.2/32"]}, at=(("v1", "peer", "g"),))
COUNT = Explanation("d2", "counters", at=(("v0", "peer", "c"), ("v1", "peer", "c")))


def test_programs_of_one_digest_are_known_by_their_places() -> None:
    known = Known((GIVEN, BY_FACT, COUNT))
    assert known.get("v0", "peer", "g", "d1") == GIVEN
    assert known.get("v1", "peer", "g", "d1") == BY_FACT
    assert known.get("v1", "peer", "g", "d9") is None


def test_elsewhere_a_digest_tells_only_where_all_of_it_are_alike() -> None:
    known = Known((GIVEN, BY_FACT, COUNT))
    assert known.get("renamed", "peer", "g", "d1") is None
    assert known.get("renamed", "peer", "c", "d2") == COUNT


def test_the_first_of_two_counts() -> None:
    newer = Explanation("d1", "guard", {"prefixes": ["10.0.0.2/32"], "accepted": "pass"}, at=GIVEN.at)
    assert Known((newer, GIVEN)).get("v0", "peer", "g", "d1") == newer


def test_what_differs_in_nothing_but_its_place_is_written_once() -> None:
    one, other = (Explanation("d2", "counters", at=(place,)) for place in COUNT.at)
    assert merged((other, GIVEN, one)) == merged((GIVEN, COUNT))
    assert len(merged((other, one))) == 1
