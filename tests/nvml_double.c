/* NVIDIA's management library as a script tells it: the real nvidia-ml-py runs on this where there is no driver.
 *
 * The script (a file named by NVML_SCRIPT) has lines "GPU.FIGURE VALUE", such as "0.power 512000", and is read anew for
 * every question, so that a test may change it while a sampler runs. "!15" instead of a value is that error (here: the
 * GPU is lost), "@512000" a counter that rises by so much a second; a figure that is not there is not supported. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, NOT_LOADED = 9 };

static int text_of(const char *key, char *text, size_t size) {
    const char *path = getenv("NVML_SCRIPT");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    int result = NOT_SUPPORTED;
    if (!file) return NOT_LOADED;
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, ' ');
        if (!value) continue;
        *value++ = 0;
        value[strcspn(value, "\n")] = 0;
        if (strcmp(line, key)) continue;
        result = value[0] == '!' ? atoi(value + 1) : SUCCESS;
        snprintf(text, size, "%s", value);
    }
    fclose(file);
    return result;
}

static int ask(void *device, const char *figure, char *text, size_t size) {
    char key[128];
    snprintf(key, sizeof key, "%d.%s", (int)(intptr_t)device - 1, figure);
    return text_of(key, text, size);
}

static int ask_number(void *device, const char *figure, uint64_t *value) {
    char text[512];
    int result = ask(device, figure, text, sizeof text);
    if (result) return result;
    if (text[0] == '@') {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *value = (uint64_t)((now.tv_sec + now.tv_nsec * 1e-9) * atof(text + 1));
    } else {
        *value = strtoull(text, NULL, 0);
    }
    return SUCCESS;
}

static int ask_uint(void *device, const char *figure, unsigned *value) {
    uint64_t number = 0;
    int result = ask_number(device, figure, &number);
    if (!result) *value = (unsigned)number;
    return result;
}

int nvmlInitWithFlags(unsigned flags) {
    char text[512];
    (void)flags;
    return text_of("count", text, sizeof text);
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int result) { return result ? "an error of the double" : "none"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    char text[512];
    int result = text_of("count", text, sizeof text);
    if (!result) *count = (unsigned)atoi(text);
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    char text[512];
    void *found = (void *)(intptr_t)(index + 1);
    int result = ask(found, "name", text, sizeof text);
    if (result) return result;
    *device = found;
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *name, unsigned size) { return ask(device, "name", name, size); }

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) { return ask(device, "uuid", uuid, size); }

/* A part's identifier ("0.part MIG-…") leads to a handle 100 above that of its GPU. */
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    for (int index = 0; index < 16; index++) {
        char text[512];
        if (!ask((void *)(intptr_t)(index + 1), "part", text, sizeof text) && !strcmp(text, uuid)) {
            *device = (void *)(intptr_t)(index + 101);
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *part, void **device) {
    *device = (void *)((intptr_t)part - 100);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    *pending = 0;
    return ask_uint(device, "mig", current);
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *gpu_and_memory) {
    int result = ask_uint(device, "busy", gpu_and_memory);
    return result ? result : ask_uint(device, "memory_busy", gpu_and_memory + 1);
}

int nvmlDeviceGetMemoryInfo(void *device, uint64_t *total_free_used) {
    int result = ask_number(device, "memory_total", total_free_used);
    if (result) return result;
    result = ask_number(device, "memory_used", total_free_used + 2);
    total_free_used[1] = total_free_used[0] - total_free_used[2];
    return result;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, uint64_t *mj) { return ask_number(device, "energy", mj); }

int nvmlDeviceGetPowerUsage(void *device, unsigned *mw) { return ask_uint(device, "power", mw); }

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *mw) { return ask_uint(device, "power_limit", mw); }

int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *mhz) {
    return ask_uint(device, kind == 1 ? "sm_clock" : kind == 2 ? "memory_clock" : "no_clock", mhz);
}

/* Only by its old name, as drivers before 570 have it. */
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) {
    return sensor ? INVALID_ARGUMENT : ask_uint(device, "temperature", degrees);
}

int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) {
    uint64_t found = 0;
    int result = ask_number(device, "reasons", &found);
    if (!result) *reasons = found;
    return result;
}

int nvmlDeviceGetPcieThroughput(void *device, int way, unsigned *kb_per_s) {
    return ask_uint(device, way ? "pcie_rx" : "pcie_tx", kb_per_s);
}

int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *gen) { return ask_uint(device, "link_gen", gen); }

int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *width) { return ask_uint(device, "link_width", width); }

typedef struct {
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
} process_info;

/* "0.processes 17:1000 18:-" are two processes; the memory of the second is not told. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *found) {
    char text[512];
    unsigned number = 0;
    int result = ask(device, "processes", text, sizeof text);
    if (result) return result;
    for (char *save, *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save), number++) {
        if (!found || number >= *count) continue;
        char *used = strchr(word, ':');
        memset(found + number, 0, sizeof *found);
        found[number].pid = (unsigned)atoi(word);
        found[number].used = !used || used[1] == '-' ? ~0ULL : strtoull(used + 1, NULL, 0);
    }
    result = number > *count ? INSUFFICIENT_SIZE : SUCCESS;
    *count = number;
    return result;
}
