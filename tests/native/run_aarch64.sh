#!/usr/bin/env bash
# The native tests on 64-bit Arm: cross-compiled, then run under qemu-user as CPUs with all, some and none of the
# extensions that kernels use. Takes the folder of cmake, ctest and ninja (default: those on the path).
# Says so and succeeds where the cross compiler or qemu is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

build=build/native-aarch64
tools=${1:+$1/}

if [ "$(uname -m)" = aarch64 ]; then
    echo "native-aarch64: this machine is one, the native tests have covered it"
    exit 0
fi
if ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    echo "native-aarch64: SKIPPED, no aarch64-linux-gnu-gcc (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
    exit 0
fi

ninja=$(command -v "${tools}ninja")
mkdir -p "$build"
{
    "${tools}cmake" -S . -B "$build" -G Ninja "-DCMAKE_MAKE_PROGRAM=$ninja" -DCMAKE_TOOLCHAIN_FILE=cmake/toolchain-aarch64.cmake \
        -DTESSERA_PYTHON=OFF -DTESSERA_TESTS=ON && "${tools}cmake" --build "$build"
} >"$build/build.log" 2>&1 || { cat "$build/build.log"; exit 1; }

if ! command -v qemu-aarch64 >/dev/null; then
    echo "native-aarch64: compiled but NOT RUN, no qemu-aarch64 (Debian: qemu-user)"
    exit 0
fi

export QEMU_LD_PREFIX=${QEMU_LD_PREFIX:-/usr/aarch64-linux-gnu}

# One CPU and the level that the tests must find in it.
run_as() {
    local level
    level=$(QEMU_CPU=$1 qemu-aarch64 "$build/tests/test_dispatch" | sed -n 's/.*this CPU is //p')
    if [ "$level" != "$2" ]; then
        echo "native-aarch64: $1 was taken for level '$level' instead of '$2'"
        exit 1
    fi
    echo "native-aarch64: as $1 ($2)"
}

run_as cortex-a72 neon
QEMU_CPU=cortex-a72 qemu-aarch64 "$build/tests/test_conv" 60
run_as neoverse-n1 dotprod
QEMU_CPU=neoverse-n1 qemu-aarch64 "$build/tests/test_conv" 60
run_as max i8mm
cd "$build"
QEMU_CPU=max "${tools}ctest" --output-on-failure
