"""Who gets a place, who loses one, and how many are in the reserve."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tessera.app.limits.connections import RESERVE, ConnectionTable, Place

MANY = 16


@dataclass(eq=False)
class Connection:
    """A connection that does what the table tells it."""

    place: Place | None = None
    displaced: list[bool] = field(default_factory=list)

    def displace(self, *, linger: bool) -> None:
        self.displaced.append(linger)


class Hall:
    """A table, its clock, and everybody who came."""

    def __init__(self, limit: int = MANY, files: int | None = None) -> None:
        self.now = 0.0
        self.refusals = 0
        self.table = ConnectionTable(limit, files=files, on_refusal=self._count, clock=lambda: self.now)

    def _count(self) -> None:
        self.refusals += 1

    def enter(self, client: str, file: int = 0) -> Connection:
        connection = Connection()
        connection.place = self.table.enter(connection, client, file)
        return connection

    def ask(self, client: str, file: int = 0) -> Connection:
        """Connect and send a whole request."""
        connection = self.enter(client, file)
        assert connection.place is not None
        if connection.place.reserved:
            self.table.promote(connection.place)
        self.table.works(connection.place)
        return connection


def admitted(connection: Connection) -> bool:
    return connection.place is not None and not connection.place.reserved


def test_one_client_may_have_all_places_while_nobody_else_wants_them() -> None:
    hall = Hall()
    assert all(admitted(hall.enter("greedy")) for _ in range(MANY))
    assert hall.refusals == 0


def test_a_request_takes_the_place_of_whoever_waits_longest_of_the_client_that_holds_most() -> None:
    hall = Hall()
    patient = hall.enter("patient")
    hall.now = 1.0
    greedy = [hall.enter("greedy") for _ in range(MANY - 1)]
    hall.now = 1.1
    assert admitted(hall.ask("other"))
    assert patient.displaced == []
    assert [connection.displaced for connection in greedy[:2]] == [[True], []]


def test_whoever_only_connects_displaces_nobody() -> None:
    hall = Hall()
    greedy = [hall.enter("greedy") for _ in range(MANY)]
    hall.now = 100.0
    assert not any(admitted(hall.enter(f"other {number}")) for number in range(1000))
    assert not any(connection.displaced for connection in greedy)


def test_connections_at_work_are_not_displaced() -> None:
    hall = Hall()
    busy = [hall.ask("busy") for _ in range(MANY)]
    hall.now = 100.0
    assert not admitted(hall.ask("other"))
    hall.table.waits(busy[3].place)
    hall.now = 200.0
    assert admitted(hall.ask("other"))
    assert [connection.displaced for connection in busy].index([True]) == 3


def test_a_client_alone_loses_a_connection_only_when_it_has_been_idle_for_a_while() -> None:
    hall = Hall()
    for _ in range(MANY):
        hall.enter("only")
    assert not admitted(hall.ask("only"))
    hall.now = 2.0
    assert admitted(hall.ask("only"))


def test_clients_that_hold_little_are_not_displaced_for_one_another_at_once() -> None:
    hall = Hall()
    for number in range(MANY):
        hall.enter(f"client {number}")
    assert not admitted(hall.ask("newcomer"))


def test_the_oldest_in_the_reserve_gives_way_and_those_being_answered_stay() -> None:
    hall = Hall(limit=1)
    hall.ask("busy")
    first, second = hall.enter("probe"), hall.enter("slow")
    hall.table.works(first.place)
    rest = [hall.enter("slow") for _ in range(RESERVE - 2)]
    hall.enter("slow")
    assert (first.displaced, second.displaced, rest[0].displaced) == ([], [False], [])


def test_who_finds_the_reserve_at_work_gets_nothing() -> None:
    hall = Hall(limit=1)
    hall.ask("busy")
    for _ in range(RESERVE):
        hall.table.works(hall.enter("probe").place)
    assert hall.enter("probe").place is None


def test_with_descriptors_nearly_out_places_only_change_hands() -> None:
    hall = Hall(files=100)
    early = hall.enter("early", file=20)
    late = hall.enter("late", file=100)
    assert admitted(early)
    assert not admitted(late)
    hall.now = 2.0
    assert hall.table.promote(late.place)
    assert early.displaced == [True]


@given(st.lists(st.tuples(st.sampled_from("eaewlp"), st.sampled_from("abc"), st.integers(0, 40)), max_size=200))
def test_the_table_never_holds_more_than_it_may_and_forgets_everybody(steps: list[tuple[str, str, int]]) -> None:
    hall, limit = Hall(limit=4), 4
    there: list[Connection] = []
    for step, client, number in steps:
        hall.now += 0.3
        chosen = there[number % len(there)] if there else None
        if step in "ea":
            connection = hall.ask(client) if step == "a" else hall.enter(client)
            if connection.place is not None:
                there.append(connection)
        elif chosen is not None:
            assert chosen.place is not None
            if step == "w":
                hall.table.works(chosen.place)
            elif step == "p":
                hall.table.waits(chosen.place)
            else:
                hall.table.leave(chosen.place)
                there.remove(chosen)
        there = [connection for connection in there if connection.displaced[-1:] != [False]]
        assert sum(admitted(connection) for connection in there) <= limit
        assert len(there) <= limit + RESERVE
    for connection in there:
        assert connection.place is not None
        hall.table.leave(connection.place)
    assert all(admitted(hall.enter("anybody")) for _ in range(limit)), "every place is free again"
