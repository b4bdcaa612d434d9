/* 64 bytes a load. */
#define BYTES 64
#include "kernels/stream.inc"

const ts_kernel ts_stream_avx512 = {"zmm", TS_STREAM, TS_U8, TS_CPU_AVX512, .stream = run};
