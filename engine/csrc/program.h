/*
 * Programs: the execution plan of a graph in a form that runs without Python.
 *
 * A caller declares tensors and steps in order, finishes the program, and runs it on any number of images. Steps of one
 * segment are run for a few images at a time (its micro-batch) before the next segment starts, so that a segment's
 * tensors stay in cache; tensors that cross segments hold every image of the chunk.
 *
 * All functions that can fail return 0, or -1 after writing a sentence to the program's error text.
 */
#ifndef TS_PROGRAM_H
#define TS_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "layout/dtype.h"

typedef struct ts_program ts_program;

/*
 * Activations of one value: [images][ceil(channels / block)][top + height + bottom][left + width + right][block].
 *
 * `block` is C0, the channels of a pixel that lie side by side: a multiple of TS_GROUP. Or it is all channels, however few,
 * which is called packed: images of three channels need no space for sixteen. The frame (top, left, bottom, right) holds
 * `zero` and is what convolutions read as padding.
 *
 * In phases, the pixels of a block are four planes by (y mod 2, x mod 2), and what is two pixels apart in the image lies side
 * by side. The frame is still counted in pixels of the image. Only convolutions on a matrix unit write and read such tensors.
 */
typedef struct {
    ts_dtype dtype;
    int channels, height, width;
    int top, left, bottom, right;
    int zero;           /* zero point of u8 values; 0 for floating point */
    int block;
    int phases;         /* not for packed tensors */
    int local;          /* lives within one micro-batch of one segment */
    int images;         /* how many images it has room for */
    size_t offset;      /* of image 0 in the arena */
} ts_tensor_desc;

/* Bytes of one image of a tensor, a multiple of 64. 0: the description makes no sense. */
size_t ts_image_bytes(const ts_tensor_desc *desc);

/*
 * Whether an image holds bytes that no step writes: a frame, groups of a block beyond the channels, or the shorter planes'
 * ends in phases. They are filled when the program is finished, so nothing else may ever lie there.
 */
int ts_image_framed(const ts_tensor_desc *desc);

typedef struct {
    int source, target;
    int residual;                    /* -1: none; same shape as the target, added before the clamp */
    int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left, groups;
    const void *weights;             /* OIHW: s8 for u8 sources, else float */
    int rests;                       /* u8 sources: so many more arrays of weights follow, to be added to the first */
    const void *bias;                /* int32 in units of source scale x weight scale, or float */
    const float *scale;              /* u8 sources: accumulator to output units, one per output channel */
    float residual_scale;            /* residual to output units */
    float low, high;                 /* clamp: quantised values for a u8 target, else real values */
} ts_conv_desc;

typedef struct {
    int source, target;
    int kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int average;                     /* else maximum */
    int count_padding;               /* averages divide by the taps inside the padded input, not just the input */
    int pad_bottom, pad_right;       /* where the padded input ends; only counted, never read */
    float scale;                     /* source units to target units */
} ts_pool_desc;

typedef struct {
    int source, other;               /* other: -1, or a second operand to add */
    int target;
    float source_scale, other_scale; /* operand units to target units */
    float low, high;                 /* clamp, as in ts_conv_desc */
} ts_eltwise_desc;

typedef enum { TS_SIGMOID = 0, TS_HARD_SIGMOID = 1, TS_HARD_SWISH = 2, TS_SWISH = 3 } ts_curve;

/* target = curve(source), value by value. */
typedef struct {
    int source, target;
    ts_curve kind;
    float slope, offset;             /* of the line between 0 and 1 of the hard ones */
    float source_scale, target_scale; /* real value of one quantum of u8 tensors; 1 for floats */
} ts_curve_desc;

/* How the caller's array becomes the first tensor. */
typedef struct {
    int target;
    float scale;                     /* real value of one quantum when the target is u8 */
    const void *pixel_values;        /* [channels][256] in the target's dtype: what a uint8 pixel becomes; null: no uint8 input */
} ts_input_desc;

/* `threads` >= 1; `level` as in ts_cpu_features. Null when memory runs out or the level is unknown. */
ts_program *ts_program_new(int threads, const char *level);
/*
 * Has an empty program keep its packed weights where another one has its own; what is equal is there once. The other one must
 * not pack meanwhile; either may be freed first.
 */
void ts_program_share(ts_program *program, const ts_program *other);
void ts_program_free(ts_program *program);
const char *ts_program_error(const ts_program *program);

/* A convolution that is going to be appended, as far as the layout depends on it. */
typedef struct {
    ts_dtype dtype;      /* of its input */
    int inputs, outputs; /* channels */
    int width;           /* output pixels of a row */
    int64_t macs;        /* of one image */
} ts_conv_outline;

/*
 * The block of the tensors of each dtype: what the kernels read and write that most of the multiplications of that dtype
 * will run on. To be asked before tensors are declared; other multiples of TS_GROUP give the same answers.
 */
void ts_program_blocks(const ts_program *program, const ts_conv_outline *convs, int count, int blocks[TS_DTYPES]);

/* Each returns the tensor's index, or -1. */
int ts_program_tensor(ts_program *program, const ts_tensor_desc *desc);

/* Opens the next segment; its steps run for `images` images at a time. */
int ts_program_segment(ts_program *program, int images);

/* Each appends a step to the current segment. */
int ts_program_input(ts_program *program, const ts_input_desc *desc);
int ts_program_conv(ts_program *program, const ts_conv_desc *desc);
int ts_program_pool(ts_program *program, const ts_pool_desc *desc);
/* `tap`: real value of one quantum of the source, which a run then gives out to those who ask; 0: it does not. One step has it. */
int ts_program_global_average(ts_program *program, int source, int target, float scale, float tap);
int ts_program_eltwise(ts_program *program, const ts_eltwise_desc *desc);
/* `other` has the shape of the source, or one pixel of as many channels. `scale`: of the product, to target units. */
int ts_program_product(ts_program *program, int source, int other, int target, float scale);
int ts_program_curve(ts_program *program, const ts_curve_desc *desc);
int ts_program_flatten(ts_program *program, int source, int target);
int ts_program_softmax(ts_program *program, int source, int target);
int ts_program_output(ts_program *program, int source);

/* Allocates the arenas. `chunk`: images that one pass through the segments may hold. */
int ts_program_finish(ts_program *program, size_t arena_bytes, int chunk);

typedef enum { TS_INPUT_F32_NCHW, TS_INPUT_U8_NHWC } ts_input_kind;

/* What a thread did with some images in one step. All fields have one width, so that NumPy reads them as a matrix. */
typedef struct {
    int64_t step, thread;
    int64_t guest; /* 1: it helped another thread, which counts the same step for all of these images */
    int64_t start_ns, end_ns; /* on CLOCK_MONOTONIC; both 0 where a slice was not needed */
} ts_slice;

/* How many slices a run of so many images takes at most. */
size_t ts_program_slices(const ts_program *program, int images);

/*
 * Runs `images` >= 0 images. `output` takes [images][elements of the output tensor] floats in NCHW order. `tap`, when not
 * null, takes the real values of the tapped tensor in the same form; without it nothing is done for the tap.
 * Thread-safe: concurrent runs of one program take turns. `slices`, when not null, are ts_program_slices() zeroed ones,
 * and are filled.
 */
int ts_program_run(ts_program *program, const void *input, ts_input_kind kind, int images, float *output, float *tap,
                   ts_slice *slices);

int ts_program_steps(const ts_program *program);
/* "conv", "pool", ... and the kernel's name, "" when the step has just one implementation. */
void ts_program_step_info(const ts_program *program, int step, const char **kind, const char **kernel);
const char *ts_program_isa(const ts_program *program);
size_t ts_program_arena_bytes(const ts_program *program); /* of all threads together */
size_t ts_program_weight_bytes(const ts_program *program); /* packed, of all programs that share them */

#endif
