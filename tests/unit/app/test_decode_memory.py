"""The memory of all decodes: never more than there is, in one process and in several, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from tessera.app.imaging.memory import TOKENS, DecodeMemory, LocalMemory, SharedMemory, create_shared_memory, tokens_of

HOLDER = (
    "import sys; from app.imaging.memory import SharedMemory; SharedMemory(int(sys.argv[1])).take(float(sys.argv[2])); "
)
HOLDER += "print('held', flush=True); sys.stdin.read()"


def shared() -> DecodeMemory:
    return SharedMemory(create_shared_memory())


@pytest.mark.parametrize("make", [LocalMemory, shared])
def test_no_more_is_handed_out_than_there_is(make: Callable[[], DecodeMemory]) -> None:
    memory, lock = make(), threading.Lock()
    turn, held, most = threading.Lock(), 0, 0

    def work(share: float) -> None:
        nonlocal held, most
        for _ in range(20):
            with turn:  # one thread of a process asks at a time
                grant = memory.take(share)
            with lock:
                held += tokens_of(share)
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= tokens_of(share)
            memory.give_back(grant)

    threads = [threading.Thread(target=work, args=(share,)) for share in (0.01, 0.2, 0.4, 0.7, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert TOKENS // 2 < most <= TOKENS
    memory.give_back(memory.take(1.0))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0, 7.0])
def test_every_share_can_be_had(share: float) -> None:
    assert 1 <= tokens_of(share) <= TOKENS


def test_what_a_process_held_that_was_killed_is_free_again() -> None:
    file = create_shared_memory()
    ours = SharedMemory(file)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), "0.6"], pass_fds=[file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        small = ours.take(0.25)
        taken = threading.Event()

        def take_all() -> None:
            ours.take(0.75)
            taken.set()

        waiter = threading.Thread(target=take_all, daemon=True)
        waiter.start()
        assert not taken.wait(0.2), "0.25 and 0.6 are held"
        holder.kill()
        assert taken.wait(30)
        ours.give_back(small)
    os.close(file)
