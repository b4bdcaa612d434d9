/* The double's .om files: CANN's file header, then a plan in lines of text, then weights. tests/ascend/omfile.py writes them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

enum { HEADER = 256, LENGTH_AT = 76, LONG_LENGTH_AT = 184 };

typedef struct {
    offline *file;
    bool half;
    size_t bytes;
} reading;

static bool read_layer(const char *line, layer *l) {
    char op[12] = "";
    int relu = 0;
    *l = (layer){0};
    int read = sscanf(line, "%11s %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %zu %zu", op, &l->source, &l->target,
                      &l->residual, &l->channels, &l->height, &l->width, &l->out_channels, &l->out_height, &l->out_width,
                      &l->kernel_h, &l->kernel_w, &l->stride_h, &l->stride_w, &l->top, &l->left, &relu, &l->weight_at,
                      &l->bias_at);
    l->relu = relu != 0;
    l->op = strcmp(op, "conv") == 0 ? CONV : strcmp(op, "maxpool") == 0 ? MAXPOOL : AVGPOOL;
    return read == 19 && (l->op != AVGPOOL || strcmp(op, "avgpool") == 0);
}

static aclDataType type_of(const char *name) {
    return strcmp(name, "uint8") == 0     ? ACL_UINT8
           : strcmp(name, "float16") == 0 ? ACL_FLOAT16
           : strcmp(name, "float32") == 0 ? ACL_FLOAT
                                          : ACL_DT_UNDEFINED;
}

static bool read_gears(const char *line, offline *f) {
    char *rest = (char *)line + 5;
    for (;;) {
        char *end;
        uint64_t gear = strtoull(rest, &end, 10);
        if (end == rest)
            return f->gear_count > 0;
        if (gear == 0 || f->gear_count == MAX_GEARS)
            return false;
        f->gears[f->gear_count++] = gear;
        rest = end;
    }
}

static bool read_line(const char *line, reading *r) {
    offline *f = r->file;
    char type[16] = "", format[8] = "", weights[8] = "";
    if (strncmp(line, "soc ", 4) == 0)
        return sscanf(line, "soc %31s", f->soc) == 1;
    if (strncmp(line, "input ", 6) == 0) {
        int read = sscanf(line, "input %63s %15s %7s %ld %ld %ld", f->input_name, type, format, &f->dims[0], &f->dims[1],
                          &f->dims[2]);
        f->input_type = type_of(type);
        f->input_format = strcmp(format, "NHWC") == 0 ? ACL_FORMAT_NHWC : ACL_FORMAT_NCHW;
        f->rank = 3;
        return read == 6 && f->input_type != ACL_DT_UNDEFINED;
    }
    if (strncmp(line, "output ", 7) == 0) {
        int read = sscanf(line, "output %63s %15s %ld", f->output_name, type, &f->output_dims[0]);
        f->output_type = type_of(type);
        f->output_rank = 1;
        return read == 3 && f->output_type != ACL_DT_UNDEFINED;
    }
    if (strncmp(line, "gears", 5) == 0)
        return read_gears(line, f);
    if (strncmp(line, "batch ", 6) == 0)
        return sscanf(line, "batch %lu", &f->batch) == 1 && f->batch > 0;
    if (strncmp(line, "aipp ", 5) == 0)
        return sscanf(line, "aipp %f %f %f %f %f %f", &f->mean[0], &f->mean[1], &f->mean[2], &f->scale[0], &f->scale[1],
                      &f->scale[2]) == 6;
    if (strncmp(line, "work ", 5) == 0)
        return sscanf(line, "work %zu", &f->work_bytes) == 1;
    if (strncmp(line, "tensors ", 8) == 0)
        return sscanf(line, "tensors %d %d", &f->net.tensor_count, &f->net.result) == 2;
    if (strncmp(line, "weights ", 8) == 0) {
        int read = sscanf(line, "weights %7s %zu", weights, &f->net.parameter_count);
        r->half = strcmp(weights, "float16") == 0;
        return read == 2;
    }
    layer l;
    if (!read_layer(line, &l))
        return false;
    f->net.layers = realloc(f->net.layers, (f->net.layer_count + 1) * sizeof l);
    f->net.layers[f->net.layer_count++] = l;
    return true;
}

static bool read_weights(const unsigned char *bytes, size_t size, reading *r) {
    offline *f = r->file;
    size_t count = f->net.parameter_count;
    f->weight_bytes = count * (r->half ? 2 : 4);
    if (f->weight_bytes != size || count == 0)
        return false;
    f->net.parameters = malloc(count * sizeof(float));
    if (!r->half) {
        memcpy(f->net.parameters, bytes, size);
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        _Float16 value;
        memcpy(&value, bytes + 2 * i, 2);
        f->net.parameters[i] = (float)value;
    }
    return true;
}

static bool read_body(const unsigned char *bytes, size_t size, reading *r) {
    const unsigned char *start = bytes, *stop = bytes + size;
    for (;;) {
        const unsigned char *end = memchr(bytes, '\n', stop - bytes);
        char line[256];
        if (!end || (size_t)(end - bytes) >= sizeof line)
            return false;
        memcpy(line, bytes, end - bytes);
        line[end - bytes] = 0;
        bytes = end + 1;
        if (strcmp(line, "end") == 0)
            break;
        if (!read_line(line, r))
            return false;
    }
    size_t at = ((size_t)(bytes - start) + 63) / 64 * 64;
    graph *net = &r->file->net;
    net->result_size = r->file->output_dims[0];
    net->input_size = r->file->dims[0] * r->file->dims[1] * r->file->dims[2];
    return at <= size && read_weights(start + at, size - at, r) && graph_prepare(net);
}

offline *read_offline(const unsigned char *bytes, size_t size, aclError *error) {
    uint32_t length = 0;
    uint64_t long_length = 0;
    if (size >= HEADER) {
        memcpy(&length, bytes + LENGTH_AT, sizeof length);
        memcpy(&long_length, bytes + LONG_LENGTH_AT, sizeof long_length);
    }
    uint64_t body = long_length ? long_length : length;
    if (size < HEADER || memcmp(bytes, "IMOD", 4) != 0 || body != size - HEADER) {
        *error = fail(ACL_ERROR_GE_EXEC_MODEL_DATA_SIZE_INVALID, "invalid om file of %zu bytes", size);
        return NULL;
    }
    reading r = {.file = calloc(1, sizeof(offline))};
    if (!read_body(bytes + HEADER, size - HEADER, &r)) {
        free_offline(r.file);
        *error = fail(ACL_ERROR_GE_LOAD_MODEL, "the om file cannot be loaded");
        return NULL;
    }
    *error = ACL_SUCCESS;
    return r.file;
}

void free_offline(offline *file) {
    graph_free(&file->net);
    free(file);
}

static size_t width(aclDataType type) {
    return type == ACL_UINT8 ? 1 : type == ACL_FLOAT16 ? 2 : 4;
}

size_t image_bytes(const offline *f) {
    return f->dims[0] * f->dims[1] * f->dims[2] * width(f->input_type);
}

size_t result_bytes(const offline *f) {
    return f->output_dims[0] * width(f->output_type);
}

uint64_t largest_gear(const offline *f) {
    uint64_t largest = f->batch;
    for (size_t i = 0; i < f->gear_count; i++)
        largest = f->gears[i] > largest ? f->gears[i] : largest;
    return largest;
}
