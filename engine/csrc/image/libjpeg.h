/*
 * The part of libjpeg's binary interface (version 6.2 of it, on machines with 64-bit pointers) that image/jpeg.c uses of a
 * library that is found at run time. That the library has the same one is checked by itself: it compares the version and
 * the size of `ts_jpeg_decompress` when one is made. Names are libjpeg's, so that its documentation is this one's.
 */
#ifndef TS_IMAGE_LIBJPEG_H
#define TS_IMAGE_LIBJPEG_H

#include <stddef.h>
#include <stdint.h>

enum {
    JPEG_LIB_VERSION = 62,
    JCS_EXT_RGBX = 7, /* libjpeg-turbo's: four bytes a pixel, the last of any value */
    JPEG_HEADER_OK = 1,
};

/* Keeps what went wrong. `room` and `more` are what the library keeps there and is not read here. */
typedef struct ts_jpeg_error {
    void (*error_exit)(void *decompress);
    void (*emit_message)(void *decompress, int level);
    void (*output_message)(void *decompress);
    uint8_t room[104];
    long num_warnings;
    uint8_t more[64];
} ts_jpeg_error;

/* Called now and then while the library works. */
typedef struct {
    void (*progress_monitor)(void *decompress);
    long pass_counter, pass_limit;
    int completed_passes, total_passes;
} ts_jpeg_progress;

typedef struct {
    ts_jpeg_error *err;
    void *mem;
    ts_jpeg_progress *progress;
    void *client_data;
    int is_decompressor, global_state;
    void *src;
    unsigned image_width, image_height;
    int num_components, jpeg_color_space, out_color_space;
    unsigned scale_num, scale_denom;
    uint8_t how[60]; /* gamma, the kind of transform, colours of a palette */
    unsigned output_width, output_height;
    int out_color_components, output_components, rec_outbuf_height;
    uint8_t palette[12];
    unsigned output_scanline;
    uint8_t rest[460];
} ts_jpeg_decompress;

_Static_assert(offsetof(ts_jpeg_error, num_warnings) == 128, "as libjpeg has it");
_Static_assert(offsetof(ts_jpeg_decompress, scale_num) == 68, "as libjpeg has it");
_Static_assert(offsetof(ts_jpeg_decompress, output_width) == 136, "as libjpeg has it");
_Static_assert(offsetof(ts_jpeg_decompress, output_scanline) == 168, "as libjpeg has it");
_Static_assert(sizeof(ts_jpeg_decompress) == 632, "as libjpeg has it");

typedef ts_jpeg_error *ts_jpeg_std_error(ts_jpeg_error *error);
typedef void ts_jpeg_create(ts_jpeg_decompress *d, int version, size_t bytes);
typedef void ts_jpeg_mem_src(ts_jpeg_decompress *d, const uint8_t *data, unsigned long bytes);
typedef int ts_jpeg_read_header(ts_jpeg_decompress *d, int require_image);
typedef int ts_jpeg_step(ts_jpeg_decompress *d);
typedef void ts_jpeg_crop_scanline(ts_jpeg_decompress *d, unsigned *left, unsigned *width);
typedef unsigned ts_jpeg_skip_scanlines(ts_jpeg_decompress *d, unsigned rows);
typedef unsigned ts_jpeg_read_scanlines(ts_jpeg_decompress *d, uint8_t **rows, unsigned count);
typedef void ts_jpeg_destroy(ts_jpeg_decompress *d);

#endif
