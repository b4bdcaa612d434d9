/* models.preprocessing._pictures.Libjpeg: the libjpeg that Pillow uses, for Python. */
#include "python/pictures.h"

#include "image/jpeg.h"

#include <string.h>

typedef struct {
    PyObject_HEAD
    ts_libjpeg *library;
} libjpeg_object;

/* Where rows go, and who is asked whether they are wanted. */
typedef struct {
    ts_resize *resize;      /* or */
    uint8_t *pixels;        /* of the box */
    ts_box box;
    PyObject *wanted;       /* or null */
    PyThreadState **thread; /* while the interpreter is let go */
} target;

static PyObject *libjpeg_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", NULL};
    const char *path;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s", names, &path))
        return NULL;
    libjpeg_object *self = (libjpeg_object *)ts_new_object(type);
    if (!self)
        return NULL;
    self->library = ts_libjpeg_open(path);
    if (!self->library) {
        Py_DECREF(self);
        return PyErr_Format(PyExc_OSError, "\"%s\" uses no libjpeg-turbo with the interface 6.2", path);
    }
    return (PyObject *)self;
}

static void libjpeg_dealloc(libjpeg_object *self)
{
    ts_libjpeg_free(self->library);
    ts_free_object((PyObject *)self);
}

static void take(void *context, const uint8_t *pixels, ptrdiff_t stride, int top, int rows)
{
    const target *t = context;
    if (t->resize) {
        ts_resize_take(t->resize, pixels, stride, top, rows);
        return;
    }
    const size_t bytes = (size_t)(t->box.right - t->box.left) * TS_IN_PIXEL;
    for (int row = 0; row < rows; row++)
        memcpy(t->pixels + (size_t)(top - t->box.top + row) * bytes, pixels + row * stride, bytes);
}

/* An exception of whoever is asked ends the decoding too. */
static int wanted(void *context)
{
    const target *t = context;
    if (!t->wanted)
        return 1;
    PyEval_RestoreThread(*t->thread);
    PyObject *answer = PyObject_CallNoArgs(t->wanted);
    const int yes = answer && PyObject_IsTrue(answer) > 0;
    Py_XDECREF(answer);
    *t->thread = PyEval_SaveThread();
    return yes;
}

static PyObject *decode(const ts_libjpeg *library, ts_jpeg_job *job, target *t)
{
    PyThreadState *thread = PyEval_SaveThread();
    t->thread = &thread;
    t->box = job->box;
    job->take = take;
    job->wanted = wanted;
    job->context = t;
    const ts_jpeg_result result = ts_jpeg_decode(library, job);
    PyEval_RestoreThread(thread);
    if (PyErr_Occurred())
        return NULL;
    if (result == TS_JPEG_UNWANTED)
        return PyErr_Format(PyExc_OSError, "nobody waits for it any more");
    return PyBool_FromLong(result == TS_JPEG_DONE);
}

/* Whether `pixels` has room for all of the box. */
static int has_room(const Py_buffer *pixels, const ts_box *box)
{
    return box->left < box->right && box->top < box->bottom &&
           pixels->len == (Py_ssize_t)(box->right - box->left) * (box->bottom - box->top) * TS_IN_PIXEL;
}

static PyObject *libjpeg_read(libjpeg_object *self, PyObject *args)
{
    ts_jpeg_job job;
    target t = {0};
    Py_buffer data, pixels;
    PyObject *into, *asked, *result = NULL;
    ts_box *box = &job.box;
    if (!PyArg_ParseTuple(args, "y*i(ii)(iiii)OO", &data, &job.scale, &job.width, &job.height, &box->left, &box->top, &box->right,
                          &box->bottom, &into, &asked))
        return NULL;
    job.data = data.buf;
    job.bytes = (size_t)data.len;
    t.wanted = asked == Py_None ? NULL : asked;
    t.resize = ts_resize_of(into);
    if (t.resize) {
        const ts_box own = ts_resize_box(t.resize);
        if (memcmp(box, &own, sizeof own) == 0)
            result = decode(self->library, &job, &t);
        else
            PyErr_Format(PyExc_ValueError, "the box is not the one that the resize reads");
    } else if (PyObject_GetBuffer(into, &pixels, PyBUF_WRITABLE) == 0) {
        t.pixels = pixels.buf;
        if (has_room(&pixels, box))
            result = decode(self->library, &job, &t);
        else
            PyErr_Format(PyExc_ValueError, "the box does not have the %zd bytes that there are", pixels.len);
        PyBuffer_Release(&pixels);
    }
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef methods[] = {
    {"read", METHOD(libjpeg_read), METH_VARARGS, "Reads a box of a JPEG; whether all of the file is a plain picture."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, METHOD(libjpeg_new)},
    {Py_tp_dealloc, METHOD(libjpeg_dealloc)},
    {Py_tp_methods, methods},
    {Py_tp_doc, "The libjpeg that a loaded library uses; see engine/csrc/image/jpeg.h."},
    {0, NULL},
};

PyType_Spec ts_libjpeg_spec = {
    .name = "tessera.models.preprocessing._pictures.Libjpeg",
    .basicsize = sizeof(libjpeg_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
