"""Longer fuzz of everything that reads a model file: `make fuzz`, or `python -m tests.fuzz.readers SECONDS [SEED]`.

Files are damaged byte by byte and field by field, then added, loaded and run as the service would. The only allowed
ends are success and an engine error. Each worker has little memory to spare, so that a file that asks for more is found
too; a worker that dies names its last case, which is kept.
"""

from __future__ import annotations

import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto, helper
from safetensors.numpy import save

from tessera import engine
from tessera.engine.errors import EngineError
from tessera.engine.quantize.pipeline import calibrate
from tessera.engine.quantize.writer import quantised_model
from tessera.models.formats.checkpoint import read_checkpoint
from tessera.models.formats.weights import read_weights
from tessera.models.importing.importer import ImportOptions, add_model
from tests.unit.models import torchfiles
from tests.unit.models.tiny import SIZE, tiny_images, tiny_model, tiny_state

_SPARE_BYTES = 2 << 30
_CASES_PER_WORKER = 400
_SECONDS_PER_CASE = 60
_NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 7, 8, 16, 255, 2**16, 2**31 - 1, 2**32, 2**40, 2**63 - 1)


def seeds() -> dict[str, bytes]:
    """Small whole files of every kind."""
    model = tiny_model()
    quantised = quantised_model(model, calibrate(model, [tiny_images(4)], bias_correction=False)[0])
    ended = onnx.ModelProto.FromString(model.SerializeToString())
    ended.graph.node.append(helper.make_node("Softmax", [ended.graph.output[0].name], ["probabilities"], axis=1))
    ended.graph.output[0].name = "probabilities"
    ended.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return {
        "float.onnx": model.SerializeToString(),
        "ended.onnx": ended.SerializeToString(),
        "quantised.onnx": quantised.SerializeToString(),
        "weights.safetensors": save(tiny_state()),
        "weights.pth": torchfiles.checkpoint(tiny_state()),
    }


def damaged(name: str, data: bytes, choose: random.Random) -> bytes:
    """One damaged variant of a file."""
    if name.endswith(".onnx") and choose.random() < 0.7:
        model = ModelProto.FromString(data)
        for _ in range(choose.choice((1, 1, 1, 2, 4))):
            damage_field(model, choose)
        return model.SerializeToString()
    damaged = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 8))):
        # Headers matter more than weights.
        end = choose.choice((64, 1024, len(damaged)))
        start = choose.choice((0, max(0, len(damaged) - end)))
        position = start + choose.randrange(min(end, len(damaged)))
        damaged[position] = choose.choice((choose.randrange(256), 0, 255, damaged[position] ^ 1))
    if choose.random() < 0.2:
        del damaged[choose.randrange(len(damaged)) :]
    if choose.random() < 0.1:
        at = choose.randrange(len(damaged) + 1)
        damaged[at:at] = damaged[choose.randrange(len(damaged)) :][: choose.randrange(200)]
    return bytes(damaged)


def damage_field(message: Message, choose: random.Random) -> None:
    """Changes one field somewhere below a message."""
    while True:
        fields = [field for field, _ in message.ListFields()]
        if not fields:
            return
        field = choose.choice(fields)
        value = getattr(message, field.name)
        is_list = field.is_repeated
        if is_list and choose.random() < 0.2:
            damage_list(value, field, choose)
            return
        inner = choose.choice(list(value)) if is_list and len(value) else value
        if field.type == FieldDescriptor.TYPE_MESSAGE and isinstance(inner, Message):
            if choose.random() < 0.05 and not is_list:
                message.ClearField(field.name)
                return
            message = inner
            continue
        changed = other(inner, choose)
        try:
            if is_list and len(value):
                value[choose.randrange(len(value))] = changed
            elif not is_list:
                setattr(message, field.name, changed)
        except (ValueError, TypeError):
            message.ClearField(field.name)
        return


def damage_list(values: object, field: FieldDescriptor, choose: random.Random) -> None:
    count = len(values)  # type: ignore[arg-type]
    if not count:
        return
    index = choose.randrange(count)
    match choose.randrange(3):
        case 0:
            del values[index]  # type: ignore[attr-defined]
        case 1 if field.type == FieldDescriptor.TYPE_MESSAGE:
            values.add().CopyFrom(values[index])  # type: ignore[attr-defined,index]
        case 1:
            values.append(values[index])  # type: ignore[attr-defined,index]
        case _:
            del values[index:]  # type: ignore[attr-defined]


def other(value: object, choose: random.Random) -> object:
    match value:
        case bool():
            return not value
        case int():
            return choose.choice((*_NUMBERS, value + 1, value - 1, value * 2, -value))
        case float():
            return choose.choice((0.0, -1.0, 1e-45, 1e38, float("inf"), float("nan"), -value))
        case str():
            return choose.choice(("", value[:-1], value + "x", "input", "fc.weight", "Relu", "Reshape", "Softmax", "N"))
        case bytes():
            return choose.choice((b"", value[:-1], value + b"\0" * 4, bytes(reversed(value[:4096])) + value[4096:]))
        case _:
            return value


def use(path: Path, folder: Path) -> str:
    """Reads, adds, loads and runs a file; what came of it."""
    if path.suffix == ".safetensors":
        read_weights(path)
    elif path.suffix == ".pth":
        read_checkpoint(path)
    package = add_model(path, folder, ImportOptions(name="m", size=SIZE, resize=SIZE))
    if package.architecture is not None:
        return "added"
    image = np.zeros((2, 3, SIZE, SIZE), np.float32)
    with engine.load(package.source, backend="cpu", threads=1) as session:
        session.run(image)
    return "ran"


def work(seed: int, results: multiprocessing.SimpleQueue, place: Path) -> None:
    files = seeds()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE_BYTES, resource.RLIM_INFINITY))
    choose = random.Random(seed)
    for _ in range(_CASES_PER_WORKER):
        name = choose.choice(sorted(files))
        path = place / f"case{Path(name).suffix}"
        path.write_bytes(damaged(name, files[name], choose))
        results.put(("begin", str(path)))
        try:
            with tempfile.TemporaryDirectory(dir=place) as folder:
                outcome = use(path, Path(folder) / "library")
        except EngineError:
            outcome = "refused"
        except BaseException:
            results.put(("failed", traceback.format_exc()))
            return
        results.put((f"{Path(name).suffix} {outcome}", ""))


def main() -> int:
    seconds, first = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    end, counts, failures = time.monotonic() + seconds, Counter[str](), 0
    kept = Path(tempfile.mkdtemp(prefix="tessera-fuzz-"))
    context = multiprocessing.get_context("spawn")
    for seed in range(first, first + 10**6):
        if time.monotonic() > end:
            break
        with tempfile.TemporaryDirectory() as place:
            results = context.SimpleQueue()
            worker = context.Process(target=work, args=(seed, results, Path(place)))
            worker.start()
            case, begun, problem = "", time.monotonic(), ""
            while worker.is_alive() or not results.empty():
                if results.empty():
                    time.sleep(0.01)
                    if case and time.monotonic() - begun > _SECONDS_PER_CASE:
                        problem = "took too long"
                        worker.kill()
                        break
                    continue
                kind, text = results.get()
                if kind == "begin":
                    case, begun = text, time.monotonic()
                elif kind == "failed":
                    problem = text
                else:
                    counts[kind] += 1
            worker.join()
            if worker.exitcode and not problem:
                problem = f"the process died with {worker.exitcode}"
            if problem:
                failures += 1
                copy = kept / f"{seed}-{Path(case).name}"
                copy.write_bytes(Path(case).read_bytes())
                print(f"seed {seed}, file {copy}:\n{problem}", flush=True)
    print(f"{sum(counts.values())} cases from seed {first}: {dict(sorted(counts.items()))}; {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
