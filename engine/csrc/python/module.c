/* engine._native: the C core for Python. */
#include "python/program_type.h"

#include "run/cpu.h"
#include "run/memory.h"
#include "run/peak.h"

static PyObject *image_bytes(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    ts_tensor_desc desc;
    if (ts_parse_tensor(args, keywords, &desc))
        return NULL;
    return PyLong_FromSize_t(ts_image_bytes(&desc));
}

static PyObject *image_framed(PyObject *module, PyObject *args, PyObject *keywords)
{
    (void)module;
    ts_tensor_desc desc;
    if (ts_parse_tensor(args, keywords, &desc))
        return NULL;
    return PyBool_FromLong(ts_image_framed(&desc));
}

static PyObject *measure_peak(PyObject *module, PyObject *args)
{
    (void)module;
    int dtype, threads;
    double rate;
    if (!PyArg_ParseTuple(args, "ii", &dtype, &threads))
        return NULL;
    if (dtype < TS_U8 || dtype > TS_BF16 || threads < 1)
        return PyErr_Format(PyExc_ValueError, "no peak for dtype %d on %d threads", dtype, threads);
    Py_BEGIN_ALLOW_THREADS
    rate = ts_measure_peak((ts_dtype)dtype, threads, ts_isa_level_asked());
    Py_END_ALLOW_THREADS
    return rate < 0 ? ts_unknown_level() : PyFloat_FromDouble(rate);
}

static PyObject *measure_reads(PyObject *module, PyObject *args)
{
    (void)module;
    Py_ssize_t bytes;
    int threads;
    double rate;
    if (!PyArg_ParseTuple(args, "ni", &bytes, &threads))
        return NULL;
    if (bytes < 1 || threads < 1)
        return PyErr_Format(PyExc_ValueError, "no rate for %zd bytes on %d threads", bytes, threads);
    Py_BEGIN_ALLOW_THREADS
    rate = ts_measure_reads((size_t)bytes, threads, ts_isa_level_asked());
    Py_END_ALLOW_THREADS
    return rate < 0 ? ts_unknown_level() : rate > 0 ? PyFloat_FromDouble(rate) : PyErr_NoMemory();
}

static PyObject *isa(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    uint32_t features;
    if (ts_cpu_features(ts_isa_level_asked(), &features))
        return ts_unknown_level();
    return PyUnicode_FromString(ts_cpu_level_name(features));
}

static PyObject *trim_heap(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    Py_BEGIN_ALLOW_THREADS
    ts_heap_trim();
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"image_bytes", METHOD(image_bytes), WITH_KEYWORDS, "Bytes of one image of a tensor."},
    {"image_framed", METHOD(image_framed), WITH_KEYWORDS, "Whether an image holds bytes that are filled only once."},
    {"measure_peak", METHOD(measure_peak), METH_VARARGS, "MAC/s in registers for a dtype and number of threads."},
    {"measure_reads", METHOD(measure_reads), METH_VARARGS, "Bytes/s that threads read of so many bytes each."},
    {"isa", METHOD(isa), METH_NOARGS, "The instruction-set level that a program made now would use."},
    {"trim_heap", METHOD(trim_heap), METH_NOARGS, "Gives freed memory back to the system."},
    {NULL, NULL, 0, NULL},
};

static int module_exec(PyObject *module)
{
    const int failed = ts_add_type(module, "Program", &ts_program_spec) ||
                       PyModule_AddIntConstant(module, "U8", TS_U8) || PyModule_AddIntConstant(module, "F32", TS_F32) ||
                       PyModule_AddIntConstant(module, "BF16", TS_BF16) || PyModule_AddIntConstant(module, "GROUP", TS_GROUP) ||
                       PyModule_AddIntConstant(module, "SIGMOID", TS_SIGMOID) ||
                       PyModule_AddIntConstant(module, "HARD_SIGMOID", TS_HARD_SIGMOID) ||
                       PyModule_AddIntConstant(module, "HARD_SWISH", TS_HARD_SWISH) ||
                       PyModule_AddIntConstant(module, "SWISH", TS_SWISH);
    return failed ? -1 : 0;
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
    PyModuleDef_HEAD_INIT, "_native", "The C core of the CPU engine.", 0, functions, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_def);
}
