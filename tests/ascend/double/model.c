/* Loaded models and their descriptions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "double.h"

static model *models;
static uint32_t next_id = 1;

struct aclmdlDesc {
    const offline *of;
    uint32_t id;
    bool filled;
};

model *find_model(uint32_t id) {
    model *m = models;
    while (m && m->id != id)
        m = m->next;
    return m;
}

bool models_in(const context *c) {
    for (model *m = models; m; m = m->next)
        if (m->in == c)
            return true;
    return false;
}

static unsigned char *read_file(const char *path, size_t *size) {
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*size + 1);
    *size = fread(bytes, 1, *size, file);
    fclose(file);
    return bytes;
}

static aclError own_memory(size_t bytes, int device, block **made) {
    *made = NULL;
    return bytes == 0 ? ACL_SUCCESS : allocate(bytes, device, made);
}

static aclError given_memory(const char *what, void *pointer, size_t size, size_t needed, int device, block **found) {
    if (!pointer)
        return own_memory(needed, device, found);
    block *b = find_block(pointer, size);
    if (!b || b->device != device || size < needed)
        return fail(ACL_ERROR_INVALID_PARAM, "%s memory must be %zu bytes on device %d", what, needed, device);
    *found = b;
    return ACL_SUCCESS;
}

/* Memory that the model brought itself has no other owner. */
static void give_back(block *b, bool own) {
    if (!b)
        return;
    b->models--;
    if (own)
        release_block(b);
}

typedef struct {
    void *work, *weights;
    size_t work_size, weight_size;
} placement;

static aclError place(model *m, const placement *at, const unsigned char *weights) {
    offline *f = m->file;
    aclError error = given_memory("work", at->work, at->work_size, f->work_bytes, m->in->device, &m->work);
    if (error)
        return error;
    error = given_memory("weight", at->weights, at->weight_size, f->weight_bytes, m->in->device, &m->weights);
    if (error) {
        if (!at->work && m->work)
            release_block(m->work);
        return error;
    }
    m->work_is_own = !at->work;
    m->weights_are_own = !at->weights;
    memcpy(m->weights->store, weights, f->weight_bytes);
    m->weights->models++;
    if (m->work)
        m->work->models++;
    return ACL_SUCCESS;
}

static aclError load(const unsigned char *bytes, size_t size, uint32_t *id, const placement *at) {
    context *c;
    aclError error = current(&c);
    int code = error ? 0 : fault("load", c->device);
    if (error || code)
        return error ? error : fail(code, "loading the model failed");
    offline *file = read_offline(bytes, size, &error);
    if (!file)
        return error;
    model *m = calloc(1, sizeof *m);
    pthread_mutex_lock(&double_lock);
    *m = (model){.next = models, .id = next_id, .in = c, .file = file};
    error = place(m, at, bytes + size - file->weight_bytes);
    if (!error) {
        *id = next_id++;
        models = m;
        counted.live[MODELS]++;
    }
    pthread_mutex_unlock(&double_lock);
    if (error) {
        free_offline(file);
        free(m);
    }
    return error;
}

aclError aclmdlLoadFromMem(const void *bytes, size_t size, uint32_t *modelId) {
    return load(bytes, size, modelId, &(placement){0});
}

aclError aclmdlLoadFromFileWithMem(const char *modelPath, uint32_t *modelId, void *workPtr, size_t workSize,
                                   void *weightPtr, size_t weightSize) {
    size_t size = 0;
    unsigned char *bytes = read_file(modelPath, &size);
    if (!bytes)
        return fail(ACL_ERROR_GE_EXEC_MODEL_PATH_INVALID, "Model file path %s is invalid", modelPath ? modelPath : "NULL");
    aclError error = load(bytes, size, modelId, &(placement){workPtr, weightPtr, workSize, weightSize});
    free(bytes);
    return error;
}

aclError aclmdlLoadFromFile(const char *modelPath, uint32_t *modelId) {
    return aclmdlLoadFromFileWithMem(modelPath, modelId, NULL, 0, NULL, 0);
}

aclError aclmdlQuerySize(const char *fileName, size_t *workSize, size_t *weightSize) {
    size_t size = 0;
    aclError error = ready();
    unsigned char *bytes = error ? NULL : read_file(fileName, &size);
    if (error)
        return error;
    if (!bytes)
        return fail(ACL_ERROR_GE_EXEC_MODEL_PATH_INVALID, "Model file path %s is invalid", fileName ? fileName : "NULL");
    offline *file = read_offline(bytes, size, &error);
    free(bytes);
    if (!file)
        return error;
    *workSize = file->work_bytes;
    *weightSize = file->weight_bytes;
    free_offline(file);
    return ACL_SUCCESS;
}

aclError aclmdlUnload(uint32_t modelId) {
    if (ready() != ACL_SUCCESS)
        return ACL_ERROR_UNINITIALIZE;
    pthread_mutex_lock(&double_lock);
    model **link = &models;
    while (*link && (*link)->id != modelId)
        link = &(*link)->next;
    model *m = *link;
    if (m) {
        if (m->running)
            violation("a model was unloaded while it runs");
        if (m->in->device < 0 || m->in->device != device_of_current())
            violation("a model was unloaded in another context than it was loaded in");
        *link = m->next;
        give_back(m->work, m->work_is_own);
        give_back(m->weights, m->weights_are_own);
        free_offline(m->file);
        free(m);
        counted.live[MODELS]--;
    }
    pthread_mutex_unlock(&double_lock);
    return m ? ACL_SUCCESS : fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "no model %u", modelId);
}

static void count(kind k, int change) {
    pthread_mutex_lock(&double_lock);
    counted.live[k] += change;
    pthread_mutex_unlock(&double_lock);
}

aclmdlDesc *aclmdlCreateDesc() {
    if (ready() != ACL_SUCCESS)
        return NULL;
    count(DESCRIPTIONS, 1);
    return calloc(1, sizeof(aclmdlDesc));
}

aclError aclmdlDestroyDesc(aclmdlDesc *d) {
    if (!d)
        return fail(ACL_ERROR_INVALID_PARAM, "null description");
    count(DESCRIPTIONS, -1);
    free(d);
    return ACL_SUCCESS;
}

aclError aclmdlGetDesc(aclmdlDesc *d, uint32_t modelId) {
    pthread_mutex_lock(&double_lock);
    model *m = find_model(modelId);
    if (m)
        *d = (aclmdlDesc){m->file, modelId, true};
    pthread_mutex_unlock(&double_lock);
    return m ? ACL_SUCCESS : fail(ACL_ERROR_GE_EXEC_MODEL_ID_INVALID, "no model %u", modelId);
}

size_t aclmdlGetNumInputs(aclmdlDesc *d) {
    return d->filled ? 1 + (d->of->gear_count > 0) : 0;
}

size_t aclmdlGetNumOutputs(aclmdlDesc *d) {
    return d->filled ? 1 : 0;
}

size_t aclmdlGetInputSizeByIndex(aclmdlDesc *d, size_t index) {
    if (index >= aclmdlGetNumInputs(d))
        return 0;
    return index == 0 ? image_bytes(d->of) * largest_gear(d->of) : sizeof(uint64_t);
}

size_t aclmdlGetOutputSizeByIndex(aclmdlDesc *d, size_t index) {
    if (index >= aclmdlGetNumOutputs(d))
        return 0;
    return result_bytes(d->of) * largest_gear(d->of) / (fault("output_size", -1) ? 2 : 1);
}

static aclError fill(aclmdlIODims *dims, const char *name, int64_t n, size_t rank, const int64_t *rest) {
    memset(dims, 0, sizeof *dims);
    snprintf(dims->name, sizeof dims->name, "%s", name);
    dims->dimCount = rank + 1;
    dims->dims[0] = n;
    memcpy(dims->dims + 1, rest, rank * sizeof *rest);
    return ACL_SUCCESS;
}

static int64_t batch_dimension(const offline *f) {
    return f->gear_count ? -1 : (int64_t)f->batch;
}

aclError aclmdlGetInputDims(const aclmdlDesc *d, size_t index, aclmdlIODims *dims) {
    if (index >= aclmdlGetNumInputs((aclmdlDesc *)d))
        return fail(ACL_ERROR_INVALID_PARAM, "no input %zu", index);
    if (index == 1)
        return fill(dims, ACL_DYNAMIC_TENSOR_NAME, 1, 0, d->of->dims);
    return fill(dims, d->of->input_name, batch_dimension(d->of), d->of->rank, d->of->dims);
}

aclError aclmdlGetOutputDims(const aclmdlDesc *d, size_t index, aclmdlIODims *dims) {
    if (index >= aclmdlGetNumOutputs((aclmdlDesc *)d))
        return fail(ACL_ERROR_INVALID_PARAM, "no output %zu", index);
    return fill(dims, d->of->output_name, batch_dimension(d->of), d->of->output_rank, d->of->output_dims);
}

aclError aclmdlGetCurOutputDims(const aclmdlDesc *d, size_t index, aclmdlIODims *dims) {
    if (index >= aclmdlGetNumOutputs((aclmdlDesc *)d))
        return fail(ACL_ERROR_INVALID_PARAM, "no output %zu", index);
    pthread_mutex_lock(&double_lock);
    model *m = find_model(d->id);
    int64_t gear = m && m->gear ? (int64_t)m->gear : (int64_t)largest_gear(d->of);
    pthread_mutex_unlock(&double_lock);
    return fill(dims, d->of->output_name, gear, d->of->output_rank, d->of->output_dims);
}

const char *aclmdlGetInputNameByIndex(const aclmdlDesc *d, size_t index) {
    return index == 0 ? d->of->input_name : index == 1 && d->of->gear_count ? ACL_DYNAMIC_TENSOR_NAME : "";
}

const char *aclmdlGetOutputNameByIndex(const aclmdlDesc *d, size_t index) {
    return index == 0 ? d->of->output_name : "";
}

aclFormat aclmdlGetInputFormat(const aclmdlDesc *d, size_t index) {
    return index == 0 ? d->of->input_format : ACL_FORMAT_ND;
}

aclFormat aclmdlGetOutputFormat(const aclmdlDesc *d, size_t index) {
    return d && index == 0 ? ACL_FORMAT_ND : ACL_FORMAT_UNDEFINED;
}

aclDataType aclmdlGetInputDataType(const aclmdlDesc *d, size_t index) {
    return index == 0 ? d->of->input_type : ACL_INT64;
}

aclDataType aclmdlGetOutputDataType(const aclmdlDesc *d, size_t index) {
    return index == 0 ? d->of->output_type : ACL_DT_UNDEFINED;
}

aclError aclmdlGetInputIndexByName(const aclmdlDesc *d, const char *name, size_t *index) {
    for (*index = 0; *index < aclmdlGetNumInputs((aclmdlDesc *)d); ++*index)
        if (strcmp(aclmdlGetInputNameByIndex(d, *index), name) == 0)
            return ACL_SUCCESS;
    return fail(ACL_ERROR_INVALID_PARAM, "no input is called %s", name);
}

aclError aclmdlGetDynamicBatch(const aclmdlDesc *d, aclmdlBatch *batch) {
    memset(batch, 0, sizeof *batch);
    batch->batchCount = d->of->gear_count;
    memcpy(batch->batch, d->of->gears, d->of->gear_count * sizeof *batch->batch);
    return ACL_SUCCESS;
}
