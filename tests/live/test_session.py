"""The Python API: what the command line does, without a terminal (docs/api.md)."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nkform import NkformError, PlanOptions, Session, Spec, loads
from nkform.kernel import rundir
from nkform.session.listener import Quiet
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import dump, ip, link, links

DOCUMENT = Path(__file__).parents[2] / "docs/api.md"

SPEC = """
version: 1
node: box
vars: {mtu: 1500}
namespaces:
  web: {create: true}
devices:
  v0:
    kind: veth
    mtu: ${mtu}
    peer: {name: eth0, namespace: web}
"""

GONE = """
  gone: {}
devices:
"""

PATIENCE = 20.0
"""Seconds in which what was not confirmed has gone back."""


def spec(mtu: int = 1500) -> Spec:
    return loads(SPEC, variables={"mtu": str(mtu)})


@pytest.fixture
def session() -> Iterator[Session]:
    """One that tells nothing on its own: all that it prints would be seen here."""
    out, err = io.StringIO(), io.StringIO()
    with Session() as session, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield session
    assert (out.getvalue(), err.getvalue()) == ("", "")


def codes(error: pytest.ExceptionInfo[NkformError]) -> list[str]:
    return [problem.code for problem in error.value.problems]


def test_all_the_way_from_nothing_to_nothing(session: Session) -> None:
    before = dump()
    planned = session.plan(spec())
    assert [(change.operation, change.name) for change in planned.plan.changes] == [("create", "web"), ("create", "v0")]
    assert dump() == before
    applied = session.apply(planned)
    assert (applied.changed, applied.added, applied.updated, applied.destroyed) == (True, 2, 0, 0)
    assert (applied.problems, applied.trial) == ((), None)
    assert link("eth0", "web")["mtu"] == 1500

    again = session.apply(session.plan(spec()))
    assert (again.changed, again.actions) == (False, 0)
    assert session.apply(session.plan(spec(1400))).updated == 1
    assert session.observe().node.devices["v0"].primary.attrs["mtu"] == 1400
    assert [device.name for device in session.status("box").devices] == ["v0"]

    way = session.way_back()
    assert way is not None
    assert [change.name for change in way.plan.changes] == ["v0"]
    session.go_back(way)
    assert link("v0")["mtu"] == 1500
    assert session.destroy("box").destroyed == 2
    assert links() == set()
    assert session.way_back("recover") is None


def test_a_plan_that_holds_no_more_is_not_carried_out(session: Session) -> None:
    session.apply(session.plan(spec()))
    planned = session.plan(spec(1400))
    ip("link", "set", "v0", "mtu", "1300")
    ip("link", "set", "eth0", "mtu", "1400", namespace="web")
    with pytest.raises(NkformError) as refused:
        session.apply(planned)
    assert set(codes(refused)) == {"NK0517"}
    assert (link("v0")["mtu"], link("eth0", "web")["mtu"]) == (1300, 1400)
    session.apply(session.plan(spec(1400)))
    assert link("v0")["mtu"] == 1400


def test_problems_have_their_place_in_the_spec(session: Session) -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "x9")
    with pytest.raises(NkformError) as refused:
        session.plan(loads(SPEC, "node.yaml"))
    assert refused.value.problems[0].position is not None
    assert refused.value.problems[0].position.line == SPEC.splitlines().index("  v0:") + 1


def test_what_can_be_is_applied_and_the_rest_named(session: Session) -> None:
    two = loads(f"{SPEC}  v1: {{kind: veth, peer: {{name: eth0, namespace: gone}}}}\n".replace("devices:", GONE))
    with pytest.raises(NkformError):
        session.plan(two)
    applied = session.apply(session.plan(two, PlanOptions(keep_going=True)))
    assert applied.added == 2
    assert [problem.path for problem in applied.problems] == [("namespaces", "gone")]
    assert links() == {"v0"}


def test_a_trial_is_kept_or_goes_back(session: Session) -> None:
    session.apply(session.plan(spec()))
    trial = session.apply(session.plan(spec(1400)), confirm=30).trial
    assert trial is not None
    assert trial.is_waiting()
    with pytest.raises(NkformError) as pending:
        session.apply(session.plan(spec(1300)))
    assert codes(pending) == ["NK0611"]
    trial.confirm()
    assert (trial.is_waiting(), trial.is_confirmed()) == (False, True)

    trial = session.apply(session.plan(spec(1300)), confirm=30).trial
    assert trial is not None
    trial.revert()
    end = time.monotonic() + PATIENCE
    while trial.is_waiting():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not trial.is_confirmed()
    assert link("v0")["mtu"] == 1400

    session.apply(session.plan(spec(1300)), confirm=30)
    assert session.confirm() == "box"


def test_a_saved_plan_is_a_source_of_plans(session: Session, tmp_path: Path) -> None:
    session.save(session.plan(spec()), tmp_path / "a.plan")
    saved = session.read_saved(tmp_path / "a.plan")
    assert saved is not None
    assert session.apply(session.plan(saved)).added == 2
    with pytest.raises(NkformError) as stale:
        session.plan(saved)
    assert set(codes(stale)) == {"NK0620"}
    (tmp_path / "b.plan").write_text(SPEC)
    assert session.read_saved(tmp_path / "b.plan") is None


def test_a_confirmation_does_not_fail_for_want_of_patience() -> None:
    with Session(lock_timeout=0) as session:
        trial = session.apply(session.plan(spec()), confirm=60).trial
        assert trial is not None
        lock = rundir.lock("nkform apply (process 1)")
        assert isinstance(lock, rundir.Lock)
        timer = threading.Timer(0.5, lock.release)
        timer.start()
        trial.confirm()
        timer.join()
        assert trial.is_confirmed()


def test_within_the_lock_others_wait(session: Session) -> None:
    with session.lock("apply", "box"):
        planned = session.plan(spec())
        with Session(lock_timeout=0.2) as other, pytest.raises(NkformError) as busy:
            other.apply(other.plan(spec()))
        assert codes(busy) == ["NK0610"]
        assert session.apply(planned).added == 2
    with Session(lock_timeout=0.2) as other:
        assert not other.apply(other.plan(spec())).changed
    assert not rundir.is_locked()


class AfterOneAction:
    """Does something once an action is done."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then
        self.said = ""

    def warn(self, problems: object) -> None:
        pass

    def say(self, text: str) -> None:
        self.said = text

    def progress(self, done: int, total: int) -> None:
        if done == 1:
            self._then()

    def phase(self, name: str, seconds: float) -> None:
        pass


def test_a_signal_stops_and_undoes() -> None:
    before = dump()
    impatient = AfterOneAction(lambda: os.kill(os.getpid(), signal.SIGINT))
    with Session(impatient) as session, pytest.raises(NkformError) as stopped:
        session.apply(session.plan(spec()))
    assert codes(stopped)[0] == "NK0507"
    assert "SIGINT" in impatient.said
    assert dump() == before


def test_a_killed_run_is_told_of_and_taken_back(session: Session) -> None:
    before = dump()
    child = os.fork()
    if not child:
        with Session(AfterOneAction(lambda: os._exit(9))) as killed:
            killed.apply(killed.plan(spec()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    session.plan(spec())
    assert isinstance(session.listener, Quiet)
    assert [problem.code for problem in session.listener.warnings] == ["NK0511"]
    way = session.way_back("recover")
    assert way is not None
    assert way.was_killed
    session.go_back(way)
    assert dump() == before


def test_the_examples_of_the_document_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("node.yaml").write_text(SPEC)
    first, second = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    out = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(out):
        exec(first, names)
    assert out.getvalue().splitlines() == [
        "create namespace web",
        "create device v0",
        "2 added, 0 updated, 0 destroyed",
    ]
    assert link("v0")["mtu"] == 1400
    exec(second, names)
    assert not names["applied"].changed  # type: ignore[attr-defined]


def test_the_calls_of_the_document_are_there() -> None:
    calls = re.findall(r"`session\.(\w+)\(", DOCUMENT.read_text())
    assert len(calls) > 10
    assert [call for call in calls if not callable(getattr(Session, call, None))] == []


def test_a_plan_is_carried_out_once(session: Session) -> None:
    """Also under one lock: what has changed since is looked at."""
    with session.lock("apply", "box"):
        planned = session.plan(spec())
        assert session.apply(planned).added == 2
        ip("addr", "add", "10.7.0.1/24", "dev", "v0")
        with pytest.raises(NkformError) as again:
            session.apply(planned)
        assert set(codes(again)) == {"NK0517"}
        assert session.apply(session.plan(spec()), confirm=30).trial is None  # there is nothing to do
        assert session.apply(session.plan(spec(1400)), confirm=30).trial is not None
        with pytest.raises(NkformError) as pending:
            session.apply(session.plan(spec(1300)))
        assert codes(pending) == ["NK0611"]
    assert "10.7.0.1" in ip("addr", "show", "dev", "v0")
    session.confirm()


def test_a_lock_is_for_one_node(session: Session) -> None:
    other = loads(SPEC.replace("node: box", "node: other"))
    for lock in session.lock("apply", "box"), session.lock("mine"):
        with lock, pytest.raises(ValueError, match="not for other"):
            session.apply(session.plan(other))
    assert links() == set()


@pytest.mark.parametrize("confirm", [True, "5", -1, float("nan"), float("inf")])
def test_what_is_no_time_to_confirm_is_refused(session: Session, confirm: Any) -> None:
    with pytest.raises(ValueError, match="number of seconds"):
        session.apply(session.plan(spec()), confirm=confirm)
    assert links() == set()
    assert not rundir.nodes()


def test_a_plan_to_destroy_has_no_trial(session: Session) -> None:
    session.apply(session.plan(spec()))
    with pytest.raises(ValueError, match="no trial"):
        session.apply(session.plan_destroy(spec()), confirm=5)
    assert "v0" in links()


def test_a_trial_leaves_no_file_open(session: Session) -> None:
    def settled(number: int) -> int:
        trial = session.apply(session.plan(spec(1300 + number)), confirm=60).trial
        assert trial is not None
        trial.confirm()
        del trial
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    session.apply(session.plan(spec()))
    first = settled(0)
    assert [settled(number) for number in (1, 2, 3)] == [first] * 3


def test_a_command_of_any_characters_lets_go_of_the_lock(session: Session) -> None:
    for command in "\ud800", "\udcff", "\n\0":
        with session.lock(command, "box"):
            assert rundir.is_locked()
        assert not rundir.is_locked()
    with Session() as other, other.lock("apply", "box"):
        pass


def test_a_listener_that_fails_leaves_nothing_unconfirmed() -> None:
    class Failing(Quiet):
        def phase(self, name: str, seconds: float) -> None:
            if name == "apply":
                raise RuntimeError("the listener failed")

    with Session() as session:
        session.apply(session.plan(spec()))
    with Session(Failing()) as session, pytest.raises(RuntimeError):
        session.apply(session.plan(spec(1400)), confirm=60)
    end = time.monotonic() + PATIENCE
    while link("v0")["mtu"] != 1500:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RuntimeError("the listener failed")])
def test_what_a_listener_raises_undoes_the_run(error: BaseException) -> None:
    class Failing(Quiet):
        def progress(self, done: int, total: int) -> None:
            if done == total:
                raise error

    with Session() as session:
        session.apply(session.plan(spec()))
    before = netstate_snapshot()
    with Session(Failing()) as session, pytest.raises((type(error), NkformError)) as raised:
        session.apply(session.plan(spec(1400)))
    assert isinstance(raised.value, Exception) == isinstance(error, Exception)
    if not isinstance(error, Exception):
        assert [note.partition(":")[0] for note in raised.value.__notes__] == ["NK0505"]
    assert differences(before, netstate_snapshot()) == []
    with Session() as session:
        assert session.way_back("recover") is None
        assert session.apply(session.plan(spec(1400))).changed


def test_a_trial_is_confirmed_under_the_lock_that_it_was_applied_under() -> None:
    with Session(lock_timeout=1) as session, session.lock("apply", "box"):
        applied = session.apply(session.plan(spec()), confirm=60)
        assert applied.trial is not None
        applied.trial.confirm()
        assert not applied.trial.is_waiting()
        applied = session.apply(session.plan(spec(1400)), confirm=60)
        assert session.confirm("box") == "box"
    with Session() as session:
        assert session.plan(spec(1400)).empty


def test_a_session_is_used_in_its_own_thread(session: Session) -> None:
    session.apply(session.plan(spec()))

    def ask() -> None:
        for call in (lambda: session.plan(spec()), session.status, session.confirm, lambda: session.destroy("box")):
            with pytest.raises(RuntimeError, match="thread that made it"):
                call()
        with Session() as another:
            assert another.plan(spec()).empty

    with ThreadPoolExecutor(1) as pool:
        pool.submit(ask).result()
    assert session.plan(spec()).empty


TWO = """
version: 1
node: box
namespaces:
  c1: {create: true}
devices:
  va: {kind: veth, addresses: [10.0.0.1/24], peer: {name: pa}}
  vb: {kind: veth, addresses: [10.0.1.1/24], peer: {name: pb, namespace: c1}}
  vz: {kind: veth, addresses: [10.0.3.1/24], peer: {name: pz}}
"""


def test_what_takes_the_name_of_a_peer_that_moved_keeps_only_that_device_from_going_back() -> None:
    """The namespace that it moved to is new, and stays with it."""

    class Squatter(Quiet):
        def progress(self, done: int, total: int) -> None:
            if "pb" not in links("c1"):
                ip("link", "add", "pb", "type", "bridge", namespace="c1")

    with Session() as session:
        session.apply(session.plan(loads(TWO)))
    new = TWO.replace("va: {kind: veth, addresses: [10.0.0.1/24],", "va: {kind: veth,")
    new = new.replace("  c1: {create: true}", "  c1: {create: true}\n  c3: {create: true}")
    new = new.replace("namespace: c1}}", "namespace: c3}}")
    new = new.replace("[10.0.3.1/24],", "[10.0.3.1/24], routes: [{to: 10.77.0.0/24, via: 10.200.0.1}],")
    with Session(Squatter()) as session, pytest.raises(NkformError) as failed:
        session.apply(session.plan(loads(new)))
    assert {"NK0501", "NK0503", "NK0504"} <= set(codes(failed))
    assert "NK0900" not in codes(failed)
    assert "10.0.0.1/24" in ip("addr", "show", "dev", "va")
    ip("link", "del", "pb", namespace="c1")
    with Session() as session:
        way = session.way_back("recover")
        assert way is not None
        session.go_back(way)
        assert session.plan(loads(TWO)).empty
