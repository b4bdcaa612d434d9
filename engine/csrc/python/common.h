/* What the extension modules share. Only this folder knows Python.h. */
#ifndef TS_PYTHON_COMMON_H
#define TS_PYTHON_COMMON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Through void (*)(void): the call types differ by design, PyMethodDef tells them apart by its flags. */
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))
#define WITH_KEYWORDS (METH_VARARGS | METH_KEYWORDS)

/* TESSERA_ISA, read when a kernel is chosen or a peak measured, not when the module is imported. */
const char *ts_isa_level_asked(void);

/* Sets a ValueError that lists the levels; always null. */
PyObject *ts_unknown_level(void);

/* An instance of a heap type, its own fields zeros; null with an exception set. And its end, when they hold nothing more. */
PyObject *ts_new_object(PyTypeObject *type);
void ts_free_object(PyObject *object);

/* Adds a type to a module. 0, or -1 with an exception set. */
int ts_add_type(PyObject *module, const char *name, PyType_Spec *spec);

#endif
