/* Streams: each has a thread; results of a job can be seen by the next one, and by the host after synchronising. */
#include <stdlib.h>

#include "double.h"

static stream *streams;

stream *find_stream(aclrtStream handle) {
    stream *s = streams;
    while (s && s != handle)
        s = s->next;
    return s && s->alive ? s : NULL;
}

bool streams_in(const context *c) {
    for (stream *s = streams; s; s = s->next)
        if (s->alive && s->in == c)
            return true;
    return false;
}

static void publish(stream *s) {
    if (s->done) {
        s->done->publish(s->done);
        free(s->done);
        s->done = NULL;
    }
}

static void drop(job *j) {
    j->discard(j);
    free(j);
}

static void *serve(void *argument) {
    stream *s = argument;
    pthread_mutex_lock(&double_lock);
    for (;;) {
        while (!s->queue && !s->ending)
            pthread_cond_wait(&s->changed, &double_lock);
        if (!s->queue)
            break;
        job *j = s->queue;
        s->queue = j->next;
        publish(s);
        s->working = true;
        if (s->error || s->ending) {
            drop(j); /* a stream that failed stays failed */
        } else {
            pthread_mutex_unlock(&double_lock);
            j->work(j);
            pthread_mutex_lock(&double_lock);
            s->error = j->result;
            if (j->result || s->ending)
                drop(j);
            else
                s->done = j;
        }
        s->working = false;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&double_lock);
    return NULL;
}

/* Takes the job, also where it fails. */
aclError submit(stream *s, job *j) {
    j->on = s;
    job **link = &s->queue;
    while (*link)
        link = &(*link)->next;
    *link = j;
    pthread_cond_broadcast(&s->changed);
    return ACL_SUCCESS;
}

aclError aclrtCreateStream(aclrtStream *made) {
    context *c;
    aclError error = current(&c);
    int code = error ? 0 : fault("stream", c->device);
    if (error || code)
        return error ? error : fail(code, "no stream left");
    stream *s = calloc(1, sizeof *s);
    pthread_cond_init(&s->changed, NULL);
    pthread_mutex_lock(&double_lock);
    s->in = c;
    s->alive = true;
    s->next = streams;
    streams = s;
    counted.live[STREAMS]++;
    pthread_mutex_unlock(&double_lock);
    pthread_create(&s->thread, NULL, serve, s);
    *made = s;
    return ACL_SUCCESS;
}

static void end_stream(stream *s) {
    s->alive = false;
    s->ending = true;
    counted.live[STREAMS]--;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&double_lock);
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&double_lock);
    publish(s);
}

static aclError destroy_stream(aclrtStream handle, bool force) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    pthread_mutex_lock(&double_lock);
    stream *s = find_stream(handle);
    if (s && !force && (s->queue || s->working))
        violation("a stream was destroyed while it has work");
    if (s)
        end_stream(s);
    pthread_mutex_unlock(&double_lock);
    return s ? ACL_SUCCESS : fail(ACL_ERROR_RT_INVALID_HANDLE, "no such stream");
}

aclError aclrtDestroyStream(aclrtStream handle) {
    return destroy_stream(handle, false);
}

void abandon_streams(int device) {
    pthread_mutex_lock(&double_lock);
    for (stream *s = streams; s; s = s->next)
        if (s->alive && s->in->device == device)
            end_stream(s);
    pthread_mutex_unlock(&double_lock);
}

/* What hangs is never done in time, everything else always is, however slow the machine. */
static aclError synchronise(stream *s, int32_t timeout) {
    while (s->queue || s->working) {
        if (timeout >= 0 && s->timeouts > 0) {
            s->timeouts--;
            return fail(ACL_ERROR_RT_STREAM_SYNC_TIMEOUT, "stream not done after %d ms", timeout);
        }
        pthread_cond_wait(&s->changed, &double_lock);
    }
    publish(s);
    return s->error ? fail(s->error, "a task of this stream failed") : ACL_SUCCESS;
}

aclError aclrtSynchronizeStreamWithTimeout(aclrtStream handle, int32_t timeout) {
    context *c = NULL;
    aclError lost = current(&c);
    if (lost && lost != ACL_ERROR_RT_LOST_HEARTBEAT)
        return lost;
    pthread_mutex_lock(&double_lock);
    stream *s = find_stream(handle);
    aclError error;
    if (!s || s->in != c)
        error = fail(ACL_ERROR_RT_STREAM_CONTEXT, "the stream is not of the current context");
    else
        error = synchronise(s, timeout); /* what a lost device was doing has ended when that is noticed */
    if (lost)
        error = fail(lost, "device %d lost its heartbeat", c->device);
    pthread_mutex_unlock(&double_lock);
    int code = error ? 0 : fault("sync", c->device);
    return code ? fail(code, "synchronising failed") : error;
}

aclError aclrtSynchronizeStream(aclrtStream stream) {
    return aclrtSynchronizeStreamWithTimeout(stream, -1);
}

aclError aclrtSynchronizeDevice(void) {
    context *c;
    aclError error = current(&c);
    if (error)
        return error;
    pthread_mutex_lock(&double_lock);
    for (stream *s = streams; s && !error; s = s->next)
        if (s->alive && s->in == c)
            error = synchronise(s, -1);
    pthread_mutex_unlock(&double_lock);
    return error;
}

#ifndef DOUBLE_CANN6
aclError aclrtDestroyStreamForce(aclrtStream handle) {
    return destroy_stream(handle, true);
}
#endif
