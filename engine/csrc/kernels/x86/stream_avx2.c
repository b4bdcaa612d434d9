/* 32 bytes a load. */
#define BYTES 32
#include "kernels/stream.inc"

const ts_kernel ts_stream_avx2 = {"ymm", TS_STREAM, TS_U8, TS_CPU_AVX2, .stream = run};
