#include "python/common.h"

#include "run/cpu.h"

#include <stdlib.h>

const char *ts_isa_level_asked(void)
{
    return getenv("TESSERA_ISA");
}

PyObject *ts_unknown_level(void)
{
    PyObject *names = PyUnicode_FromString("");
    for (const ts_isa_level *row = ts_isa_levels; names && row->name; row++) {
        PyObject *longer = PyUnicode_FromFormat("%U%s%s", names, row == ts_isa_levels ? "" : ", ", row->name);
        Py_DECREF(names);
        names = longer;
    }
    if (names)
        PyErr_Format(PyExc_ValueError, "TESSERA_ISA is \"%s\"; this build knows %U", ts_isa_level_asked(), names);
    Py_XDECREF(names);
    return NULL;
}

PyObject *ts_new_object(PyTypeObject *type)
{
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    return allocate(type, 0);
}

void ts_free_object(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

int ts_add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    const int failed = !type || PyModule_AddObjectRef(module, name, type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
