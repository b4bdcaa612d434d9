/*
 * JPEGs by the system's libjpeg-turbo: any box of a picture has the pixels of the whole one, and damaged files, whose errors
 * leave the library by a jump, touch no memory that is not theirs. For sanitizers; models/preprocessing/jpeg.py is tested
 * in Python.
 *
 *     test_jpeg PICTURE [ROUNDS]
 */
#include "check.h"
#include "image/jpeg.h"
#include "kernels/resampling.h"

#include <dlfcn.h>
#include <string.h>

enum { MOST_BYTES = 1 << 16, SKIPPED = 77 };

/* Where rows of a box go. */
typedef struct {
    ts_box box;
    uint8_t *pixels;
    int rows;
} taken;

static void take(void *context, const uint8_t *pixels, ptrdiff_t stride, int top, int rows)
{
    taken *t = context;
    const size_t bytes = (size_t)(t->box.right - t->box.left) * TS_IN_PIXEL;
    for (int row = 0; row < rows; row++)
        memcpy(t->pixels + (size_t)(top - t->box.top + row) * bytes, pixels + row * stride, bytes);
    t->rows += rows;
}

static int always(void *context)
{
    (void)context;
    return 1;
}

static ts_jpeg_result decode(const ts_libjpeg *library, const uint8_t *data, size_t bytes, int scale, int width, int height, taken *t)
{
    const ts_jpeg_job job = {data, bytes, scale, width, height, t->box, take, always, t};
    t->pixels = calloc((size_t)(t->box.right - t->box.left) * (size_t)(t->box.bottom - t->box.top), TS_IN_PIXEL);
    return ts_jpeg_decode(library, &job);
}

static ts_box random_box(random_source *random, int width, int height)
{
    const int left = random_between(random, 0, width - 1), top = random_between(random, 0, height - 1);
    return (ts_box){left, top, random_between(random, left + 1, width), random_between(random, top + 1, height)};
}

static void check_box(const ts_libjpeg *library, const uint8_t *data, size_t bytes, const taken *whole, random_source *random)
{
    const int width = whole->box.right, height = whole->box.bottom;
    taken part = {.box = random_box(random, width, height)};
    CHECK(decode(library, data, bytes, 1, width, height, &part) == TS_JPEG_DONE, "a box of a whole picture was not decoded");
    CHECK(part.rows == part.box.bottom - part.box.top, "%d rows", part.rows);
    const int columns = part.box.right - part.box.left;
    for (int y = part.box.top; y < part.box.bottom; y++)
        for (int x = 0; x < columns; x++) {
            const uint8_t *a = part.pixels + ((size_t)(y - part.box.top) * (size_t)columns + (size_t)x) * TS_IN_PIXEL;
            const uint8_t *b = whole->pixels + ((size_t)y * (size_t)width + (size_t)(part.box.left + x)) * TS_IN_PIXEL;
            CHECK(memcmp(a, b, 3) == 0, "pixel (%d, %d) differs", part.box.left + x, y);
        }
    free(part.pixels);
}

static void check_damaged(const ts_libjpeg *library, const uint8_t *data, size_t bytes, const taken *whole, random_source *random)
{
    uint8_t *copy = malloc(bytes); /* exactly as large, so that reading on is seen */
    memcpy(copy, data, bytes);
    for (int i = random_between(random, 1, 8); i > 0; i--)
        copy[random_between(random, 2, (int)bytes - 1)] = (uint8_t)random_between(random, 0, 255);
    const size_t left = random_between(random, 0, 3) ? bytes : (size_t)random_between(random, 1, (int)bytes);
    const int scale = 1 << random_between(random, 0, 3);
    const int width = (whole->box.right - 1) / scale + 1, height = (whole->box.bottom - 1) / scale + 1;
    taken part = {.box = random_box(random, width, height)};
    decode(library, copy, left, scale, width, height, &part);
    free(part.pixels);
    free(copy);
}

int main(int count, char **arguments)
{
    static uint8_t data[MOST_BYTES];
    const int rounds = count > 2 ? atoi(arguments[2]) : 2000;
    random_source random = {17};
    FILE *file = count > 1 ? fopen(arguments[1], "rb") : NULL;
    CHECK(file, "usage: test_jpeg PICTURE [ROUNDS]");
    const size_t bytes = fread(data, 1, sizeof data, file);
    fclose(file);
    if (!dlopen("libjpeg.so.62", RTLD_NOW)) {
        printf("jpeg: there is no libjpeg.so.62\n");
        return SKIPPED;
    }
    ts_libjpeg *library = ts_libjpeg_open("libjpeg.so.62");
    CHECK(library, "libjpeg.so.62 is not libjpeg-turbo's");
    taken whole = {.box = {0, 0, 75, 53}};
    CHECK(decode(library, data, bytes, 1, 75, 53, &whole) == TS_JPEG_DONE, "%s was not decoded", arguments[1]);
    for (int round = 0; round < rounds; round++) {
        check_box(library, data, bytes, &whole, &random);
        check_damaged(library, data, bytes, &whole, &random);
    }
    free(whole.pixels);
    ts_libjpeg_free(library);
    printf("jpeg: %d boxes and damaged files\n", rounds);
    return 0;
}
