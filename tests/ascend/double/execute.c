/* Datasets, gears and executions. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "double.h"

static int busy[MAX_DEVICES];

int executing(int device) {
    return busy[device];
}

static void count(kind k, int change) {
    pthread_mutex_lock(&double_lock);
    counted.live[k] += change;
    pthread_mutex_unlock(&double_lock);
}

aclDataBuffer *aclCreateDataBuffer(void *data, size_t size) {
    if (ready() != ACL_SUCCESS)
        return NULL;
    count(DATA_BUFFERS, 1);
    aclDataBuffer *buffer = malloc(sizeof *buffer);
    *buffer = (aclDataBuffer){data, size};
    return buffer;
}

aclError aclDestroyDataBuffer(const aclDataBuffer *buffer) {
    if (!buffer)
        return fail(ACL_ERROR_INVALID_PARAM, "null data buffer");
    count(DATA_BUFFERS, -1);
    free((void *)buffer);
    return ACL_SUCCESS;
}

void *aclGetDataBufferAddr(const aclDataBuffer *buffer) {
    return buffer ? buffer->data : NULL;
}

size_t aclGetDataBufferSizeV2(const aclDataBuffer *buffer) {
    return buffer ? buffer->size : 0;
}

aclmdlDataset *aclmdlCreateDataset() {
    if (ready() != ACL_SUCCESS)
        return NULL;
    count(DATASETS, 1);
    return calloc(1, sizeof(aclmdlDataset));
}

aclError aclmdlDestroyDataset(const aclmdlDataset *dataset) {
    if (!dataset)
        return fail(ACL_ERROR_INVALID_PARAM, "null dataset");
    count(DATASETS, -1);
    free((void *)dataset);
    return ACL_SUCCESS;
}

aclError aclmdlAddDatasetBuffer(aclmdlDataset *dataset, aclDataBuffer *buffer) {
    if (!dataset || !buffer || dataset->count == 16)
        return fail(ACL_ERROR_INVALID_PARAM, "null or full dataset, or null buffer");
    dataset->buffers[dataset->count++] = buffer;
    return ACL_SUCCESS;
}

size_t aclmdlGetDatasetNumBuffers(const aclmdlDataset *dataset) {
    return dataset ? dataset->count : 0;
}

aclDataBuffer *aclmdlGetDatasetBuffer(const aclmdlDataset *dataset, size_t index) {
    return dataset && index < dataset->count ? dataset->buffers[index] : NULL;
}

static aclError check_model(model *m, uint32_t id, const context *c) {
    if (!m)
        return fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "no model %u", id);
    if (m->in != c) {
        violation("a model was used in another context than it was loaded in");
        return fail(ACL_ERROR_RT_STREAM_CONTEXT, "the model is not of the current context");
    }
    return ACL_SUCCESS;
}

static aclError set_gear(model *m, aclmdlDataset *dataset, size_t index, uint64_t gear) {
    offline *f = m->file;
    if (!f->gear_count)
        return fail(ACL_ERROR_MODEL_NOT_DYNAMIC, "the batch size of this model is fixed");
    if (gear == 0 || index >= dataset->count)
        return fail(ACL_ERROR_INVALID_PARAM, "batch size 0 or no input %zu", index);
    aclDataBuffer *buffer = dataset->buffers[index];
    block *b = find_block(buffer->data, buffer->size);
    if (index != 1 || !b || b->device != m->in->device)
        return fail(ACL_ERROR_GE_DYNAMIC_INPUT_ADDR_INVALID, "input %zu is not the shape data", index);
    if (buffer->size < 4)
        return fail(ACL_ERROR_GE_DYNAMIC_INPUT_LENGTH_INVALID, "the shape data has %zu bytes", buffer->size);
    bool known = false;
    for (size_t i = 0; i < f->gear_count; i++)
        known |= f->gears[i] == gear;
    if (!known)
        return fail(ACL_ERROR_GE_DYNAMIC_BATCH_SIZE_INVALID, "dynamic batch size %lu is not one of the gears", gear);
    if (m->running) {
        violation("the gear of a model was changed while it runs");
        return fail(ACL_ERROR_FAILURE, "the model is running");
    }
    m->gear = gear;
    memcpy(b->store + ((uintptr_t)buffer->data - b->address), &gear, buffer->size >= 8 ? 8 : 4);
    return ACL_SUCCESS;
}

aclError aclmdlSetDynamicBatchSize(uint32_t modelId, aclmdlDataset *dataset, size_t index, uint64_t batchSize) {
    context *c;
    aclError error = current(&c);
    int code = error ? 0 : fault("gear", c->device);
    if (error || code)
        return error ? error : fail(code, "dynamic batch size %lu is not one of the gears", batchSize);
    pthread_mutex_lock(&double_lock);
    model *m = find_model(modelId);
    error = check_model(m, modelId, c);
    if (!error)
        error = set_gear(m, dataset, index, batchSize);
    pthread_mutex_unlock(&double_lock);
    return error;
}

/* One execution: computes into `results`, which become visible when its stream is synchronised or goes on. */
typedef struct {
    model *of;
    block *input, *shape, *output;
    uint64_t gear;
    unsigned char *results;
    size_t bytes;
} execution;

static aclError find_buffer(const model *m, const aclDataBuffer *buffer, size_t size, const char *what, block **found) {
    block *b = buffer->size == size ? find_block(buffer->data, size) : NULL;
    if (!b || b->device != m->in->device || b->address != (uintptr_t)buffer->data)
        return fail(what[0] == 'i' ? ACL_ERROR_MODEL_INPUT_NOT_MATCH : ACL_ERROR_MODEL_OUTPUT_NOT_MATCH,
                    "the %s buffer must be %zu bytes of device memory, not %zu", what, size, buffer->size);
    *found = b;
    return ACL_SUCCESS;
}

static aclError prepare(model *m, const aclmdlDataset *input, const aclmdlDataset *output, execution *e) {
    const offline *f = m->file;
    size_t inputs = 1 + (f->gear_count > 0);
    if (!input || input->count != inputs || !output || output->count != 1)
        return fail(input && input->count == inputs ? ACL_ERROR_MODEL_OUTPUT_NOT_MATCH : ACL_ERROR_MODEL_INPUT_NOT_MATCH,
                    "the model has %zu inputs and 1 output", inputs);
    *e = (execution){.of = m, .gear = m->gear ? m->gear : largest_gear(f)};
    aclError error = find_buffer(m, input->buffers[0], image_bytes(f) * largest_gear(f), "input", &e->input);
    if (!error)
        error = find_buffer(m, output->buffers[0], result_bytes(f) * largest_gear(f), "output", &e->output);
    if (!error && inputs == 2)
        error = find_buffer(m, input->buffers[1], sizeof(uint64_t), "input", &e->shape);
    if (error)
        return error;
    if (e->shape && m->gear && memcmp(e->shape->store, &m->gear, sizeof m->gear) != 0)
        violation("the gear was set with another dataset than the one that runs");
    if (m->running) {
        violation("a model runs twice at once");
        return fail(ACL_ERROR_FAILURE, "the model is running");
    }
    e->bytes = result_bytes(f) * e->gear;
    record_execution(f, e->gear);
    e->results = malloc(e->bytes);
    return ACL_SUCCESS;
}

static void begin(execution *e, const void *by) {
    e->of->running = 1;
    e->of->running_on = by;
    pin(e->input, by);
    pin(e->shape, by);
    pin(e->output, by);
    memset(e->output->store, 0xFF, e->output->size);
}

static float to_float(const unsigned char *at, aclDataType type) {
    float value;
    _Float16 half;
    if (type == ACL_FLOAT) {
        memcpy(&value, at, sizeof value);
        return value;
    }
    memcpy(&half, at, sizeof half);
    return (float)half;
}

/* One image as the network takes it: [channels, height, width] floats. */
static void read_image(const offline *f, const unsigned char *bytes, float *planes) {
    if (f->input_type != ACL_UINT8) {
        size_t width = f->input_type == ACL_FLOAT ? 4 : 2, size = image_bytes(f) / width;
        for (size_t i = 0; i < size; i++)
            planes[i] = to_float(bytes + i * width, f->input_type);
        return;
    }
    size_t pixels = (size_t)f->dims[0] * f->dims[1], channels = (size_t)f->dims[2];
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < channels; c++)
            planes[c * pixels + i] = ((float)bytes[i * channels + c] - f->mean[c]) * f->scale[c];
}

static void write_result(const offline *f, const float *values, unsigned char *bytes) {
    for (int64_t i = 0; i < f->output_dims[0]; i++) {
        _Float16 half = (_Float16)values[i];
        if (f->output_type == ACL_FLOAT16)
            memcpy(bytes + 2 * i, &half, 2);
        else
            memcpy(bytes + 4 * i, &values[i], 4);
    }
}

/*
 * Neither looks at the clock. "hang": the stream is not done in time until synchronising it has said so `timeouts` times.
 * "hold": whoever synchronises waits. Both end when the faults are not those of `version` any more, or the stream is dropped.
 */
static void wait_on(stream *on, int version, int timeouts, bool held) {
    if (!on || !(timeouts || held))
        return;
    pthread_mutex_lock(&double_lock);
    on->timeouts = timeouts;
    pthread_cond_broadcast(&on->changed);
    while ((held || on->timeouts > 0) && !on->ending && faults_version() == version) {
        pthread_mutex_unlock(&double_lock);
        usleep(200);
        pthread_mutex_lock(&double_lock);
    }
    on->timeouts = 0;
    pthread_mutex_unlock(&double_lock);
}

static aclError compute(execution *e, stream *on) {
    offline *f = e->of->file;
    int device = e->of->in->device;
    pthread_mutex_lock(&double_lock);
    busy[device]++;
    counted.executions[device]++;
    int version = faults_version();
    pthread_mutex_unlock(&double_lock);
    usleep(1000 * fault("slow", device));
    wait_on(on, version, fault("hang", device), fault("hold", device));
    int code = fault("execute", device);
    size_t size = (size_t)f->dims[0] * f->dims[1] * f->dims[2];
    float *image = malloc(size * sizeof(float)), *values = malloc(f->output_dims[0] * sizeof(float));
    for (uint64_t n = 0; n < e->gear && !code; n++) {
        read_image(f, e->input->store + n * image_bytes(f), image);
        graph_run(&f->net, image, values);
        write_result(f, values, e->results + n * result_bytes(f));
    }
    free(image);
    free(values);
    pthread_mutex_lock(&double_lock);
    busy[device]--;
    e->of->running = 0;
    pthread_mutex_unlock(&double_lock);
    return code ? fail(code, "aicore execution failed") : ACL_SUCCESS;
}

static void finish(execution *e) {
    unpin(e->input);
    unpin(e->shape);
    unpin(e->output);
    free(e->results);
}

static void show(execution *e) {
    memcpy(e->output->store, e->results, e->bytes);
    finish(e);
}

static void execution_work(job *j) {
    j->result = compute(j->data, j->on);
}

static void execution_publish(job *j) {
    show(j->data);
    free(j->data);
}

static void execution_discard(job *j) {
    execution *e = j->data;
    e->of->running = 0;
    finish(e);
    free(e);
}

static aclError start(uint32_t id, const aclmdlDataset *input, aclmdlDataset *output, const void *by, execution *e) {
    context *c;
    aclError error = current(&c);
    int code = error ? 0 : fault("submit", c->device);
    if (error || code)
        return error ? error : fail(code, "the execution was not accepted");
    pthread_mutex_lock(&double_lock);
    model *m = find_model(id);
    error = check_model(m, id, c);
    if (!error)
        error = prepare(m, input, output, e);
    if (!error)
        begin(e, by);
    pthread_mutex_unlock(&double_lock);
    return error;
}

aclError aclmdlExecute(uint32_t modelId, const aclmdlDataset *input, aclmdlDataset *output) {
    execution e = {0};
    aclError error = start(modelId, input, output, &e, &e);
    if (error)
        return error;
    error = compute(&e, NULL);
    pthread_mutex_lock(&double_lock);
    if (error)
        finish(&e);
    else
        show(&e);
    pthread_mutex_unlock(&double_lock);
    return error;
}

aclError aclmdlExecuteAsync(uint32_t modelId, const aclmdlDataset *input, aclmdlDataset *output, aclrtStream handle) {
    context *c;
    aclError error = current(&c);
    if (error)
        return error;
    pthread_mutex_lock(&double_lock);
    stream *s = find_stream(handle);
    pthread_mutex_unlock(&double_lock);
    if (!s || s->in != c)
        return fail(ACL_ERROR_RT_STREAM_CONTEXT, "the stream is not of the current context");
    execution *e = malloc(sizeof *e);
    error = start(modelId, input, output, s, e);
    if (error) {
        free(e);
        return error;
    }
    job *j = calloc(1, sizeof *j);
    *j = (job){.work = execution_work, .publish = execution_publish, .discard = execution_discard, .data = e};
    pthread_mutex_lock(&double_lock);
    error = submit(s, j);
    pthread_mutex_unlock(&double_lock);
    return error;
}
