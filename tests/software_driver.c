/* A CUDA driver in software, as far as numparam, cuda.core and numba-cuda need one: `libcuda.so.1` for machines without
 * a GPU, so that everything above the driver runs as it is.
 *
 * It is as lazy as a driver may be. Copies, fills, launches and frees are queued, and done when somebody waits for them
 * or for what depends on them, and no earlier. The legacy default stream waits for all others of its device, and they
 * for it. Device memory can be touched by queued work only: a host that reads it dies, as it would with a card.
 * Kernels are run by a function that the host gives, for one launch at a time.
 */
#define _GNU_SOURCE
#include <cuda.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { DEVICES = 2, MULTIPROCESSORS = 2, MOST_STREAMS = 64, MOST_ARGUMENTS = 64, FRESH = 0xA5, PAGE = 4096 };

typedef struct Work Work;
struct Work {
    enum { COPY, SET, LAUNCH, FREE, MARK } kind;
    int done, device, count;
    Work **before;
    char *target;
    const char *source;
    size_t bytes;
    unsigned value;
    const char *kernel;
    unsigned shape[4]; /* grid, block */
    void *arguments;
};

typedef struct Memory {
    char *start;
    size_t bytes;
    int device; /* -1: pinned memory of the host */
    struct Memory *next;
} Memory;

struct CUctx_st { int device; };
struct CUstream_st { int device, waits; Work *last; };
struct CUevent_st { int device; Work *work; };
struct CUkern_st { char name[256]; size_t bytes[MOST_ARGUMENTS]; };

static struct CUctx_st contexts[DEVICES] = {{0}, {1}};
static CUstream streams[DEVICES][MOST_STREAMS]; /* the first of a device is its legacy default stream */
static Memory *memories;
static size_t used[DEVICES], total = (size_t)1 << 30;
static __thread CUcontext current;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What the host gives and asks; not part of a driver. */
typedef int (*Launcher)(int device, const char *kernel, const unsigned *shape, const void *arguments);
typedef size_t (*Describer)(const char *kernel, int argument); /* its bytes; 0 after the last one */
static Launcher launcher;
static Describer describer;
static int failed;

void software_driver_start(Launcher launch, Describer describe, size_t device_bytes) {
    launcher = launch;
    describer = describe;
    total = device_bytes;
}
/* Memory of a device, one after the other; 0 when there is no more. */
size_t software_driver_memory(int device, int at, char **start) {
    for (Memory *memory = memories; memory; memory = memory->next)
        if (memory->device == device && at-- == 0) {
            *start = memory->start;
            return memory->bytes;
        }
    return 0;
}

/* --------------------------------------------------------------------------- queues */

static void enter(void) { pthread_mutex_lock(&lock); }
static CUresult leave(CUresult result) {
    if (failed && result == CUDA_SUCCESS) result = CUDA_ERROR_LAUNCH_FAILED;
    pthread_mutex_unlock(&lock);
    return result;
}

static size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

static void protect(int how) {
    for (Memory *memory = memories; memory; memory = memory->next)
        if (memory->device >= 0) mprotect(memory->start, whole_pages(memory->bytes), how);
}

static void drop(Memory *memory) {
    for (Memory **at = &memories; *at; at = &(*at)->next)
        if (*at == memory) {
            *at = memory->next;
            break;
        }
    if (memory->device >= 0) used[memory->device] -= memory->bytes;
    munmap(memory->start, whole_pages(memory->bytes));
    free(memory);
}

static Memory *holder(CUdeviceptr address) {
    for (Memory *memory = memories; memory; memory = memory->next)
        if ((char *)address >= memory->start && (char *)address < memory->start + memory->bytes) return memory;
    return NULL;
}

static int is_inside(const void *address, size_t bytes) {
    Memory *memory = holder((CUdeviceptr)address);
    return !memory || (const char *)address + bytes <= memory->start + memory->bytes;
}

static void finish(Work *work) {
    if (!work || work->done) return;
    work->done = 1;
    for (int i = 0; i < work->count; i++) finish(work->before[i]);
    free(work->before);
    int touches = work->kind == COPY || work->kind == SET || work->kind == LAUNCH;
    if (touches) protect(PROT_READ | PROT_WRITE);
    if (work->kind == COPY) memcpy(work->target, work->source, work->bytes);
    if (work->kind == SET)
        for (size_t i = 0; i < work->bytes; i++) work->target[i] = ((char *)&work->value)[i % 4];
    if (work->kind == LAUNCH && launcher(work->device, work->kernel, work->shape, work->arguments)) failed = 1;
    if (touches) protect(PROT_NONE);
    if (work->kind == FREE) {
        Memory *memory = holder((CUdeviceptr)work->target);
        if (memory) drop(memory);
    }
    free(work->arguments);
}

static CUstream stream_of(CUstream stream) {
    if (stream != NULL && stream != CU_STREAM_LEGACY && stream != CU_STREAM_PER_THREAD) return stream;
    int device = current ? current->device : 0;
    if (!streams[device][0]) {
        streams[device][0] = calloc(1, sizeof *stream);
        streams[device][0]->device = device;
        streams[device][0]->waits = 1;
    }
    return streams[device][0];
}

static Work *queue(CUstream handle, Work made) {
    CUstream stream = stream_of(handle), legacy = streams[stream->device][0];
    Work *work = malloc(sizeof *work);
    *work = made;
    work->device = stream->device;
    work->before = calloc(MOST_STREAMS + 2, sizeof *work->before); /* and its own stream, and an event */
    work->before[work->count++] = stream->last;
    for (int i = 0; stream == legacy && i < MOST_STREAMS; i++)
        if (streams[stream->device][i] && streams[stream->device][i]->waits)
            work->before[work->count++] = streams[stream->device][i]->last;
    if (stream != legacy && stream->waits && legacy) work->before[work->count++] = legacy->last;
    return stream->last = work;
}

static void finish_all(int device) {
    for (int i = 0; i < MOST_STREAMS; i++)
        if (streams[device][i]) finish(streams[device][i]->last);
}

static CUresult copy(CUstream stream, void *target, const void *source, size_t bytes, int wait) {
    if (!is_inside(target, bytes) || !is_inside(source, bytes)) return CUDA_ERROR_INVALID_VALUE;
    Work *work = queue(stream, (Work){.kind = COPY, .target = target, .source = source, .bytes = bytes});
    /* A driver takes what is in ordinary memory of the host before it returns. */
    if (wait || !holder((CUdeviceptr)target) || !holder((CUdeviceptr)source)) finish(work);
    return CUDA_SUCCESS;
}

static CUresult set(CUstream stream, CUdeviceptr target, unsigned value, size_t bytes, int wait) {
    if (!is_inside((void *)target, bytes)) return CUDA_ERROR_INVALID_VALUE;
    Work *work = queue(stream, (Work){.kind = SET, .target = (char *)target, .value = value, .bytes = bytes});
    if (wait) finish(work);
    return CUDA_SUCCESS;
}

static CUresult allocate(int device, size_t bytes, void **start) {
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (device >= 0 && used[device] + bytes > total) finish_all(device); /* frees may be waiting */
    if (device >= 0 && used[device] + bytes > total) return CUDA_ERROR_OUT_OF_MEMORY;
    Memory *memory = malloc(sizeof *memory);
    char *space = mmap(NULL, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    memset(space, FRESH, bytes);
    if (device >= 0) {
        used[device] += bytes;
        mprotect(space, whole_pages(bytes), PROT_NONE);
    }
    *memory = (Memory){space, bytes, device, memories};
    memories = memory;
    *start = space;
    return CUDA_SUCCESS;
}

/* --------------------------------------------------------------------------- the driver: devices and contexts */

CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int *count) { return *count = DEVICES, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < DEVICES ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    snprintf(name, length, "software %d", device);
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    memset(uuid, device, sizeof *uuid);
    return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) { return *bytes = total, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = MULTIPROCESSORS; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    return *context = &contexts[device], CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice device) { return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    *flags = 0, *active = 1;
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) { return *context = current, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return current = context, CUDA_SUCCESS; }
CUresult cuCtxPushCurrent(CUcontext context) { return current = context, CUDA_SUCCESS; }
CUresult cuCtxPopCurrent(CUcontext *context) {
    if (context) *context = current;
    return current = NULL, CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice *device) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    return *device = current->device, CUDA_SUCCESS;
}
CUresult cuCtxSynchronize(void) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    enter();
    finish_all(current->device);
    return leave(CUDA_SUCCESS);
}

/* --------------------------------------------------------------------------- memory */

CUresult cuMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    *free_bytes = total - used[current->device], *total_bytes = total;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device) {
    return *pool = (CUmemoryPool)&contexts[device], CUDA_SUCCESS;
}
CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }
CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) { return CUDA_SUCCESS; }
CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    return memset(value, 0, 8), CUDA_SUCCESS;
}
CUresult cuMemAllocAsync(CUdeviceptr *start, size_t bytes, CUstream stream) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    enter();
    return leave(allocate(stream_of(stream)->device, bytes, (void **)start));
}
CUresult cuMemAllocFromPoolAsync(CUdeviceptr *start, size_t bytes, CUmemoryPool pool, CUstream stream) {
    enter();
    return leave(allocate(((CUcontext)pool)->device, bytes, (void **)start));
}
CUresult cuMemFreeAsync(CUdeviceptr start, CUstream stream) {
    enter();
    if (!holder(start)) return leave(CUDA_ERROR_INVALID_VALUE);
    queue(stream, (Work){.kind = FREE, .target = (char *)start});
    return leave(CUDA_SUCCESS);
}
CUresult cuMemAlloc(CUdeviceptr *start, size_t bytes) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    enter();
    return leave(allocate(current->device, bytes, (void **)start));
}
CUresult cuMemFree(CUdeviceptr start) {
    enter();
    Memory *memory = holder(start);
    if (!memory) return leave(CUDA_ERROR_INVALID_VALUE);
    finish_all(memory->device);
    if ((memory = holder(start))) drop(memory);
    return leave(CUDA_SUCCESS);
}
CUresult cuMemHostAlloc(void **start, size_t bytes, unsigned flags) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    enter();
    return leave(allocate(-1, bytes, start));
}
CUresult cuMemAllocHost(void **start, size_t bytes) { return cuMemHostAlloc(start, bytes, 0); }
CUresult cuMemFreeHost(void *start) {
    enter();
    Memory *memory = holder((CUdeviceptr)start);
    if (!memory) return leave(CUDA_ERROR_INVALID_VALUE);
    drop(memory);
    return leave(CUDA_SUCCESS);
}
CUresult cuMemcpyAsync(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
    enter();
    return leave(copy(stream, (void *)target, (void *)source, bytes, 0));
}
CUresult cuMemcpyHtoDAsync(CUdeviceptr target, const void *source, size_t bytes, CUstream stream) {
    enter();
    return leave(copy(stream, (void *)target, source, bytes, 0));
}
CUresult cuMemcpyDtoHAsync(void *target, CUdeviceptr source, size_t bytes, CUstream stream) {
    enter();
    return leave(copy(stream, target, (void *)source, bytes, 0));
}
CUresult cuMemcpyHtoD(CUdeviceptr target, const void *source, size_t bytes) {
    enter();
    return leave(copy(NULL, (void *)target, source, bytes, 1));
}
CUresult cuMemcpyDtoH(void *target, CUdeviceptr source, size_t bytes) {
    enter();
    return leave(copy(NULL, target, (void *)source, bytes, 1));
}
CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t bytes, CUstream stream) {
    enter();
    return leave(set(stream, target, 0x01010101u * value, bytes, 0));
}
CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr address) {
    Memory *memory = holder(address);
    if (!memory) return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)value = memory->device < 0 ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)value = memory->device < 0 ? 0 : memory->device; break;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED: *(unsigned *)value = 0; break;
    case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)value = &contexts[memory->device < 0 ? 0 : memory->device]; break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER: *(CUdeviceptr *)value = address; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}
CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **values, CUdeviceptr address) {
    for (unsigned i = 0; i < count; i++) /* of memory that it does not know a driver says 0 */
        if (cuPointerGetAttribute(values[i], attributes[i], address) != CUDA_SUCCESS) memset(values[i], 0, 4);
    return CUDA_SUCCESS;
}

/* --------------------------------------------------------------------------- streams and events */

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    enter();
    stream_of(NULL);
    for (int i = 1; i < MOST_STREAMS; i++)
        if (!streams[current->device][i]) {
            *stream = streams[current->device][i] = calloc(1, sizeof **stream);
            (*stream)->device = current->device;
            (*stream)->waits = !(flags & CU_STREAM_NON_BLOCKING);
            return leave(CUDA_SUCCESS);
        }
    return leave(CUDA_ERROR_OUT_OF_MEMORY);
}
CUresult cuStreamCreate(CUstream *stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }
CUresult cuStreamDestroy(CUstream stream) {
    enter();
    finish(stream->last);
    for (int i = 1; i < MOST_STREAMS; i++)
        if (streams[stream->device][i] == stream) streams[stream->device][i] = NULL;
    return leave(CUDA_SUCCESS);
}
CUresult cuStreamSynchronize(CUstream stream) {
    enter();
    finish(queue(stream, (Work){.kind = MARK}));
    return leave(CUDA_SUCCESS);
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    enter();
    Work *work = queue(stream, (Work){.kind = MARK});
    work->before[work->count++] = event->work;
    return leave(CUDA_SUCCESS);
}
CUresult cuStreamGetCtx(CUstream stream, CUcontext *context) {
    return *context = &contexts[stream_of(stream)->device], CUDA_SUCCESS;
}
CUresult cuStreamGetDevice(CUstream stream, CUdevice *device) {
    return *device = stream_of(stream)->device, CUDA_SUCCESS;
}
CUresult cuStreamGetFlags(CUstream stream, unsigned *flags) {
    return *flags = stream_of(stream)->waits ? 0 : CU_STREAM_NON_BLOCKING, CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS;
}
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = *greatest = 0, CUDA_SUCCESS; }
CUresult cuEventCreate(CUevent *event, unsigned flags) {
    if (!current) return CUDA_ERROR_INVALID_CONTEXT;
    *event = calloc(1, sizeof **event);
    (*event)->device = current->device;
    return CUDA_SUCCESS;
}
CUresult cuEventDestroy(CUevent event) { return free(event), CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent event, CUstream stream) {
    enter();
    if (stream_of(stream)->device != event->device) return leave(CUDA_ERROR_INVALID_HANDLE);
    event->work = queue(stream, (Work){.kind = MARK});
    return leave(CUDA_SUCCESS);
}
CUresult cuEventSynchronize(CUevent event) {
    enter();
    finish(event->work);
    return leave(CUDA_SUCCESS);
}
CUresult cuEventQuery(CUevent event) { return !event->work || event->work->done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY; }
CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) { return *milliseconds = 0, CUDA_SUCCESS; }

/* --------------------------------------------------------------------------- kernels */

CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *options, void **values, unsigned count,
                           CUlibraryOption *library_options, void **library_values, unsigned library_count) {
    if (memcmp(code, "\177ELF", 4)) return CUDA_ERROR_INVALID_IMAGE;
    return *library = (CUlibrary)code, CUDA_SUCCESS;
}
CUresult cuLibraryUnload(CUlibrary library) { return CUDA_SUCCESS; }
CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name) {
    if (!describer || !describer(name, 0)) return CUDA_ERROR_NOT_FOUND;
    *kernel = calloc(1, sizeof **kernel);
    snprintf((*kernel)->name, sizeof (*kernel)->name, "%s", name);
    for (int i = 0; i < MOST_ARGUMENTS - 1; i++) (*kernel)->bytes[i] = describer(name, i);
    return CUDA_SUCCESS;
}
CUresult cuKernelGetLibrary(CUlibrary *library, CUkernel kernel) { return *library = NULL, CUDA_SUCCESS; }
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **arguments, void **extra) {
    enter();
    CUkernel kernel = (CUkernel)function;
    if (current && stream_of(config->hStream)->device != current->device) return leave(CUDA_ERROR_INVALID_HANDLE);
    if (config->gridDimZ != 1 || config->blockDimZ != 1 || !config->gridDimX || config->gridDimY > 65535 ||
        config->blockDimX * config->blockDimY > 1024)
        return leave(CUDA_ERROR_INVALID_VALUE);
    char *kept = calloc(MOST_ARGUMENTS, 8);
    for (size_t i = 0, at = 0; kernel->bytes[i]; at += kernel->bytes[i++]) {
        at = (at + kernel->bytes[i] - 1) / kernel->bytes[i] * kernel->bytes[i];
        memcpy(kept + 8 * i, arguments ? arguments[i] : (char *)extra[1] + at, kernel->bytes[i]);
    }
    queue(config->hStream, (Work){.kind = LAUNCH, .kernel = kernel->name, .arguments = kept,
          .shape = {config->gridDimX, config->gridDimY, config->blockDimX, config->blockDimY}});
    return leave(CUDA_SUCCESS);
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **arguments,
                        void **extra) {
    CUlaunchConfig config = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, NULL, 0};
    return cuLaunchKernelEx(&config, function, arguments, extra);
}

/* --------------------------------------------------------------------------- names */

CUresult cuGetErrorName(CUresult error, const char **name) {
    static __thread char text[64];
    snprintf(text, sizeof text, error == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA error %d", error);
    return *name = text, CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }

#define ENTRY(name) {#name, (void *)name}
static const struct { const char *name; void *function; } entries[] = {
    ENTRY(cuInit), ENTRY(cuDriverGetVersion), ENTRY(cuDeviceGetCount), ENTRY(cuDeviceGet), ENTRY(cuDeviceGetName),
    ENTRY(cuDeviceGetUuid), ENTRY(cuDeviceTotalMem), ENTRY(cuDeviceGetAttribute), ENTRY(cuDevicePrimaryCtxRetain),
    ENTRY(cuDevicePrimaryCtxRelease), ENTRY(cuDevicePrimaryCtxGetState), ENTRY(cuCtxGetCurrent), ENTRY(cuCtxSetCurrent),
    ENTRY(cuCtxPushCurrent), ENTRY(cuCtxPopCurrent), ENTRY(cuCtxGetDevice), ENTRY(cuCtxSynchronize), ENTRY(cuMemGetInfo),
    ENTRY(cuDeviceGetDefaultMemPool), ENTRY(cuDeviceGetMemPool), ENTRY(cuMemPoolSetAttribute),
    ENTRY(cuMemPoolGetAttribute), ENTRY(cuMemAllocAsync), ENTRY(cuMemAllocFromPoolAsync), ENTRY(cuMemFreeAsync),
    ENTRY(cuMemAlloc), ENTRY(cuMemFree), ENTRY(cuMemHostAlloc), ENTRY(cuMemAllocHost), ENTRY(cuMemFreeHost),
    ENTRY(cuMemcpyAsync), ENTRY(cuMemcpyHtoDAsync), ENTRY(cuMemcpyDtoHAsync), ENTRY(cuMemcpyHtoD), ENTRY(cuMemcpyDtoH),
    ENTRY(cuMemsetD8Async), ENTRY(cuPointerGetAttribute), ENTRY(cuPointerGetAttributes),
    ENTRY(cuStreamCreateWithPriority), ENTRY(cuStreamCreate), ENTRY(cuStreamDestroy), ENTRY(cuStreamSynchronize),
    ENTRY(cuStreamWaitEvent), ENTRY(cuStreamGetCtx), ENTRY(cuStreamGetDevice), ENTRY(cuStreamGetFlags),
    ENTRY(cuStreamIsCapturing), ENTRY(cuCtxGetStreamPriorityRange), ENTRY(cuEventCreate), ENTRY(cuEventDestroy),
    ENTRY(cuEventRecord), ENTRY(cuEventSynchronize), ENTRY(cuEventQuery), ENTRY(cuEventElapsedTime),
    ENTRY(cuLibraryLoadData), ENTRY(cuLibraryUnload), ENTRY(cuLibraryGetKernel), ENTRY(cuKernelGetLibrary),
    ENTRY(cuLaunchKernelEx), ENTRY(cuLaunchKernel), ENTRY(cuGetErrorName), ENTRY(cuGetErrorString),
    ENTRY(cuGetProcAddress),
};

CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags,
                          CUdriverProcAddressQueryResult *status) {
    *function = NULL;
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        if (!strcmp(entries[i].name, symbol)) *function = entries[i].function;
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
