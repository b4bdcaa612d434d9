/* What steps share with the program that runs them. */
#ifndef TS_EXECUTION_H
#define TS_EXECUTION_H

#include "run/memory.h"
#include "run/threads.h"
#include "layout/tensor.h"
#include "program.h"
#include "run/sharing.h"
#include "run/weights.h"

/* One call of a step: `count` images from `image` on, of which this thread does what it can take of `share`. */
typedef struct {
    uint8_t *arena;
    uint8_t *scratch; /* this thread's own, program->scratch_bytes */
    int image, count;
    int segment_image; /* first image of the running micro-batch: where local tensors begin */
    const void *input; /* of image 0 of the chunk */
    ts_input_kind input_kind;
    float *output;
    float *tap; /* of image 0 of the chunk; null: nobody asks */
    ts_share *share;
} ts_scope;

typedef struct ts_step ts_step;

struct ts_step {
    void (*run)(const ts_step *step, const ts_scope *scope);
    void (*free)(void *data);
    void *data;           /* what the kind of step needs beyond tensors */
    const char *kind;
    const char *kernel;
    const ts_tensor *source, *other, *target; /* null where absent */
    int phases;           /* it can take tensors in phases */
    int segment;
};

struct ts_program {
    char error[256];
    const char *isa;
    uint32_t features;
    int threads, chunk;
    ts_tensor **tensors;
    int tensor_count;
    ts_step *steps;
    int step_count;
    int *segment_images;
    int segment_count;
    uint8_t *arenas; /* one for each thread */
    size_t arena_bytes, arenas_bytes;
    ts_queue *queues; /* one for each thread */
    size_t scratch_bytes; /* what the steps that need most need, at the end of every arena */
    ts_weights *weights; /* packed weights of all steps */
    const ts_tensor *tapped; /* null: none */
    void *lock;
};

/* Writes the error text and returns -1. */
int ts_fail(ts_program *program, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Tensor by index, or null after ts_fail. */
const ts_tensor *ts_tensor_at(ts_program *program, int index);

/* Appends a step; takes over `step->data` even when it fails. */
int ts_append(ts_program *program, ts_step step);

/* Whether an input step can read uint8 pixels. */
int ts_input_takes_pixels(const ts_step *step);

/* The first pixel inside the frame of an image. */
static inline uint8_t *ts_pixels(const ts_tensor *tensor, const ts_scope *scope, int image)
{
    const int slot = tensor->desc.local ? image - scope->segment_image : image;
    return scope->arena + tensor->desc.offset + (size_t)slot * tensor->image_bytes + tensor->interior;
}

/* Row `y` of one group of an image's channels, from its first pixel inside the frame. */
static inline uint8_t *ts_row(const ts_tensor *tensor, const ts_scope *scope, int image, int group, int y)
{
    return ts_pixels(tensor, scope, image) + tensor->group_offsets[group] + (size_t)y * tensor->row_bytes;
}

/* More of the `total` units of a step for this thread: units [from, to). 0: none is left. */
static inline int ts_take(const ts_scope *scope, int total, int *from, int *to)
{
    return ts_share_take(scope->share, total, from, to);
}

#endif
