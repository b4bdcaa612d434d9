/* What the extension module shares with its Program type. Only this folder knows Python.h. */
#ifndef TS_PROGRAM_TYPE_H
#define TS_PROGRAM_TYPE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "program.h"

/* Through void (*)(void): the call types differ by design, PyMethodDef tells them apart by its flags. */
#define METHOD(function) ((PyCFunction)(void (*)(void))(function))
#define WITH_KEYWORDS (METH_VARARGS | METH_KEYWORDS)

extern PyType_Spec ts_program_spec;

/* TESSERA_ISA, read when a program is made or a peak measured, not when the module is imported. */
const char *ts_isa_level_asked(void);

/* Sets a ValueError that lists the levels; always null. */
PyObject *ts_unknown_level(void);

/* A tensor's description from keyword arguments. 0, or -1 with an exception set. */
int ts_parse_tensor(PyObject *args, PyObject *keywords, ts_tensor_desc *desc);

#endif
