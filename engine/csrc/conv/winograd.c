/* Convolutions by Winograd's algorithm: which ones, their transformed weights, and the loops around winograd.h's kernels. */
#include "conv/conv.h"

#include <stdlib.h>

typedef struct {
    ts_conv_ending ending;
    const ts_winograd_kernel *kernel;
    int pad_top, pad_left;
    int rows, columns; /* tiles of one image */
    int most_tiles;    /* of one pass over the weights */
    int16_t *weights;  /* [output groups][positions][input channels / 2][TS_GROUP][2], in the program's region */
    size_t group_weights; /* elements of one group of output channels */
} winograd;

enum {
    OUT = TS_WINOGRAD_OUT,
    IN = TS_WINOGRAD_IN,
    POSITIONS = TS_WINOGRAD_POSITIONS,
    LARGEST_SUM = 1 << 25,            /* 64 times a sum must fit 32 bits */
    LEAST_CHANNELS = 32,              /* fewer do not pay for the transforms */
    CLASSES = 4, /* of tiles in a layer: full, narrow, low, both */
    INPUT_BYTES = 640 * 1024,         /* of the transformed pixels of one pass: a good part of L2 */
    MOST_TILES = 48,                  /* of one pass */
    LINE = 64,
};

/* G, each row times 24 and the last times 8. */
static const int factors[IN][3] = {{6, 0, 0}, {-4, -4, -4}, {-4, 4, -4}, {1, 2, 4}, {1, -2, 4}, {0, 0, 8}};

/* Strides between positions, in elements: an odd number of cache lines, or all positions would share a few cache sets. */
static size_t input_stride(int tiles, int channels)
{
    return (size_t)tiles * (size_t)channels + LINE / sizeof(int16_t);
}

static size_t product_stride(int tiles)
{
    return (size_t)(tiles | 1) * TS_GROUP;
}

static int padded_channels(const ts_tensor *source)
{
    return source->groups * TS_GROUP;
}

/* Whether all sums of products stay within what the algorithm can restore. */
static int sums_fit(const ts_conv_problem *problem)
{
    for (int oc = 0; oc < problem->outputs; oc++) {
        int64_t positive = 0, negative = 0;
        for (int i = 0; i < problem->filter; i++) {
            const int weight = ts_weight_sum(problem, (size_t)oc * (size_t)problem->filter + (size_t)i);
            *(weight > 0 ? &positive : &negative) += abs(weight);
        }
        if (255 * (positive > negative ? positive : negative) >= LARGEST_SUM)
            return 0;
    }
    return 1;
}

/* G g G' of filter `index`. Returns the largest magnitude: weights beyond s8 may leave 16 bits. */
static int transform_filter(const ts_conv_problem *problem, size_t index, int16_t out[POSITIONS])
{
    int g[9], largest = 0;
    for (int i = 0; i < 9; i++)
        g[i] = ts_weight_sum(problem, 9 * index + (size_t)i);
    for (int i = 0; i < IN; i++)
        for (int j = 0; j < IN; j++) {
            int sum = 0;
            for (int y = 0; y < 3; y++)
                for (int x = 0; x < 3; x++)
                    sum += factors[i][y] * factors[j][x] * g[3 * y + x];
            out[i * IN + j] = (int16_t)sum;
            largest = abs(sum) > largest ? abs(sum) : largest;
        }
    return largest;
}

static int filters_fit(const ts_conv_problem *problem)
{
    int16_t transformed[POSITIONS];
    const size_t filters = problem->desc->rests ? ts_weight_count(problem) / 9 : 0;
    for (size_t i = 0; i < filters; i++)
        if (transform_filter(problem, i, transformed) > INT16_MAX)
            return 0;
    return 1;
}

/* Whether so many dwords of the panels are zeros, which transformed weights do not leave out, that direct products are faster. */
static int is_sparse(const ts_conv_problem *problem, const ts_winograd_kernel *kernel)
{
    const int8_t *weights = problem->desc->weights;
    const int dwords = ts_ceil_div(problem->inputs, 4), panels = ts_conv_panels(problem, TS_GROUP);
    int64_t products = 0;
    for (int panel = 0; panel < panels; panel++)
        for (int at = 0; at < 9 * dwords; at++) {
            int any = 0;
            for (int oc = panel * TS_GROUP; !any && oc < problem->outputs && oc < (panel + 1) * TS_GROUP; oc++)
                for (int ic = at / 9 * 4; ic < problem->inputs && ic < at / 9 * 4 + 4; ic++)
                    any |= weights[(oc * problem->inputs + ic) * 9 + at % 9];
            products += any != 0;
        }
    return products * 100 < (int64_t)kernel->direct_percent * panels * 9 * dwords;
}

static int takes(const ts_conv_problem *problem)
{
    const ts_conv_desc *desc = problem->desc;
    const ts_tensor *target = problem->target;
    const int inputs = problem->inputs, outputs = problem->outputs;
    const int shape = desc->kernel_h == 3 && desc->kernel_w == 3 && desc->stride_h == 1 && desc->stride_w == 1 &&
                      desc->dilation_h == 1 && desc->dilation_w == 1 && desc->groups == 1 && !ts_is_packed(problem->source);
    const ts_kernel *row = ts_find_kernel(TS_WINOGRAD, problem->source->desc.dtype, problem->features);
    /* With narrower vectors or older products than the direct kernel's, Winograd's is no faster. */
    if (!shape || !row || (problem->kernel->features & ~row->features) != 0)
        return 0;
    const ts_winograd_kernel *kernel = &row->winograd;
    const int64_t bytes = (int64_t)POSITIONS * 2 * inputs * outputs;
    return target->desc.height > 1 && target->desc.width > 1 && inputs >= LEAST_CHANNELS &&
           outputs >= LEAST_CHANNELS && bytes <= kernel->most_weight_bytes && !is_sparse(problem, kernel) && sums_fit(problem) &&
           filters_fit(problem);
}

static int pack_weights(ts_program *program, const ts_conv_problem *problem, winograd *w)
{
    const ts_tensor *source = problem->source, *target = problem->target;
    const int inputs = problem->inputs, outputs = problem->outputs;
    const size_t depth = (size_t)padded_channels(source), position = depth * TS_GROUP;
    w->rows = ts_ceil_div(target->desc.height, OUT);
    w->columns = ts_ceil_div(target->desc.width, OUT);
    w->most_tiles = (int)(INPUT_BYTES / (POSITIONS * sizeof(int16_t) * depth));
    w->most_tiles = w->most_tiles < 1 ? 1 : w->most_tiles > MOST_TILES ? MOST_TILES : w->most_tiles;
    w->group_weights = POSITIONS * position;
    const size_t bytes = (size_t)target->groups * w->group_weights * sizeof(int16_t);
    w->weights = ts_weights_take(program->weights, bytes);
    if (!w->weights)
        return -1;
    for (int oc = 0; oc < outputs; oc++)
        for (int ic = 0; ic < inputs; ic++) {
            int16_t transformed[POSITIONS];
            transform_filter(problem, (size_t)oc * (size_t)inputs + (size_t)ic, transformed);
            int16_t *at = w->weights + (size_t)(oc / TS_GROUP) * w->group_weights +
                          ((size_t)(ic / 2) * TS_GROUP + (size_t)(oc % TS_GROUP)) * 2 + (size_t)(ic % 2);
            for (int p = 0; p < POSITIONS; p++)
                at[(size_t)p * position] = transformed[p];
        }
    w->weights = ts_weights_keep(program->weights, w->weights, bytes);
    const size_t scratch = POSITIONS * (input_stride(w->most_tiles, (int)depth) * sizeof(int16_t) +
                                        product_stride(w->most_tiles) * sizeof(int32_t));
    program->scratch_bytes = scratch > program->scratch_bytes ? scratch : program->scratch_bytes;
    return 0;
}

static void winograd_free(void *pointer)
{
    winograd *w = pointer;
    if (!w)
        return;
    ts_conv_ending_free(&w->ending);
    free(w);
}

static int build(ts_program *program, const ts_conv_problem *problem, ts_step *step)
{
    const ts_kernel *kernel = ts_find_kernel(TS_WINOGRAD, TS_U8, problem->features);
    winograd *w = step->data = calloc(1, sizeof *w);
    if (!w)
        return ts_fail(program, "out of memory for a convolution");
    w->kernel = &kernel->winograd;
    w->pad_top = problem->desc->pad_top;
    w->pad_left = problem->desc->pad_left;
    step->kernel = kernel->name;
    if (ts_conv_ending_build(program, problem, TS_GROUP, &w->ending))
        return -1;
    if (pack_weights(program, problem, w))
        return ts_fail(program, "out of memory for the weights of a convolution");
    return 0;
}

/* Where a tile lies; tiles are counted through all images of a scope. */
typedef struct {
    int image, y, x; /* of its first output pixel */
} place;

static place place_of(const winograd *w, int tile)
{
    const int inner = tile % (w->rows * w->columns);
    return (place){tile / (w->rows * w->columns), inner / w->columns * OUT, inner % w->columns * OUT};
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* How many pixels less than a full tile a tile has that begins so far from the edge. */
static int cut(int left)
{
    return left >= OUT ? 0 : smaller(OUT - left, TS_WINOGRAD_CUTS - 1);
}

/* A tile's form; in `class` 1 where it is narrow, 2 where it is low. */
static int form_of(const ts_step *step, int tile, int *class)
{
    const ts_tensor *target = step->target;
    const place at = place_of(step->data, tile);
    const int x = cut(target->desc.width - at.x), y = cut(target->desc.height - at.y);
    *class = (x > 0) + 2 * (y > 0);
    return TS_WINOGRAD_CUTS * y + x;
}

/* Tiles may hang over the frame: what lies beyond it reaches no pixel that is kept, so any pixel will do. */
static void spread_tile(const ts_step *step, const ts_scope *scope, int tile, int form, int16_t *out, size_t stride)
{
    const winograd *w = step->data;
    const ts_tensor *source = step->source;
    const place at = place_of(w, tile);
    const int last_y = source->desc.height + source->desc.bottom - 1, last_x = source->desc.width + source->desc.right - 1;
    const uint8_t *image = ts_pixels(source, scope, scope->image + at.image), *first[IN], *rows[IN];
    int32_t columns[IN];
    for (int i = 0; i < IN; i++) {
        first[i] = image + smaller(at.y - w->pad_top + i, last_y) * (ptrdiff_t)source->row_bytes;
        columns[i] = smaller(at.x - w->pad_left + i, last_x) * (int32_t)source->pixel_bytes;
    }
    /* Of an odd number the last comes twice: what is too much lies where the next tile comes, or between two positions. */
    for (int group = 0; group < source->groups; group += w->kernel->groups) {
        const int last = smaller(group + w->kernel->groups, source->groups) - 1;
        for (int i = 0; i < IN; i++)
            rows[i] = first[i] + source->group_offsets[group];
        const ptrdiff_t next = source->group_offsets[last] - source->group_offsets[group];
        w->kernel->spread[form](rows, next, columns, out + group * TS_GROUP, stride);
    }
}

static void finish_tile(const ts_step *step, const ts_scope *scope, int group, int tile, int form,
                        const int32_t *products, size_t stride)
{
    const winograd *w = step->data;
    const place at = place_of(w, tile);
    const int image = scope->image + at.image;
    const ts_tensor *target = step->target, *other = step->other;
    ts_tile out = {.pixels = smaller(OUT, target->desc.width - at.x),
                   .groups = 1,
                   .output_step = (ptrdiff_t)target->pixel_bytes,
                   .output_groups = target->group_offsets + group,
                   .channel = (size_t)group * TS_GROUP,
                   .epilogue = &w->ending.epilogue};
    out.output[0] = ts_pixels(target, scope, image) + (size_t)at.y * target->row_bytes + (size_t)at.x * target->pixel_bytes;
    if (other) {
        out.residual[0] = ts_pixels(other, scope, image) + (size_t)at.y * other->row_bytes + (size_t)at.x * other->pixel_bytes;
        out.residual_step = (ptrdiff_t)other->pixel_bytes;
        out.residual_groups = other->group_offsets + group;
    }
    w->kernel->finish[form](&out, smaller(OUT, target->desc.height - at.y), (ptrdiff_t)target->row_bytes,
                            other ? (ptrdiff_t)other->row_bytes : 0, products, stride);
}

/* In this order of their classes the tiles that need a position lie side by side, whichever position it is. */
enum { NARROW = 1, FULL = 0, LOW = 2, LOW_AND_NARROW = 3 };
static const int order[CLASSES] = {NARROW, FULL, LOW, LOW_AND_NARROW};

/* The tiles of one pass: transformed pixels for all output groups, then products of one group at a time. */
typedef struct {
    int count, tiles[MOST_TILES], forms[MOST_TILES]; /* in `order` */
    int ends[CLASSES];                               /* where the tiles of each class end */
    int16_t *input;    /* [POSITIONS][tiles][channels] */
    int32_t *products; /* [POSITIONS][tiles][16] */
    size_t input_stride, product_stride;
} pass;

static pass start_pass(const ts_step *step, const ts_scope *scope, int first, int count)
{
    const int depth = padded_channels(step->source);
    pass p = {.input = (int16_t *)(void *)scope->scratch,
              .input_stride = input_stride(count, depth), .product_stride = product_stride(count)};
    p.products = (int32_t *)(void *)(p.input + POSITIONS * p.input_stride);
    int forms[MOST_TILES], classes[MOST_TILES];
    for (int i = 0; i < count; i++)
        forms[i] = form_of(step, first + i, &classes[i]);
    for (int c = 0; c < CLASSES; c++) {
        for (int i = 0; i < count; i++)
            if (classes[i] == order[c]) {
                spread_tile(step, scope, first + i, forms[i], p.input + (size_t)p.count * (size_t)depth, p.input_stride);
                p.tiles[p.count] = first + i;
                p.forms[p.count++] = forms[i];
            }
        p.ends[order[c]] = p.count;
    }
    return p;
}

/* The tiles of a pass that need a position, [from, to). All narrow tiles of a layer are equally narrow, as all low ones are low. */
static void tiles_of(const ts_step *step, const pass *p, int position, int *from, int *to)
{
    const ts_tensor *target = step->target;
    const int low = ts_winograd_needs(cut(target->desc.height % OUT), position / IN);
    const int narrow = ts_winograd_needs(cut(target->desc.width % OUT), position % IN);
    *from = narrow ? 0 : p->ends[NARROW];
    *to = p->ends[low ? (narrow ? LOW_AND_NARROW : LOW) : FULL];
}

static void run_group(const ts_step *step, const ts_scope *scope, const pass *p, int group)
{
    const winograd *w = step->data;
    const size_t depth = (size_t)padded_channels(step->source);
    const int16_t *weights = w->weights + (size_t)group * w->group_weights;
    for (int position = 0; position < POSITIONS; position++) {
        int from, to;
        tiles_of(step, p, position, &from, &to);
        w->kernel->multiply(p->input + (size_t)position * p->input_stride + (size_t)from * depth, depth,
                            weights + (size_t)position * depth * TS_GROUP, (int)depth / 2, to - from,
                            p->products + (size_t)position * p->product_stride + (size_t)from * TS_GROUP);
    }
    for (int i = 0; i < p->count; i++)
        finish_tile(step, scope, group, p->tiles[i], p->forms[i], p->products + (size_t)i * TS_GROUP, p->product_stride);
}

static void run(const ts_step *step, const ts_scope *scope)
{
    const winograd *w = step->data;
    const int tiles = scope->count * w->rows * w->columns, groups = step->target->groups, threads = scope->share->members;
    int passes = ts_ceil_div(tiles, w->most_tiles);
    const int own = threads == 1 || passes >= 2 * threads; /* a thread transforms the pixels of a pass for itself alone */
    if (own)
        passes = ts_ceil_div(passes, threads) * threads;
    const int together = own ? groups : 1;
    int from, to, current = -1;
    pass p = {0};
    while (ts_take(scope, passes * groups / together, &from, &to))
        for (int index = from * together; index < to * together; index++) {
            if (index / groups != current) {
                current = index / groups;
                const int first = (int)((int64_t)tiles * current / passes);
                p = start_pass(step, scope, first, (int)((int64_t)tiles * (current + 1) / passes) - first);
            }
            run_group(step, scope, &p, index % groups);
        }
}

const ts_conv_algorithm ts_conv_winograd = {"winograd", takes, build, run, winograd_free};
