/* The part of NVIDIA's driver that the onnxruntime backend calls, over the host's memory, for a machine without one.
 *
 * Copies are queued, and happen when the stream is waited for. The functions double_... are for the test.
 */
#include <stdlib.h>
#include <string.h>

#define INVALID 1
#define OUT_OF_MEMORY 2
#define LARGEST 64

typedef struct { void *target; const void *source; size_t size; } copy;

static copy queue[LARGEST];
static int queued, allocated, failing, ended_captures, current;
static char stream, context;

void double_fail(int code) { failing = code; }
int double_allocated(void) { return allocated; }
int double_ended_captures(void) { return ended_captures; }
int double_current(void) { return current; }

int cuInit(unsigned flags) { return flags ? INVALID : 0; }
int cuDeviceGet(int *device, int number) {
    if (number > 1) return 101; /* CUDA_ERROR_INVALID_DEVICE */
    *device = 10 + number;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **found, int device) {
    *found = &context;
    return device < 10 ? INVALID : 0;
}
int cuCtxSetCurrent(void *wanted) {
    current = wanted == &context;
    return current ? 0 : INVALID;
}
int cuStreamCreate(void **found, unsigned flags) {
    *found = &stream;
    return flags == 1 ? 0 : INVALID;
}
int cuStreamSynchronize(void *of) {
    if (of != &stream) return INVALID;
    if (failing) return failing;
    for (int each = 0; each < queued; each++) memmove(queue[each].target, queue[each].source, queue[each].size);
    queued = 0;
    return 0;
}
int cuStreamEndCapture(void *of, void **graph) {
    *graph = NULL;
    ended_captures++;
    failing = 0;
    return of == &stream ? 0 : INVALID;
}
int cuMemAlloc_v2(void **found, size_t size) {
    if (size > (size_t)1 << 40) return OUT_OF_MEMORY;
    *found = malloc(size);
    allocated++;
    return 0;
}
int cuMemFree_v2(void *pointer) {
    free(pointer);
    allocated--;
    return 0;
}
int cuMemHostAlloc(void **found, size_t size, unsigned flags) {
    return flags == 1 ? cuMemAlloc_v2(found, size) : INVALID;
}
int cuMemFreeHost(void *pointer) { return cuMemFree_v2(pointer); }
int cuMemcpyAsync(void *target, const void *source, size_t size, void *of) {
    if (of != &stream || queued == LARGEST) return INVALID;
    queue[queued++] = (copy){target, source, size};
    return 0;
}
int cuGetErrorName(int code, const char **name) {
    *name = code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : "CUDA_ERROR_OTHER";
    return code == 999 ? INVALID : 0;
}
int cuGetErrorString(int code, const char **text) {
    *text = "what the driver says";
    return code == 999 ? INVALID : 0;
}
