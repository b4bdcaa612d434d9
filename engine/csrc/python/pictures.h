/* What models.preprocessing._pictures shares with its Libjpeg type. */
#ifndef TS_PICTURES_H
#define TS_PICTURES_H

#include "image/resize.h"
#include "python/common.h"

extern PyType_Spec ts_libjpeg_spec;

/* What a Resize of Python holds; null when it is something else. */
ts_resize *ts_resize_of(PyObject *object);

#endif
