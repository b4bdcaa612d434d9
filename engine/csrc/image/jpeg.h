/*
 * The pixels of a JPEG that a crop needs, by the libjpeg-turbo that another library of the process has brought along: columns
 * outside of them are not transformed, rows only unpacked, and no more than a few rows are ever held. What is not a plain
 * and whole picture is left to that other library.
 */
#ifndef TS_IMAGE_JPEG_H
#define TS_IMAGE_JPEG_H

#include "image/resize.h"

typedef struct ts_libjpeg ts_libjpeg;

/* The libjpeg that the shared library at `path` uses. Null when that is none with the interface that is wanted, or without memory. */
ts_libjpeg *ts_libjpeg_open(const char *path);
void ts_libjpeg_free(ts_libjpeg *library);

typedef struct {
    const uint8_t *data; /* the file */
    size_t bytes;
    int scale;           /* 1, 2, 4 or 8: by what its sides are divided */
    int width, height;   /* then, of the whole picture */
    ts_box box;          /* the pixels that are wanted of it */
    /* Takes rows of the box, TS_IN_PIXEL bytes a pixel, `pixels` being pixel (box.left, top). */
    void (*take)(void *context, const uint8_t *pixels, ptrdiff_t stride, int top, int rows);
    int (*wanted)(void *context); /* asked every few milliseconds */
    void *context;
} ts_jpeg_job;

typedef enum {
    TS_JPEG_DONE,
    TS_JPEG_UNFIT,    /* damaged, of another kind or size: `take` may have been called all the same */
    TS_JPEG_UNWANTED, /* `wanted` said no */
} ts_jpeg_result;

ts_jpeg_result ts_jpeg_decode(const ts_libjpeg *library, const ts_jpeg_job *job);

#endif
