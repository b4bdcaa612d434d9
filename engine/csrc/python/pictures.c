/*
 * models.preprocessing._pictures: resizing for Python. Pictures come as Arrow arrays, without a copy, or from libjpeg
 * (libjpeg_type.c).
 */
#include "python/pictures.h"

#include "python/arrow.h"
#include "run/cpu.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    ts_resize *resize;
    int outputs[2];
} resize_object;

static int valid(const ts_axis *axis)
{
    return axis->samples > 0 && axis->extent > 0 && axis->extent <= axis->samples && axis->resized > 0 && axis->start >= 0 &&
           axis->outputs > 0 && axis->merged > 0 && axis->start <= axis->resized - axis->outputs;
}

static PyObject *resize_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"across", "down", "merged", "bicubic", NULL};
    int bicubic;
    uint32_t features;
    ts_resize_desc desc;
    ts_axis *a = &desc.across, *d = &desc.down;
    long long resized[2], start[2];
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "(idLLi)(idLLi)ip", names, &a->samples, &a->extent, &resized[0], &start[0],
                                     &a->outputs, &d->samples, &d->extent, &resized[1], &start[1], &d->outputs, &a->merged, &bicubic))
        return NULL;
    a->resized = resized[0], a->start = start[0];
    d->resized = resized[1], d->start = start[1], d->merged = a->merged;
    desc.filter = bicubic ? TS_BICUBIC : TS_BILINEAR;
    if (!valid(a) || !valid(d))
        return PyErr_Format(PyExc_ValueError, "impossible resize");
    if (ts_cpu_features(ts_isa_level_asked(), &features))
        return ts_unknown_level();
    resize_object *self = (resize_object *)ts_new_object(type);
    if (!self)
        return NULL;
    self->outputs[0] = a->outputs;
    self->outputs[1] = d->outputs;
    self->resize = ts_resize_new(&desc, features);
    if (!self->resize) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void resize_dealloc(resize_object *self)
{
    ts_resize_free(self->resize);
    ts_free_object((PyObject *)self);
}

ts_resize *ts_resize_of(PyObject *object)
{
    const destructor own = (destructor)resize_dealloc;
    return (destructor)PyType_GetSlot(Py_TYPE(object), Py_tp_dealloc) == own ? ((resize_object *)object)->resize : NULL;
}

/* The pixels of an array of four bytes each, and how many; null with an exception set. They live as long as `capsules`. */
static const uint8_t *pixels_of(PyObject *capsules, int64_t *count)
{
    PyObject *first, *second;
    if (!PyArg_ParseTuple(capsules, "OO", &first, &second))
        return NULL;
    const struct ArrowSchema *schema = PyCapsule_GetPointer(first, "arrow_schema");
    const struct ArrowArray *array = PyCapsule_GetPointer(second, "arrow_array");
    if (!schema || !array)
        return NULL;
    if (strcmp(schema->format, "+w:4") || array->n_children != 1 || strcmp(schema->children[0]->format, "C") ||
        array->children[0]->n_buffers != 2) {
        PyErr_Format(PyExc_TypeError, "pixels of four bytes are wanted, not Arrow's \"%s\"", schema->format);
        return NULL;
    }
    *count = array->length;
    const struct ArrowArray *bytes = array->children[0];
    return (const uint8_t *)bytes->buffers[1] + bytes->offset + TS_IN_PIXEL * array->offset;
}

static PyObject *resize_take(resize_object *self, PyObject *args)
{
    PyObject *picture;
    int width, left, top;
    int64_t count;
    if (!PyArg_ParseTuple(args, "Oiii", &picture, &width, &left, &top))
        return NULL;
    PyObject *capsules = PyObject_CallMethod(picture, "__arrow_c_array__", NULL);
    if (!capsules)
        return NULL;
    const uint8_t *pixels = pixels_of(capsules, &count);
    const ts_box box = ts_resize_box(self->resize);
    if (pixels && (width < 1 || count % width || left > box.left || left + width < box.right)) {
        PyErr_Format(PyExc_ValueError, "%lld pixels in rows of %d from column %d on lack columns %d to %d", (long long)count,
                     width, left, box.left, box.right);
        pixels = NULL;
    }
    if (pixels) {
        Py_BEGIN_ALLOW_THREADS
        ts_resize_take(self->resize, pixels + (ptrdiff_t)(box.left - left) * TS_IN_PIXEL, (ptrdiff_t)width * TS_IN_PIXEL, top,
                       (int)(count / width));
        Py_END_ALLOW_THREADS
    }
    Py_DECREF(capsules);
    if (!pixels)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *resize_finish(resize_object *self, PyObject *out)
{
    Py_buffer buffer;
    if (!ts_resize_complete(self->resize))
        return PyErr_Format(PyExc_ValueError, "rows are missing");
    if (PyObject_GetBuffer(out, &buffer, PyBUF_WRITABLE))
        return NULL;
    const Py_ssize_t bytes = (Py_ssize_t)self->outputs[0] * self->outputs[1] * TS_OUT_PIXEL;
    if (buffer.len == bytes) {
        Py_BEGIN_ALLOW_THREADS
        ts_resize_finish(self->resize, buffer.buf);
        Py_END_ALLOW_THREADS
    } else {
        PyErr_Format(PyExc_ValueError, "the result has %zd bytes, not %zd", bytes, buffer.len);
    }
    PyBuffer_Release(&buffer);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *resize_box(resize_object *self, void *unused)
{
    (void)unused;
    const ts_box box = ts_resize_box(self->resize);
    return Py_BuildValue("iiii", box.left, box.top, box.right, box.bottom);
}

static PyMethodDef methods[] = {
    {"take", METHOD(resize_take), METH_VARARGS, "Takes a picture of whole rows that starts at (left, top)."},
    {"finish", METHOD(resize_finish), METH_O, "Writes the result."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"box", (getter)resize_box, NULL, "The pixels that are read: left, top, right, bottom.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, METHOD(resize_new)},
    {Py_tp_dealloc, METHOD(resize_dealloc)},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_doc, "Resize and crop of one picture; see engine/csrc/image/resize.h."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "tessera.models.preprocessing._pictures.Resize",
    .basicsize = sizeof(resize_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static int module_exec(PyObject *module)
{
    return ts_add_type(module, "Resize", &spec) || ts_add_type(module, "Libjpeg", &ts_libjpeg_spec) ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, METHOD(module_exec)},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "_pictures", "Decoding and resizing of pictures.", 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__pictures(void)
{
    return PyModuleDef_Init(&module_def);
}
