/* engine._native.Program: building and running an execution plan; arrays cross as buffers. */
#include "python/program_type.h"

#include "run/cpu.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    ts_program *program;
    Py_ssize_t input_elements, output_elements, tap_elements; /* of one image */
} program_object;

static PyObject *fail(const program_object *self)
{
    PyErr_SetString(PyExc_ValueError, ts_program_error(self->program));
    return NULL;
}

static PyObject *none_or_fail(const program_object *self, int result)
{
    if (result < 0)
        return fail(self);
    Py_RETURN_NONE;
}

/* ---- building ---- */

static PyObject *program_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"threads", "sharing", NULL};
    int threads;
    PyObject *other = Py_None;
    uint32_t features;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i|O", names, &threads, &other))
        return NULL;
    if (other != Py_None && Py_TYPE(other) != type)
        return PyErr_Format(PyExc_TypeError, "sharing must be a Program or None");
    if (threads < 1)
        return PyErr_Format(PyExc_ValueError, "threads must be at least 1, not %d", threads);
    if (ts_cpu_features(ts_isa_level_asked(), &features))
        return ts_unknown_level();
    program_object *self = (program_object *)ts_new_object(type);
    if (!self)
        return NULL;
    self->program = ts_program_new(threads, ts_isa_level_asked());
    if (!self->program) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    if (other != Py_None)
        ts_program_share(self->program, ((program_object *)other)->program);
    return (PyObject *)self;
}

static void program_dealloc(program_object *self)
{
    ts_program_free(self->program);
    ts_free_object((PyObject *)self);
}

static char *tensor_names[] = {"dtype", "channels", "height", "width", "frame", "zero", "block", "phases", "local", "images",
                               "offset", NULL};

int ts_parse_tensor(PyObject *args, PyObject *keywords, ts_tensor_desc *d)
{
    int dtype;
    Py_ssize_t offset;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iiii(iiii)iippin", tensor_names, &dtype, &d->channels, &d->height,
                                     &d->width, &d->top, &d->left, &d->bottom, &d->right, &d->zero, &d->block,
                                     &d->phases, &d->local, &d->images, &offset))
        return -1;
    d->dtype = (ts_dtype)dtype;
    d->offset = (size_t)offset;
    if (ts_image_bytes(d) && offset >= 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "impossible tensor shape or offset");
    return -1;
}

/* (dtype, inputs, outputs, width, macs) */
static int parse_outline(PyObject *row, ts_conv_outline *conv)
{
    int dtype;
    long long macs;
    if (!row || !PyArg_ParseTuple(row, "iiiiL", &dtype, &conv->inputs, &conv->outputs, &conv->width, &macs))
        return -1;
    conv->dtype = (ts_dtype)dtype;
    conv->macs = macs;
    if (dtype >= 0 && dtype < TS_DTYPES && conv->inputs > 0 && conv->outputs > 0 && macs >= 0)
        return 0;
    PyErr_SetString(PyExc_ValueError, "impossible convolution");
    return -1;
}

static PyObject *program_blocks(program_object *self, PyObject *convs)
{
    const Py_ssize_t count = PySequence_Size(convs);
    if (count < 0)
        return NULL;
    ts_conv_outline *outlines = calloc((size_t)count + 1, sizeof *outlines);
    int failed = !outlines;
    if (failed)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; !failed && i < count; i++) {
        PyObject *row = PySequence_GetItem(convs, i);
        failed = parse_outline(row, &outlines[i]);
        Py_XDECREF(row);
    }
    int blocks[TS_DTYPES];
    if (!failed)
        ts_program_blocks(self->program, outlines, (int)count, blocks);
    free(outlines);
    return failed ? NULL : Py_BuildValue("{i:i,i:i,i:i}", TS_U8, blocks[TS_U8], TS_F32, blocks[TS_F32], TS_BF16, blocks[TS_BF16]);
}

static PyObject *program_tensor(program_object *self, PyObject *args, PyObject *keywords)
{
    ts_tensor_desc desc;
    if (ts_parse_tensor(args, keywords, &desc))
        return NULL;
    const int index = ts_program_tensor(self->program, &desc);
    return index < 0 ? fail(self) : PyLong_FromLong(index);
}

static PyObject *program_segment(program_object *self, PyObject *args)
{
    int images;
    if (!PyArg_ParseTuple(args, "i", &images))
        return NULL;
    return none_or_fail(self, ts_program_segment(self->program, images));
}

/* Checks a buffer's size; the message names what it is. */
static int expect_bytes(const Py_buffer *buffer, Py_ssize_t bytes, const char *what)
{
    if (buffer->len == bytes)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s has %zd bytes instead of %zd", what, buffer->len, bytes);
    return -1;
}

static PyObject *program_input(program_object *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"target", "shape", "scale", "pixel_values", "element_bytes", NULL};
    ts_input_desc desc = {0};
    Py_buffer pixels = {0};
    int channels, height, width, element_bytes;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "i(iii)fz*i", names, &desc.target, &channels, &height, &width,
                                     &desc.scale, &pixels, &element_bytes))
        return NULL;
    PyObject *result = NULL;
    desc.pixel_values = pixels.buf;
    if (!pixels.buf || !expect_bytes(&pixels, (Py_ssize_t)channels * 256 * element_bytes, "pixel_values")) {
        self->input_elements = (Py_ssize_t)channels * height * width;
        result = none_or_fail(self, ts_program_input(self->program, &desc));
    }
    if (pixels.obj)
        PyBuffer_Release(&pixels);
    return result;
}

static PyObject *program_conv(program_object *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"source", "target", "residual", "kernel", "strides", "dilations", "pads", "groups",
                            "weights", "bias", "scale", "residual_scale", "low", "high", "filter_elements",
                            "outputs", "integer", "rests", NULL};
    ts_conv_desc d = {0};
    Py_buffer weights = {0}, bias = {0}, scale = {0};
    Py_ssize_t filter_elements, outputs;
    int integer;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iii(ii)(ii)(ii)(ii)iy*y*z*fffnnpi", names, &d.source, &d.target,
                                     &d.residual, &d.kernel_h, &d.kernel_w, &d.stride_h, &d.stride_w, &d.dilation_h,
                                     &d.dilation_w, &d.pad_top, &d.pad_left, &d.groups, &weights, &bias, &scale,
                                     &d.residual_scale, &d.low, &d.high, &filter_elements, &outputs, &integer,
                                     &d.rests))
        return NULL;
    PyObject *result = NULL;
    d.weights = weights.buf;
    d.bias = bias.buf;
    d.scale = scale.buf;
    if (!expect_bytes(&weights, filter_elements * outputs * (integer ? 1 + d.rests : 4), "weights") &&
        !expect_bytes(&bias, outputs * 4, "bias") && (!integer || !expect_bytes(&scale, outputs * 4, "scale")))
        result = none_or_fail(self, ts_program_conv(self->program, &d));
    PyBuffer_Release(&weights);
    PyBuffer_Release(&bias);
    if (scale.obj)
        PyBuffer_Release(&scale);
    return result;
}

static PyObject *program_pool(program_object *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"source", "target", "kernel", "strides", "dilations", "pads", "average", "count_padding",
                            "scale", NULL};
    ts_pool_desc d;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ii(ii)(ii)(ii)(iiii)ppf", names, &d.source, &d.target, &d.kernel_h,
                                     &d.kernel_w, &d.stride_h, &d.stride_w, &d.dilation_h, &d.dilation_w, &d.pad_top,
                                     &d.pad_left, &d.pad_bottom, &d.pad_right, &d.average, &d.count_padding,
                                     &d.scale))
        return NULL;
    return none_or_fail(self, ts_program_pool(self->program, &d));
}

static PyObject *program_global_average(program_object *self, PyObject *args)
{
    int source, target;
    float scale, tap;
    Py_ssize_t tap_elements;
    if (!PyArg_ParseTuple(args, "iiffn", &source, &target, &scale, &tap, &tap_elements))
        return NULL;
    if (tap > 0)
        self->tap_elements = tap_elements;
    return none_or_fail(self, ts_program_global_average(self->program, source, target, scale, tap));
}

static PyObject *program_eltwise(program_object *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"source", "other", "target", "source_scale", "other_scale", "low", "high", NULL};
    ts_eltwise_desc d;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iiiffff", names, &d.source, &d.other, &d.target,
                                     &d.source_scale, &d.other_scale, &d.low, &d.high))
        return NULL;
    return none_or_fail(self, ts_program_eltwise(self->program, &d));
}

static PyObject *program_product(program_object *self, PyObject *args)
{
    int source, other, target;
    float scale;
    if (!PyArg_ParseTuple(args, "iiif", &source, &other, &target, &scale))
        return NULL;
    return none_or_fail(self, ts_program_product(self->program, source, other, target, scale));
}

static PyObject *program_curve(program_object *self, PyObject *args)
{
    ts_curve_desc d;
    int kind;
    if (!PyArg_ParseTuple(args, "iiiffff", &d.source, &d.target, &kind, &d.slope, &d.offset, &d.source_scale, &d.target_scale))
        return NULL;
    d.kind = (ts_curve)kind;
    return none_or_fail(self, ts_program_curve(self->program, &d));
}

static PyObject *program_flatten(program_object *self, PyObject *args)
{
    int source, target;
    if (!PyArg_ParseTuple(args, "ii", &source, &target))
        return NULL;
    return none_or_fail(self, ts_program_flatten(self->program, source, target));
}

static PyObject *program_softmax(program_object *self, PyObject *args)
{
    int source, target;
    if (!PyArg_ParseTuple(args, "ii", &source, &target))
        return NULL;
    return none_or_fail(self, ts_program_softmax(self->program, source, target));
}

static PyObject *program_output(program_object *self, PyObject *args)
{
    int source;
    Py_ssize_t elements;
    if (!PyArg_ParseTuple(args, "in", &source, &elements))
        return NULL;
    self->output_elements = elements;
    return none_or_fail(self, ts_program_output(self->program, source));
}

static PyObject *program_finish(program_object *self, PyObject *args)
{
    Py_ssize_t arena_bytes;
    int chunk;
    if (!PyArg_ParseTuple(args, "ni", &arena_bytes, &chunk))
        return NULL;
    if (arena_bytes < 0)
        return PyErr_Format(PyExc_ValueError, "a negative arena size");
    return none_or_fail(self, ts_program_finish(self->program, (size_t)arena_bytes, chunk));
}

/* ---- running ---- */

static Py_ssize_t slices_bytes(const program_object *self, int images)
{
    return (Py_ssize_t)(ts_program_slices(self->program, images) * sizeof(ts_slice));
}

static PyObject *program_run(program_object *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"input", "uint8", "images", "output", "slices", "tap", NULL};
    Py_buffer input, output, slices = {0}, tap = {0};
    int uint8, images;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "y*piw*|w*w*", names, &input, &uint8, &images, &output, &slices,
                                     &tap))
        return NULL;
    PyObject *result = NULL;
    if (images < 0) {
        PyErr_SetString(PyExc_ValueError, "a negative number of images");
    } else if (!expect_bytes(&input, self->input_elements * images * (uint8 ? 1 : 4), "input") &&
               !expect_bytes(&output, self->output_elements * images * 4, "output") &&
               (!slices.obj || !expect_bytes(&slices, slices_bytes(self, images), "slices")) &&
               (!tap.obj || !expect_bytes(&tap, self->tap_elements * images * 4, "tap"))) {
        int status;
        const ts_input_kind kind = uint8 ? TS_INPUT_U8_NHWC : TS_INPUT_F32_NCHW;
        Py_BEGIN_ALLOW_THREADS
        status = ts_program_run(self->program, input.buf, kind, images, output.buf, tap.buf, slices.buf);
        Py_END_ALLOW_THREADS
        result = status ? fail(self) : Py_NewRef(Py_None);
    }
    PyBuffer_Release(&input);
    PyBuffer_Release(&output);
    PyBuffer_Release(&slices); /* does nothing to one that was not given */
    PyBuffer_Release(&tap);
    return result;
}

static PyObject *program_slices(program_object *self, PyObject *argument)
{
    const long images = PyLong_AsLong(argument);
    if (images < 0 || images > INT_MAX)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "an impossible number of images");
    return PyLong_FromSsize_t(slices_bytes(self, (int)images) / (Py_ssize_t)sizeof(ts_slice));
}

static PyObject *program_steps(program_object *self, PyObject *unused)
{
    (void)unused;
    const int count = ts_program_steps(self->program);
    PyObject *list = PyList_New(count);
    for (int i = 0; list && i < count; i++) {
        const char *kind, *kernel;
        ts_program_step_info(self->program, i, &kind, &kernel);
        PyObject *row = Py_BuildValue("(ss)", kind, kernel);
        if (!row || PyList_SetItem(list, i, row)) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static PyObject *get_isa(program_object *self, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(ts_program_isa(self->program));
}

static PyObject *get_arena_bytes(program_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(ts_program_arena_bytes(self->program));
}

static PyObject *get_weight_bytes(program_object *self, void *closure)
{
    (void)closure;
    return PyLong_FromSize_t(ts_program_weight_bytes(self->program));
}

static PyMethodDef program_methods[] = {
    {"blocks", METHOD(program_blocks), METH_O, "Channels that tensors of each dtype store side by side."},
    {"tensor", METHOD(program_tensor), WITH_KEYWORDS, "Declares a tensor and returns its index."},
    {"segment", METHOD(program_segment), METH_VARARGS, "Opens the next segment with a micro-batch size."},
    {"input", METHOD(program_input), WITH_KEYWORDS, "Appends the step that reads the caller's array."},
    {"conv", METHOD(program_conv), WITH_KEYWORDS, "Appends a convolution."},
    {"pool", METHOD(program_pool), WITH_KEYWORDS, "Appends a maximum or average pooling."},
    {"global_average", METHOD(program_global_average), METH_VARARGS, "Appends a global average pooling."},
    {"eltwise", METHOD(program_eltwise), WITH_KEYWORDS, "Appends an addition, clamp or conversion."},
    {"slices", METHOD(program_slices), METH_O, "How many slices a timed run of so many images takes."},
    {"product", METHOD(program_product), METH_VARARGS, "Appends a product."},
    {"curve", METHOD(program_curve), METH_VARARGS, "Appends a function of each value."},
    {"flatten", METHOD(program_flatten), METH_VARARGS, "Appends a flatten."},
    {"softmax", METHOD(program_softmax), METH_VARARGS, "Appends a softmax over channels."},
    {"output", METHOD(program_output), METH_VARARGS, "Appends the step that writes the caller's array."},
    {"finish", METHOD(program_finish), METH_VARARGS, "Allocates the arenas."},
    {"run", METHOD(program_run), WITH_KEYWORDS, "Runs images; says in slices, where given, what each thread did when."},
    {"steps", METHOD(program_steps), METH_NOARGS, "(kind, kernel) of every step."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef program_properties[] = {
    {"isa", (getter)get_isa, NULL, "Instruction-set level in use.", NULL},
    {"arena_bytes", (getter)get_arena_bytes, NULL, "Bytes of activations of all threads.", NULL},
    {"weight_bytes", (getter)get_weight_bytes, NULL, "Bytes of packed weights, of all programs that share them.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot program_slots[] = {
    {Py_tp_new, METHOD(program_new)},
    {Py_tp_dealloc, METHOD(program_dealloc)},
    {Py_tp_methods, program_methods},
    {Py_tp_getset, program_properties},
    {Py_tp_doc, "An execution plan that runs without Python; see engine/csrc/program.h."},
    {0, NULL},
};

PyType_Spec ts_program_spec = {
    .name = "tessera.engine._native.Program",
    .basicsize = sizeof(program_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = program_slots,
};
