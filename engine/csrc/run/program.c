#define _POSIX_C_SOURCE 200809L
#include "kernels/contract.h"
#include "run/cpu.h"
#include "run/execution.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TAIL_BYTES = 8 * 1024,  /* tiles may read, never write, past the last pixel of a tensor, or of its copy in the scratch */
};

int ts_fail(ts_program *program, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(program->error, sizeof program->error, format, arguments);
    va_end(arguments);
    return -1;
}

const char *ts_program_error(const ts_program *program)
{
    return program->error;
}

/* ---- tensors ---- */

int ts_program_tensor(ts_program *program, const ts_tensor_desc *desc)
{
    ts_tensor placed = {.desc = *desc};
    if (ts_tensor_place(&placed))
        return ts_fail(program, "tensor %d has an impossible shape", program->tensor_count);
    if (desc->offset % TS_ALIGN)
        return ts_fail(program, "tensor %d is not aligned to %d bytes", program->tensor_count, TS_ALIGN);
    ts_tensor **tensors = realloc(program->tensors, (size_t)(program->tensor_count + 1) * sizeof *tensors);
    if (tensors)
        program->tensors = tensors;
    ts_tensor *tensor = tensors ? ts_tensor_new(&placed) : NULL;
    if (!tensor)
        return ts_fail(program, "out of memory for a tensor");
    tensors[program->tensor_count] = tensor;
    return program->tensor_count++;
}

const ts_tensor *ts_tensor_at(ts_program *program, int index)
{
    if (index >= 0 && index < program->tensor_count)
        return program->tensors[index];
    ts_fail(program, "there is no tensor %d", index);
    return NULL;
}

/* ---- building ---- */

ts_program *ts_program_new(int threads, const char *level)
{
    ts_program *program = calloc(1, sizeof *program);
    pthread_mutex_t *lock = malloc(sizeof *lock);
    const int most = threads < TS_MAX_THREADS ? threads : TS_MAX_THREADS;
    ts_queue *queues = most < 1 ? NULL : ts_queues_new(most);
    ts_weights *weights = ts_weights_new();
    if (!program || !lock || !queues || !weights || ts_cpu_features(level, &program->features)) {
        ts_weights_free(weights);
        free(queues);
        free(program);
        free(lock);
        return NULL;
    }
    pthread_mutex_init(lock, NULL);
    program->lock = lock;
    program->threads = most;
    program->queues = queues;
    program->weights = weights;
    program->isa = ts_cpu_level_name(program->features);
    return program;
}

void ts_program_free(ts_program *program)
{
    if (!program)
        return;
    for (int i = 0; i < program->step_count; i++)
        if (program->steps[i].free)
            program->steps[i].free(program->steps[i].data);
    for (int i = 0; i < program->tensor_count; i++)
        ts_tensor_free(program->tensors[i]);
    ts_pages_free(program->arenas, program->arenas_bytes);
    ts_weights_free(program->weights);
    pthread_mutex_destroy(program->lock);
    free(program->lock);
    free(program->steps);
    free(program->tensors);
    free(program->segment_images);
    free(program->queues);
    free(program);
}

void ts_program_share(ts_program *program, const ts_program *other)
{
    ts_weights_free(program->weights);
    program->weights = ts_weights_share(other->weights);
}

int ts_program_segment(ts_program *program, int images)
{
    if (images < 1)
        return ts_fail(program, "a segment needs a micro-batch of at least one image");
    int *all = realloc(program->segment_images, (size_t)(program->segment_count + 1) * sizeof *all);
    if (!all)
        return ts_fail(program, "out of memory for a segment");
    program->segment_images = all;
    all[program->segment_count++] = images;
    return 0;
}

static int in_phases(const ts_tensor *tensor)
{
    return tensor && tensor->desc.phases;
}

int ts_append(ts_program *program, ts_step step)
{
    const int refused = !step.phases && (in_phases(step.source) || in_phases(step.other) || in_phases(step.target));
    ts_step *steps = realloc(program->steps, (size_t)(program->step_count + 1) * sizeof *steps);
    if (steps)
        program->steps = steps;
    if (!steps || !program->segment_count || refused) {
        if (step.free)
            step.free(step.data);
        if (refused)
            return ts_fail(program, "a %s step cannot take a tensor in phases", step.kind);
        return ts_fail(program, steps ? "a step before the first segment" : "out of memory for a step");
    }
    step.segment = program->segment_count - 1;
    steps[program->step_count++] = step;
    return 0;
}

static int check_capacity(ts_program *program, const ts_step *step, const ts_tensor *tensor)
{
    if (!tensor)
        return 0;
    const int micro = program->segment_images[step->segment];
    const int needed = !tensor->desc.local ? program->chunk : micro < program->chunk ? micro : program->chunk;
    if (tensor->desc.images < needed)
        return ts_fail(program, "a tensor has room for %d images, its %s step needs %d", tensor->desc.images, step->kind,
                       needed);
    return 0;
}

/* Frames and spare groups are written once, here: steps only ever write channels of pixels. */
static void fill_frames(ts_program *program, uint8_t *arena)
{
    for (int i = 0; i < program->tensor_count; i++) {
        const ts_tensor *t = program->tensors[i];
        if (ts_image_framed(&t->desc))
            memset(arena + t->desc.offset, t->desc.dtype == TS_U8 ? t->desc.zero : 0,
                   (size_t)t->desc.images * t->image_bytes);
    }
}

int ts_program_finish(ts_program *program, size_t arena_bytes, int chunk)
{
    if (program->arenas || chunk < 1 || !program->step_count)
        return ts_fail(program, "a program is finished once, with steps and room for at least one image");
    program->chunk = chunk;
    for (int i = 0; i < program->tensor_count; i++) {
        const ts_tensor *t = program->tensors[i];
        const size_t bytes = (size_t)t->desc.images * t->image_bytes;
        if (bytes > arena_bytes || t->desc.offset > arena_bytes - bytes)
            return ts_fail(program, "tensor %d does not fit the arena of %zu bytes", i, arena_bytes);
    }
    for (int i = 0; i < program->step_count; i++) {
        const ts_step *s = &program->steps[i];
        if (check_capacity(program, s, s->source) || check_capacity(program, s, s->other) ||
            check_capacity(program, s, s->target))
            return -1;
    }
    if (program->scratch_bytes)
        program->scratch_bytes = (program->scratch_bytes + TAIL_BYTES + 4095) / 4096 * 4096;
    program->arena_bytes = (arena_bytes + TAIL_BYTES + 4095) / 4096 * 4096 + program->scratch_bytes;
    program->arenas_bytes = program->arena_bytes * (size_t)program->threads;
    program->arenas = ts_pages_new(program->arenas_bytes);
    if (!program->arenas)
        return ts_fail(program, "out of memory for an arena of %zu bytes", program->arenas_bytes);
    for (int t = 0; t < program->threads; t++)
        fill_frames(program, program->arenas + (size_t)t * program->arena_bytes);
    return 0;
}

/* ---- running ---- */

typedef struct {
    ts_program *program;
    const uint8_t *input;
    ts_input_kind kind;
    size_t input_bytes, output_elements, tap_elements; /* of one image */
    float *output, *tap;
    int images;
    ts_slice *slices; /* [threads][images * steps], or null */
    size_t used[TS_MAX_THREADS];
} run_job;

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* A thread takes each step at most once for an image, be it its own or another's. */
static size_t slices_of_thread(const ts_program *program, int images)
{
    return (size_t)program->step_count * (size_t)images;
}

static void run_step(run_job *job, int index, const ts_scope *scope, int part)
{
    const int64_t start = job->slices ? now_ns() : 0;
    const ts_step *step = &job->program->steps[index];
    ts_share_begin(scope->share);
    step->run(step, scope);
    ts_share_end(scope->share);
    if (job->slices)
        job->slices[(size_t)part * slices_of_thread(job->program, job->images) + job->used[part]++] =
            (ts_slice){.step = index, .thread = part, .guest = scope->share->guest, .start_ns = start, .end_ns = now_ns()};
}

/* Images [0, count) of the scope's arena through all segments. */
static void run_segments(run_job *job, ts_scope scope, int count, int part)
{
    const ts_program *program = job->program;
    int step = 0;
    for (int segment = 0; segment < program->segment_count; segment++) {
        const int first = step, micro = program->segment_images[segment];
        for (scope.image = 0; scope.image < count; scope.image += micro) {
            scope.segment_image = scope.image;
            scope.count = count - scope.image < micro ? count - scope.image : micro;
            for (step = first; step < program->step_count && program->steps[step].segment == segment; step++)
                run_step(job, step, &scope, part);
        }
    }
}

/* The images of an arena from `image` on, for thread `part`: its scratch is its own, whichever arena it works in. */
static ts_scope scope_at(const run_job *job, int arena, int image, int part, ts_share *share)
{
    const ts_program *program = job->program;
    return (ts_scope){
        .arena = program->arenas + (size_t)arena * program->arena_bytes,
        .scratch = program->arenas + (size_t)(part + 1) * program->arena_bytes - program->scratch_bytes,
        .input = job->input + (size_t)image * job->input_bytes,
        .input_kind = job->kind,
        .output = job->output + (size_t)image * job->output_elements,
        .tap = job->tap ? job->tap + (size_t)image * job->tap_elements : NULL,
        .share = share,
    };
}

/* How many images each thread still has for itself in one pass, and how many are given out by then. */
static int own_images(const run_job *job, int done, int parts)
{
    const int share = (job->images - done) / parts;
    return share < job->program->chunk ? share : job->program->chunk;
}

/* Runs `leader`'s own images, as that thread or as its guest. Returns how many images all threads have run so in the end. */
static int run_own(run_job *job, int leader, int part, int parts, uint32_t *step)
{
    ts_share share = {.queues = parts > 1 ? job->program->queues : NULL, .leader = leader, .members = 1, .home = leader,
                      .guest = leader != part};
    int done = 0;
    for (int count; (count = own_images(job, done, parts)) > 0; done += parts * count)
        run_segments(job, scope_at(job, leader, done + leader * count, part, &share), count, part);
    *step = share.step;
    return done;
}

/*
 * As long as there is an image for every thread, each thread runs its own through the whole network: no shared activations.
 * A thread that is finished helps the others. All threads together run what is left over, and a batch of one.
 */
static void run_part(void *context, int part, int parts)
{
    run_job *job = context;
    uint32_t step;
    int done = run_own(job, part, part, parts, &step);
    for (int i = 1; i < parts; i++)
        run_own(job, (part + i) % parts, part, parts, &step);
    ts_share share = {.queues = parts > 1 ? job->program->queues : NULL, .members = parts, .home = part, .step = step};
    while (done < job->images) {
        const int rest = job->images - done;
        const int count = rest < job->program->chunk ? rest : job->program->chunk;
        run_segments(job, scope_at(job, 0, done, part, &share), count, part);
        done += count;
    }
}

static const ts_step *find_step(const ts_program *program, const char *kind)
{
    for (int i = 0; i < program->step_count; i++)
        if (strcmp(program->steps[i].kind, kind) == 0)
            return &program->steps[i];
    return NULL;
}

static size_t elements(const ts_tensor *tensor)
{
    return (size_t)tensor->desc.channels * (size_t)tensor->desc.height * (size_t)tensor->desc.width;
}

size_t ts_program_slices(const ts_program *program, int images)
{
    return (size_t)program->threads * slices_of_thread(program, images);
}

int ts_program_run(ts_program *program, const void *input, ts_input_kind kind, int images, float *output, float *tap,
                   ts_slice *slices)
{
    const ts_step *first = find_step(program, "input"), *last = find_step(program, "output");
    if (!program->arenas || !first || !last)
        return ts_fail(program, "the program is not finished, or lacks an input or output step");
    if (kind == TS_INPUT_U8_NHWC && !ts_input_takes_pixels(first))
        return ts_fail(program, "this program does not fold the normalisation of uint8 pixels");
    if (tap && !program->tapped)
        return ts_fail(program, "this program has no tap");
    run_job job = {.program = program, .input = input, .kind = kind, .images = images, .output = output, .tap = tap,
                   .slices = slices, .output_elements = elements(last->source),
                   .tap_elements = tap ? elements(program->tapped) : 0,
                   .input_bytes = elements(first->target) * (kind == TS_INPUT_U8_NHWC ? 1 : sizeof(float))};
    pthread_mutex_lock(program->lock);
    ts_queues_reset(program->queues, program->threads);
    ts_threads_run(run_part, &job, program->threads);
    pthread_mutex_unlock(program->lock);
    return 0;
}

/* ---- description ---- */

int ts_program_steps(const ts_program *program)
{
    return program->step_count;
}

void ts_program_step_info(const ts_program *program, int step, const char **kind, const char **kernel)
{
    *kind = program->steps[step].kind;
    *kernel = program->steps[step].kernel;
}

const char *ts_program_isa(const ts_program *program)
{
    return program->isa;
}

size_t ts_program_arena_bytes(const ts_program *program)
{
    return program->arenas_bytes;
}

size_t ts_program_weight_bytes(const ts_program *program)
{
    return ts_weights_bytes(program->weights);
}
