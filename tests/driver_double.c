/* Stands in for NVIDIA's libcuda.so.1: the calls that find out which GPUs there are, and none that compute.
 *
 * NAIAD_DOUBLE_GPUS   how many GPUs the machine has
 * NAIAD_DOUBLE_INIT   what cuInit answers, instead of success
 * NAIAD_DOUBLE_CUDA   the version of CUDA that it runs, as in 12080 for 12.8; 13.1 if not set
 * NAIAD_DOUBLE_MIG    if set, each GPU is a part of a divided one
 * CUDA_VISIBLE_DEVICES has the effect that it has on the real driver.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 8
enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100 };

static int ready, count, visible[MOST];

static int number_of(const char *entry, int present) {
    if (strncmp(entry, "GPU-", 4) == 0) {
        int number = (int)strtol(entry + 4, NULL, 16) >> 28;
        return number < present ? number : -1;
    }
    char *end;
    long number = strtol(entry, &end, 10);
    return end != entry && number >= 0 && number < present ? (int)number : -1;
}

int cuInit(unsigned flags) {
    const char *init = getenv("NAIAD_DOUBLE_INIT"), *gpus = getenv("NAIAD_DOUBLE_GPUS");
    const char *named = getenv("CUDA_VISIBLE_DEVICES");
    int present = gpus ? atoi(gpus) : 0;
    if (flags) return INVALID_VALUE;
    if (init) return atoi(init);
    count = 0;
    if (!named) {
        while (count < present && count < MOST) { visible[count] = count; count++; }
    } else {
        char copy[1024];
        snprintf(copy, sizeof copy, "%s", named);
        for (char *entry = strtok(copy, ","); entry && count < MOST; entry = strtok(NULL, ",")) {
            int number = number_of(entry, present);
            if (number < 0) break; /* as the real one does: what follows is not seen either */
            visible[count++] = number;
        }
    }
    ready = count > 0;
    return ready ? SUCCESS : NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
    const char *named = getenv("NAIAD_DOUBLE_CUDA");
    *version = named ? atoi(named) : 13010;
    return SUCCESS;
}

int cuDeviceGetCount(int *found) {
    if (!ready) return NOT_INITIALIZED;
    *found = count;
    return SUCCESS;
}

int cuDeviceGet(int *device, int number) {
    if (!ready) return NOT_INITIALIZED;
    if (number < 0 || number >= count) return INVALID_VALUE;
    *device = number;
    return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int device) {
    snprintf(name, (size_t)length, "Double %d", visible[device]);
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)(visible[device] + 1) << 34; /* 16 GiB, 32 GiB, … */
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    if (attribute == 75) *value = 9;
    else if (attribute == 76) *value = 0;
    else return INVALID_VALUE;
    return SUCCESS;
}

static int uuid(unsigned char *bytes, int device, int part) {
    memset(bytes, 0xab, 16);
    bytes[0] = (unsigned char)(visible[device] << 4 | 0x1);
    bytes[15] = (unsigned char)part;
    return SUCCESS;
}

int cuDeviceGetUuid(unsigned char *bytes, int device) { return uuid(bytes, device, 0); }

int cuDeviceGetUuid_v2(unsigned char *bytes, int device) {
    return uuid(bytes, device, getenv("NAIAD_DOUBLE_MIG") ? 1 : 0);
}

int cuGetErrorName(int code, const char **name) {
    *name = code == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : NULL;
    return *name ? SUCCESS : INVALID_VALUE;
}

int cuGetErrorString(int code, const char **text) {
    *text = code == 803 ? "system has unsupported display driver / cuda driver combination" : NULL;
    return *text ? SUCCESS : INVALID_VALUE;
}
