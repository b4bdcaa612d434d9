"""What the sanitizers watch: `python -m tests.ascend.exercise libascendcl.so model.om`."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tessera.engine.backends.ascend.library import load_library
from tessera.engine.backends.ascend.runtime import Runtime
from tessera.engine.backends.ascend.session import AscendSession
from tessera.engine.errors import DeviceError
from tests.ascend.headers import typed

FAULTS = ("slow=1", "execute@0=507015*2", "lost@1=507010*6", "memcpy=207001*3", "hang=1*1", "hang=9*1")


def main(library: str, model: str) -> None:
    double = typed(Path(library))
    runtime = Runtime(load_library({part: [library] for part in ("runtime", "model", "profiling")}))
    for instances in (1, 2):
        with (
            AscendSession(Path(model), runtime=runtime, instances=instances, first_retry=0.01) as session,
            ThreadPoolExecutor(6) as threads,
        ):
            session.run(np.zeros((40, 8, 8, 3), np.uint8))
            for faults in FAULTS:
                double.aclDoubleSetFaults(faults.encode())
                outcomes = list(threads.map(lambda n: attempt(session, n), range(18)))
                while not all(status.healthy for status in session.devices()):
                    time.sleep(0.01)
                print(f"{instances} {faults}: {sum(outcomes)} of {len(outcomes)} answered")
            double.aclDoubleSetFaults(b"")


def attempt(session: AscendSession, number: int) -> bool:
    try:
        session.run(np.full((1 + number % 18, 8, 8, 3), number, np.uint8))
    except DeviceError:
        return False
    finally:
        session.devices()
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
