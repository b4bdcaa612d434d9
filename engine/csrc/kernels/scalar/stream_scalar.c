/* 16 bytes a load, which every 64-bit CPU of a common kind has. */
#define BYTES 16
#include "kernels/stream.inc"

const ts_kernel ts_stream_scalar = {"16_bytes", TS_STREAM, TS_U8, 0, .stream = run};
