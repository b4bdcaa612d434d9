"""Whether the loops of the register peaks touch no memory: `peak_loops.py OBJDUMP LIBRARY KERNELS`.

A compiler that stores sums in every iteration makes a peak too low, on some machines and for some places of the stack
only. No clock on a shared machine tells that apart from other processes, so this reads the machine code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_NAME = re.compile(r'"(\w+)[^"]*", TS_PEAK')
_OBJECT = re.compile(r"^(\w+)\.c\.o:\s+file format")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(.*)")
_JUMP = re.compile(r"^(?:j\w+|b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+,\s*\S+)\s+([0-9a-f]+)\s+<run\+")
_MEMORY = re.compile(r"\(%|\[")

Instruction = tuple[int, str]


def products(kernels: Path) -> dict[str, str]:
    """The product instruction by name of the file, from the names of the rows. Scalar loops are the compiler's own."""
    return {
        path.stem: name.group(1)
        for path in sorted(kernels.glob("*/peak_*.c"))
        if path.parent.name != "scalar" and (name := _NAME.search(path.read_text()))
    }


def functions(objdump: str, library: str) -> dict[str, list[Instruction]]:
    """Addresses and instructions of each object's function `run`."""
    command = [objdump, "--disassemble=run", "--no-show-raw-insn", library]
    found: dict[str, list[Instruction]] = {}
    code: list[Instruction] = []
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        if started := _OBJECT.match(line):
            code = found.setdefault(started.group(1), [])
        elif instruction := _INSTRUCTION.match(line):
            code.append((int(instruction.group(1), 16), instruction.group(2)))
    return found


def loops(code: list[Instruction]) -> list[list[str]]:
    """The instructions of each loop: from where a jump goes back to, up to that jump."""
    return [
        [text for address, text in code if int(jump.group(1), 16) <= address <= end]
        for end, last in code
        if (jump := _JUMP.match(last)) and int(jump.group(1), 16) <= end
    ]


def fault(code: list[Instruction], product: str) -> str | None:
    """What is wrong with a peak's function; None where its loop multiplies, and in registers."""
    multiplying = [loop for loop in loops(code) if any(re.search(rf"\b{product}\b", text) for text in loop)]
    if not multiplying:
        return f"no loop of {product}"
    return next((f"`{text}` inside of the loop" for loop in multiplying for text in loop if _MEMORY.search(text)), None)


def main() -> None:
    """Prints what it read; exits with 1 and a line for each fault."""
    objdump, library, kernels = sys.argv[1:]
    code = functions(objdump, library)
    read = {name: product for name, product in products(Path(kernels)).items() if code.get(name)}
    faults = [f"{name}: {text}" for name, product in read.items() if (text := fault(code[name], product))]
    if faults or not read:
        sys.exit("\n".join(faults) or f"{library} has no register peak that this test could read")
    print(f"{len(read)} register peaks stay in registers: {', '.join(read.values())}")


if __name__ == "__main__":
    main()
