#define _GNU_SOURCE /* RTLD_NOLOAD */
#include "image/jpeg.h"
#include "image/libjpeg.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ROWS = 16,         /* that are handed on at once: they stay in L1 or L2 */
    SKIPPED_ROWS = 512, /* at once: a few are transformed all the same at either end */
    MARGIN = 2,        /* columns beside the box: in the outermost ones of a crop, colours are interpolated from one side alone */
    PAUSE_MS = 4,      /* between two questions whether it is wanted */
};

struct ts_libjpeg {
    void *handle;
    ts_jpeg_std_error *std_error;
    ts_jpeg_create *create;
    ts_jpeg_mem_src *mem_src;
    ts_jpeg_read_header *read_header;
    ts_jpeg_step *start, *finish, *has_multiple_scans;
    ts_jpeg_crop_scanline *crop;
    ts_jpeg_skip_scanlines *skip;
    ts_jpeg_read_scanlines *read;
    ts_jpeg_destroy *destroy;
};

typedef struct {
    ts_jpeg_decompress decompress; /* first: the library hands it back, and it stands for all of this */
    ts_jpeg_error error;
    ts_jpeg_progress progress;
    jmp_buf failed;
    const ts_libjpeg *library;
    const ts_jpeg_job *job;
    int64_t asked;                 /* when, in milliseconds */
    uint8_t *pixels;               /* ROWS of them */
    ts_jpeg_result result;         /* why it failed */
} decoding;

/* ---- the library ---- */

static int resolve(ts_libjpeg *library)
{
    const struct {
        const char *name;
        void *place;
    } symbols[] = {
        {"jpeg_std_error", &library->std_error},
        {"jpeg_CreateDecompress", &library->create},
        {"jpeg_mem_src", &library->mem_src},
        {"jpeg_read_header", &library->read_header},
        {"jpeg_start_decompress", &library->start},
        {"jpeg_finish_decompress", &library->finish},
        {"jpeg_has_multiple_scans", &library->has_multiple_scans},
        {"jpeg_crop_scanline", &library->crop},
        {"jpeg_skip_scanlines", &library->skip},
        {"jpeg_read_scanlines", &library->read},
        {"jpeg_destroy_decompress", &library->destroy},
    };
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library->handle, symbols[i].name);
        if (!symbol)
            return -1;
        memcpy(symbols[i].place, &symbol, sizeof symbol); /* a pointer to data, which C does not convert to one to a function */
    }
    return 0;
}

static void fail(void *pointer)
{
    decoding *d = pointer;
    longjmp(d->failed, 1);
}

static void stay_silent(void *pointer)
{
    (void)pointer;
}

static void count_warning(void *pointer, int level)
{
    decoding *d = pointer;
    d->error.num_warnings += level < 0;
}

static void create(decoding *d)
{
    d->decompress.err = d->library->std_error(&d->error);
    d->error.error_exit = fail;
    d->error.output_message = stay_silent;
    d->error.emit_message = count_warning;
    d->library->create(&d->decompress, JPEG_LIB_VERSION, sizeof d->decompress);
}

/* Whether the library takes our structure for its own. */
static int agrees(const ts_libjpeg *library)
{
    decoding d = {.library = library};
    if (setjmp(d.failed))
        return 0;
    create(&d);
    library->destroy(&d.decompress);
    return 1;
}

ts_libjpeg *ts_libjpeg_open(const char *path)
{
    ts_libjpeg *library = calloc(1, sizeof *library);
    if (!library)
        return NULL;
    library->handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD); /* its symbols include those of all that it is linked with */
    if (library->handle && resolve(library) == 0 && agrees(library))
        return library;
    ts_libjpeg_free(library);
    return NULL;
}

void ts_libjpeg_free(ts_libjpeg *library)
{
    if (library && library->handle)
        dlclose(library->handle);
    free(library);
}

/* ---- decoding ---- */

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void ask(void *pointer)
{
    decoding *d = pointer;
    const int64_t now = milliseconds();
    if (now - d->asked < PAUSE_MS)
        return;
    d->asked = now;
    if (!d->job->wanted(d->job->context)) {
        d->result = TS_JPEG_UNWANTED;
        fail(d);
    }
}

static void start(decoding *d)
{
    const ts_jpeg_job *job = d->job;
    ts_jpeg_decompress *cinfo = &d->decompress;
    create(d);
    cinfo->progress = &d->progress;
    d->library->mem_src(cinfo, job->data, job->bytes);
    if (d->library->read_header(cinfo, 1) != JPEG_HEADER_OK || (cinfo->num_components != 1 && cinfo->num_components != 3))
        fail(d);
    cinfo->out_color_space = JCS_EXT_RGBX;
    cinfo->scale_num = 1;
    cinfo->scale_denom = (unsigned)job->scale;
    d->library->start(cinfo);
    if (cinfo->output_width != (unsigned)job->width || cinfo->output_height != (unsigned)job->height ||
        cinfo->output_components != TS_IN_PIXEL)
        fail(d);
}

/* Has only the columns of the box transformed, and a few more. Returns which comes first. */
static int crop(decoding *d)
{
    const ts_box *box = &d->job->box;
    const int right = box->right + MARGIN < d->job->width ? box->right + MARGIN : d->job->width;
    unsigned left = (unsigned)(box->left > MARGIN ? box->left - MARGIN : 0), width = (unsigned)right - left;
    if (width < d->decompress.output_width)
        d->library->crop(&d->decompress, &left, &width);
    else
        left = 0;
    return (int)left;
}

static void skip(decoding *d, int rows)
{
    for (int left = rows; left > 0; left -= SKIPPED_ROWS) {
        d->library->skip(&d->decompress, (unsigned)(left < SKIPPED_ROWS ? left : SKIPPED_ROWS));
        ask(d);
    }
}

/* The next rows, at most ROWS. */
static void read_rows(decoding *d, int count, ptrdiff_t stride)
{
    uint8_t *rows[ROWS];
    for (int i = 0; i < count; i++)
        rows[i] = d->pixels + i * stride;
    for (int done = 0; done < count;) {
        const int more = (int)d->library->read(&d->decompress, rows + done, (unsigned)(count - done));
        if (more < 1)
            fail(d);
        done += more;
    }
}

/* Rows [top, bottom), of which those of the box are handed on. */
static void take_rows(decoding *d, int top, int bottom, int left)
{
    const ts_jpeg_job *job = d->job;
    const ptrdiff_t stride = (ptrdiff_t)d->decompress.output_width * TS_IN_PIXEL;
    for (int count; top < bottom; top += count) {
        count = bottom - top < ROWS ? bottom - top : ROWS;
        read_rows(d, count, stride);
        const int first = top < job->box.top ? job->box.top : top;
        const int last = top + count < job->box.bottom ? top + count : job->box.bottom;
        if (first < last)
            job->take(job->context, d->pixels + (first - top) * stride + (ptrdiff_t)(job->box.left - left) * TS_IN_PIXEL, stride,
                      first, last - first);
    }
}

static void read_box(decoding *d)
{
    /* Several scans are all read before the first row is there. What smooths blocks that lack a scan looks beyond a crop. */
    const int whole = d->library->has_multiple_scans(&d->decompress);
    const int left = whole ? 0 : crop(d);
    d->pixels = malloc((size_t)ROWS * d->decompress.output_width * TS_IN_PIXEL);
    if (!d->pixels)
        fail(d);
    if (whole) {
        take_rows(d, 0, d->job->height, left);
    } else {
        skip(d, d->job->box.top);
        take_rows(d, d->job->box.top, d->job->box.bottom, left);
        /* Were the very last row skipped too, the library would not look at any of these: damage there would pass. */
        skip(d, d->job->height - 1 - d->job->box.bottom);
        if (d->job->box.bottom < d->job->height)
            take_rows(d, d->job->height - 1, d->job->height, left);
    }
    d->library->finish(&d->decompress);
}

static int inside(const ts_jpeg_job *job)
{
    const ts_box *box = &job->box;
    return 0 <= box->left && box->left < box->right && box->right <= job->width && 0 <= box->top && box->top < box->bottom &&
           box->bottom <= job->height;
}

ts_jpeg_result ts_jpeg_decode(const ts_libjpeg *library, const ts_jpeg_job *job)
{
    decoding *d = inside(job) ? calloc(1, sizeof *d) : NULL;
    if (!d)
        return TS_JPEG_UNFIT;
    d->library = library;
    d->job = job;
    d->result = TS_JPEG_UNFIT;
    d->asked = milliseconds();
    d->progress.progress_monitor = ask;
    if (setjmp(d->failed) == 0) {
        start(d);
        read_box(d);
        d->result = d->error.num_warnings ? TS_JPEG_UNFIT : TS_JPEG_DONE;
    }
    const ts_jpeg_result result = d->result;
    library->destroy(&d->decompress);
    free(d->pixels);
    free(d);
    return result;
}
