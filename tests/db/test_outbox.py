"""Nothing committed is lost, nothing rolled back is delivered, and nobody who reads the table learns a link."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from routeguard.core.clock import SystemClock
from routeguard.core.errors import ConfigError
from routeguard.core.events import Event
from routeguard.core.secret import Purpose, Secret
from routeguard.foundation.db import outbox as module
from routeguard.foundation.db.database import Database
from routeguard.foundation.db.outbox import Outbox, outbox
from routeguard.foundation.db.sealing import Sealer
from tests.fakes import FakeClock, Unbound, deployment
from tests.steady import PATIENT

pytestmark = pytest.mark.anyio

SECRET = Secret("a secret of at least thirty-two bytes")
KEYS = deployment(SECRET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened(Event):
    user_id: str
    link: str = ""


class Receiver:
    """Keeps what it is given, and fails when told to."""

    def __init__(self, failures: int = 0) -> None:
        self.got: list[bytes] = []
        self.failures = failures

    async def __call__(self, payload: bytes) -> None:
        self.got.append(payload)
        if len(self.got) <= self.failures:
            raise OSError("down, and this names a link")


async def put(database: Database, box: Outbox, *payloads: bytes, kind: str = "mail") -> None:
    async with database.transaction() as tx:
        for payload in payloads:
            await box.put(tx, kind, payload)


async def rows(database: Database):
    async with database.read() as tx:
        return await tx.all(sa.select(outbox))


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_committed_row_is_delivered_at_once_and_deleted(database: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_POLL", 3600.0)
    box, receiver = Outbox(database, KEYS, clock=SystemClock()), Receiver()
    box.handle("mail", receiver)
    await box.start()
    await asyncio.sleep(0.05)
    await put(database, box, b"one")
    # Woken by the commit, not by the next poll.
    await until(lambda: receiver.got)
    await box.close()
    assert receiver.got == [b"one"]
    assert await rows(database) == []


async def test_a_row_rolled_back_is_never_delivered(database: Database):
    box, receiver = Outbox(database, KEYS, clock=SystemClock()), Receiver()
    box.handle("mail", receiver)
    with pytest.raises(LookupError):
        async with database.transaction() as tx:
            await box.put(tx, "mail", b"one")
            raise LookupError
    assert await box.deliver_due() == 0
    assert receiver.got == []


async def test_a_failed_delivery_is_tried_later_and_later_and_then_left_for_a_person(database: Database, caplog):
    clock = FakeClock()
    box, receiver = Outbox(database, KEYS, clock=clock), Receiver(failures=1000)
    box.handle("mail", receiver)
    await put(database, box, b"one")
    pauses = []
    for number in range(module._ATTEMPTS):
        assert await box.deliver_due() == 1
        assert len(receiver.got) == number + 1
        # Not before its time.
        assert await box.deliver_due() == 0
        (row,) = await rows(database)
        pauses.append(row.due_at - clock.time())
        clock.advance(max(row.due_at - clock.time(), 0) + 0.001)
    assert pauses[0] < 2
    assert all(later > earlier for earlier, later in zip(pauses[:12:2], pauses[2:12:2], strict=False))
    assert max(pauses) <= module._LONGEST_PAUSE * 1.25
    clock.advance(10**7)
    assert await box.deliver_due() == 0
    assert await box.dead() == 1
    assert "names a link" not in caplog.text


async def test_a_delivery_that_fails_once_succeeds_the_next_time(database: Database):
    clock = FakeClock()
    box, receiver = Outbox(database, KEYS, clock=clock), Receiver(failures=1)
    box.handle("mail", receiver)
    await put(database, box, b"one")
    await box.deliver_due()
    clock.advance(2)
    await box.deliver_due()
    assert receiver.got == [b"one", b"one"]
    assert await rows(database) == []


async def test_the_table_shows_no_payload(database: Database):
    box = Outbox(database, KEYS, clock=SystemClock())
    box.handle("mail", Receiver())
    await put(database, box, b"https://id.example.com/auth/password/reset?token=abc", b"https://id.example.com/")
    found = await rows(database)
    assert not any(b"example" in row.payload or b"token" in row.payload for row in found)


@pytest.mark.parametrize("change", ["other secret", "other row", "other kind", "one bit"])
async def test_a_row_that_was_tampered_with_is_not_delivered(database: Database, change: str):
    clock = FakeClock()
    box, receiver, other = Outbox(database, KEYS, clock=clock), Receiver(), Receiver()
    box.handle("mail", receiver)
    box.handle("other", other)
    await put(database, box, b"one")
    (row,) = await rows(database)
    values = {
        "other secret": {},
        "other row": {"id": "obx_x"},
        "other kind": {"kind": "other"},
        "one bit": {"payload": row.payload[:-1] + bytes([row.payload[-1] ^ 1])},
    }[change]
    if values:
        async with database.transaction() as tx:
            await tx.execute(sa.update(outbox).values(values))
    else:
        box = Outbox(database, deployment(b"another secret of at least thirty-two"), clock=clock)
        box.handle("mail", receiver)
    await box.deliver_due()
    assert receiver.got == other.got == []
    assert len(await rows(database)) == 1


async def test_rows_sealed_before_a_rotation_are_still_delivered(database: Database):
    old = Outbox(database, KEYS, clock=SystemClock())
    await put(database, old, b"one")
    new, receiver = Outbox(database, deployment(b"b" * 40, SECRET), clock=SystemClock()), Receiver()
    new.handle("mail", receiver)
    await new.deliver_due()
    assert receiver.got == [b"one"]


async def test_workers_of_two_processes_take_each_row_once(database: Database, database_url: str):
    second = Database(database_url, clock=SystemClock(), settings=PATIENT)
    await second.start()
    receiver = Receiver()
    boxes = [Outbox(one, KEYS, clock=SystemClock()) for one in (database, second)]
    for box in boxes:
        box.handle("mail", receiver)
    await put(database, boxes[0], *(str(number).encode() for number in range(100)))
    await asyncio.gather(*(box.deliver_due() for box in boxes))
    assert sorted(receiver.got) == sorted(str(number).encode() for number in range(100))
    assert await rows(database) == []
    await second.close()


async def test_a_row_left_by_another_process_is_found_without_being_told(database: Database, database_url: str):
    box, receiver = Outbox(database, KEYS, clock=SystemClock()), Receiver()
    box.handle("mail", receiver)
    await box.start()
    second = Database(database_url, clock=SystemClock(), settings=PATIENT)
    await second.start()
    await put(second, Outbox(second, KEYS, clock=SystemClock()), b"one")
    await until(lambda: receiver.got)
    await box.close()
    await second.close()


async def test_close_ends_what_is_being_delivered_and_takes_no_more(database: Database):
    box = Outbox(database, KEYS, clock=SystemClock())
    began, ended = [], []
    go_on = asyncio.Event()

    async def slow(payload: bytes) -> None:
        began.append(payload)
        await go_on.wait()
        ended.append(payload)

    box.handle("mail", slow)
    await box.start()
    await put(database, box, *(str(number).encode() for number in range(40)))
    await until(lambda: began)
    closing = asyncio.create_task(box.close())
    await asyncio.sleep(0.1)
    assert not closing.done()
    go_on.set()
    await closing
    assert began == ended
    assert len(began) + len(await rows(database)) == 40
    assert len(began) < 40


async def test_one_slow_receiver_holds_up_no_other_delivery(database: Database):
    """ML-20: the mail provider takes 30 s for one recipient."""
    box, receiver = Outbox(database, KEYS, clock=SystemClock()), Receiver()
    never = asyncio.Event()

    async def slow(_payload: bytes) -> None:
        await never.wait()

    box.handle("slow", slow)
    box.handle("mail", receiver)
    await box.start()
    await put(database, box, b"x", kind="slow")
    await put(database, box, *(b"%d" % number for number in range(50)))
    await until(lambda: len(receiver.got) == 50)
    never.set()
    await box.close()
    assert await rows(database) == []


async def test_an_event_reaches_every_listener_and_a_failure_repeats_only_its_own(database: Database):
    clock = FakeClock()
    box = Outbox(database, KEYS, clock=clock)
    good, bad = [], []

    async def first(event: Happened) -> None:
        good.append(event)

    async def second(event: Happened) -> None:
        bad.append(event)
        if len(bad) == 1:
            raise OSError

    box.on(Happened, first)
    box.on(Happened, second)
    event = Happened(user_id="usr_1", link="https://x")
    async with database.transaction() as tx:
        tx.record(event)
    await box.deliver_due()
    clock.advance(5)
    await box.deliver_due()
    assert good == [event]
    assert bad == [event, event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Event):
    count: int


async def test_who_listens_to_all_events_gets_each_as_its_own_class(database: Database):
    """Declared before and after; and what one of the listeners fails at is repeated to that one alone."""
    clock = FakeClock()
    box = Outbox(database, KEYS, clock=clock)
    log, hooks, own = [], [], []

    async def audit(event: Event) -> None:
        log.append(event)

    async def send(event: Event) -> None:
        hooks.append(event)
        if len(hooks) <= 2:
            raise OSError

    async def first(event: Happened) -> None:
        own.append(event)

    box.declare(Happened)
    box.on(Event, audit, name="audit")
    box.on(Event, send, name="send")
    box.on(Happened, first)
    box.declare(Ended, Happened)
    events = [Happened(user_id="usr_1", link="https://x"), Ended(count=2)]
    async with database.transaction() as tx:
        for event in events:
            tx.record(event)
    await box.deliver_due()
    clock.advance(5)
    await box.deliver_due()
    by_name = sorted(log, key=lambda event: type(event).__name__)
    assert by_name == events[::-1]
    assert own == events[:1]
    assert len(hooks) == 4
    assert all(hooks.count(event) == 2 for event in events)
    assert await rows(database) == []


async def test_an_event_of_a_newer_version_waits_for_a_process_that_knows_it(database: Database):
    """During a roll-out; to a version that does not have the class it is no failure either."""
    clock = FakeClock()
    old, new = Outbox(database, KEYS, clock=clock), Outbox(database, KEYS, clock=clock)
    seen: dict[str, list[Event]] = {"old": [], "new": []}
    for name, box in (("old", old), ("new", new)):

        async def audit(event: Event, name: str = name) -> None:
            seen[name].append(event)

        box.on(Event, audit, name="audit")
    old.declare(Happened)
    new.declare(Happened, Ended)
    database.recorder = new._record
    async with database.transaction() as tx:
        tx.record(Happened(user_id="usr_1"))
        tx.record(Ended(count=2))
    for _ in range(module._ATTEMPTS + 1):
        await old.deliver_due()
        clock.advance(module._LONGEST_PAUSE)
    assert seen == {"old": [Happened(user_id="usr_1")], "new": []}
    assert await old.dead() == 0
    await new.deliver_due()
    assert seen["new"] == [Ended(count=2)]
    assert await rows(database) == []


async def test_an_event_that_no_feature_declares_is_not_left_out_of_a_log_of_all(database: Database):
    box, log = Outbox(database, KEYS, clock=SystemClock()), []

    async def audit(event: Event) -> None:
        log.append(event)

    box.handle("mail", Receiver())
    box.on(Event, audit)
    with pytest.raises(TypeError, match="Ended is recorded, and no feature declares it"):
        async with database.transaction() as tx:
            await box.put(tx, "mail", b"one")
            tx.record(Ended(count=1))
    assert await rows(database) == []


async def test_one_name_listens_once_to_a_class_also_among_all(database: Database):
    async def audit(event: Event) -> None:
        raise AssertionError(event)

    box = Outbox(database, KEYS, clock=SystemClock())
    box.on(Happened, audit)
    with pytest.raises(ConfigError):
        box.on(Event, audit)
    box = Outbox(database, KEYS, clock=SystemClock())
    box.on(Event, audit)
    with pytest.raises(ConfigError):
        box.on(Happened, audit)
    box = Outbox(database, KEYS, clock=SystemClock())
    box.on(Event, audit)
    with pytest.raises(ConfigError):
        box.on(Event, audit)


async def test_an_event_nobody_listens_to_writes_no_row(database: Database):
    box = Outbox(database, KEYS, clock=SystemClock())
    box.handle("mail", Receiver())
    async with database.transaction() as tx:
        tx.record(Happened(user_id="usr_1"))
    assert await rows(database) == []


async def test_a_kind_is_delivered_by_one_function_only(database: Database):
    box = Outbox(database, KEYS, clock=SystemClock())
    box.handle("mail", Receiver())
    with pytest.raises(ConfigError):
        box.handle("mail", Receiver())


async def test_a_killed_process_loses_nothing(database: Database, database_url: str):
    """OPS-08: kill -9 in the middle of deliveries; every committed row is delivered by the next process."""
    code = (
        "import asyncio, sys\n"
        "from routeguard.core.clock import SystemClock\n"
        "from routeguard.foundation.db.database import Database\n"
        "from routeguard.foundation.db.outbox import Outbox\n"
        "from tests.db.test_outbox import KEYS, put\n"
        "from tests.steady import PATIENT\n"
        "async def main(url):\n"
        "    database = Database(url, clock=SystemClock(), settings=PATIENT)\n"
        "    await database.start()\n"
        "    box = Outbox(database, KEYS, clock=SystemClock())\n"
        "    async def hang(payload):\n"
        "        print('taken', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "    box.handle('mail', hang)\n"
        "    await put(database, box, *(b'%d' % number for number in range(30)))\n"
        "    await box.start()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main(sys.argv[1]))\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, database_url, stdout=-1)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"taken\n"
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    clock = FakeClock(SystemClock().time())
    box, receiver = Outbox(database, KEYS, clock=clock), Receiver()
    box.handle("mail", receiver)
    await box.deliver_due()
    # What the dead process held stays its own until the lease ends.
    assert len(receiver.got) < 30
    clock.advance(module._LEASE + 1)
    await box.deliver_due()
    assert sorted(receiver.got) == sorted(b"%d" % number for number in range(30))
    assert await rows(database) == []


async def test_rows_from_before_keys_had_an_issuer_are_delivered(database: Database):
    box, receiver = Outbox(database, KEYS, clock=SystemClock()), Receiver()
    box.handle("mail", receiver)
    sealed = Sealer(Purpose.OUTBOX, Unbound(KEYS)).seal(b"one", b"obx_1:mail")  # type: ignore[arg-type]
    async with database.transaction() as tx:
        await tx.execute(sa.insert(outbox).values(id="obx_1", kind="mail", payload=sealed, due_at=0.0, attempts=0))
    await box.deliver_due()
    assert receiver.got == [b"one"]
    assert await rows(database) == []


async def test_a_delivery_whose_wait_was_cancelled_is_tried_later_and_then_given_up(database: Database):
    async def cancelled(_payload: bytes) -> None:
        waited = asyncio.ensure_future(asyncio.Event().wait())
        waited.cancel()
        await waited

    clock = FakeClock()
    box = Outbox(database, KEYS, clock=clock)
    box.handle("mail", cancelled)
    await put(database, box, b"one")
    for _ in range(module._ATTEMPTS):
        assert await box.deliver_due() == 1
        clock.advance(module._LONGEST_PAUSE * 2)
    assert await box.dead() == 1


async def test_a_listener_whose_name_postgresql_could_not_store_is_refused(database: Database):
    box = Outbox(database, KEYS, clock=SystemClock())

    async def listener(_event: Happened) -> None: ...

    with pytest.raises(ConfigError, match="shorter name"):
        box.on(Happened, listener, name="a" * 200)
    box.on(Happened, listener, name="a" * 160)
    async with database.transaction() as tx:
        tx.record(Happened(user_id="usr_1"))
    assert len(await rows(database)) == 1
