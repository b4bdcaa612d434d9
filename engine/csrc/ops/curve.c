/* Sigmoid and its kin, value by value. u8 values have only 256 results: these come from a table. */
#include "kernels/table.h"
#include "layout/values.h"
#include "run/execution.h"

#include <stdlib.h>

enum { LEVELS = 256 };

typedef struct {
    const ts_kernel *kernel;
    ts_curve_row row;
    float target_scale;
    float real[LEVELS];    /* u8 sources: the results, in units of the target */
    uint8_t bytes[LEVELS]; /* the same as u8 targets store them */
} curve_data;

/* A row of u8 values, by the table. */
static void table_row(const ts_step *step, const uint8_t *in, uint8_t *out)
{
    const curve_data *data = step->data;
    float x[TS_GROUP], low, high;
    ts_full_range(step->target, &low, &high);
    for (int pixel = 0; pixel < step->target->desc.width; pixel++, in += data->row.in_step, out += data->row.out_step) {
        if (step->target->desc.dtype == TS_U8) {
            for (int lane = 0; lane < TS_GROUP; lane++)
                out[lane] = data->bytes[in[lane]];
            continue;
        }
        for (int lane = 0; lane < TS_GROUP; lane++)
            x[lane] = data->real[in[lane]];
        ts_values_store(step->target, out, x, low, high);
    }
}

/* A row of floats of any type, to any type. */
static void float_row(const ts_step *step, const uint8_t *in, uint8_t *out)
{
    const curve_data *data = step->data;
    float x[TS_GROUP], low, high;
    ts_full_range(step->target, &low, &high);
    for (int pixel = 0; pixel < step->target->desc.width; pixel++, in += data->row.in_step, out += data->row.out_step) {
        ts_values_load(step->source, in, x);
        data->kernel->curve(&data->row, (const uint8_t *)x, (uint8_t *)x, 1);
        for (int lane = 0; lane < TS_GROUP; lane++)
            x[lane] /= data->target_scale;
        ts_values_store(step->target, out, x, low, high);
    }
}

static void curve_run(const ts_step *step, const ts_scope *scope)
{
    const curve_data *data = step->data;
    const int height = step->target->desc.height, groups = step->target->groups;
    const int floats = step->source->desc.dtype == TS_F32 && step->target->desc.dtype == TS_F32;
    int from, to;
    while (ts_take(scope, scope->count * groups * height, &from, &to))
        for (int unit = from; unit < to; unit++) {
            const int y = unit % height, group = unit / height % groups, image = scope->image + unit / height / groups;
            const uint8_t *in = ts_row(step->source, scope, image, group, y);
            uint8_t *out = ts_row(step->target, scope, image, group, y);
            if (floats)
                data->kernel->curve(&data->row, in, out, step->target->desc.width);
            else
                (step->source->desc.dtype == TS_U8 ? table_row : float_row)(step, in, out);
        }
}

static void fill_tables(curve_data *data, float source_scale, const ts_tensor *source, const ts_tensor *target)
{
    for (int first = 0; first < LEVELS; first += TS_GROUP) {
        float *x = data->real + first;
        for (int i = 0; i < TS_GROUP; i++)
            x[i] = (float)(first + i - source->desc.zero) * source_scale;
        /* By the scalar one: whole numbers are the same on every level. */
        ts_curve_f32_scalar.curve(&data->row, (const uint8_t *)x, (uint8_t *)x, 1);
        for (int i = 0; i < TS_GROUP; i++) {
            x[i] /= data->target_scale;
            data->bytes[first + i] = ts_quantise(x[i], target->desc.zero, 0.0f, 255.0f);
        }
    }
}

int ts_program_curve(ts_program *program, const ts_curve_desc *desc)
{
    const ts_tensor *source = ts_tensor_at(program, desc->source), *target = ts_tensor_at(program, desc->target);
    if (!source || !target)
        return -1;
    if (!ts_same_shape(source, target))
        return ts_fail(program, "a curve needs blocked tensors of one shape");
    if (desc->kind > TS_SWISH || !(desc->target_scale > 0))
        return ts_fail(program, "a curve that is not known, or without a scale");
    curve_data *data = calloc(1, sizeof *data);
    if (!data)
        return ts_fail(program, "out of memory for a curve");
    data->row = (ts_curve_row){.kind = desc->kind, .slope = desc->slope, .offset = desc->offset,
                               .in_step = (ptrdiff_t)source->pixel_bytes, .out_step = (ptrdiff_t)target->pixel_bytes};
    data->target_scale = desc->target_scale;
    data->kernel = ts_find_kernel(TS_CURVE, TS_F32, program->features);
    fill_tables(data, desc->source_scale, source, target);
    return ts_append(program, (ts_step){.run = curve_run, .free = free, .data = data, .source = source, .target = target,
                                        .kind = "curve", .kernel = source->desc.dtype == TS_U8 ? "" : data->kernel->name});
}
