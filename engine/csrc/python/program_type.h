/* What engine._native shares with its Program type. */
#ifndef TS_PROGRAM_TYPE_H
#define TS_PROGRAM_TYPE_H

#include "program.h"
#include "python/common.h"

extern PyType_Spec ts_program_spec;

/* A tensor's description from keyword arguments. 0, or -1 with an exception set. */
int ts_parse_tensor(PyObject *args, PyObject *keywords, ts_tensor_desc *desc);

#endif
