/*
 * Packed weights. Programs of one network for images of several sizes share an object of this kind, and keep there once what is
 * packed alike for them: all that does not depend on a tensor's rows. One program at a time packs; others may run meanwhile.
 */
#ifndef TS_WEIGHTS_H
#define TS_WEIGHTS_H

#include <stddef.h>

typedef struct ts_weights ts_weights;

/* With one owner. Null without memory. */
ts_weights *ts_weights_new(void);

/* One owner more: what it packs is compared with what is there now. */
ts_weights *ts_weights_share(ts_weights *weights);

/* One owner less; the last one frees them. */
void ts_weights_free(ts_weights *weights);

/* Zeroed, aligned to 64 bytes; null when memory runs out. What comes with weights, such as offsets, is taken only. */
void *ts_weights_take(ts_weights *weights, size_t bytes);

/* What was taken last is packed and will not change. Returns where to read it: there, or at its equal, and then it is given back. */
void *ts_weights_keep(ts_weights *weights, void *packed, size_t bytes);

/* Bytes of all that was kept. */
size_t ts_weights_bytes(const ts_weights *weights);

#endif
