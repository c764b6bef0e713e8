/*
 * A program that knows NVML by its header alone and finds the library by dlopen, as go-nvml and DCGM do.
 * Prints what it is told, a line each; exits with NVML's first unexpected error.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nvml.h>

#define NAME(function) NAME_(function)
#define NAME_(function) #function
/* The header's own names: where it maps one to a later version, that is the one looked up. */
#define LOAD(function) __typeof__(&function) call_##function = (__typeof__(&function))load(library, NAME(function))
#define CHECK(expression)                                                       \
    do {                                                                        \
        nvmlReturn_t checked = (expression);                                    \
        if (checked != NVML_SUCCESS) {                                          \
            fprintf(stderr, "%s: %d\n", #expression, (int)checked);             \
            exit((int)checked);                                                 \
        }                                                                       \
    } while (0)

static void *load(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "%s: %s\n", name, dlerror());
        exit(13);
    }
    return found;
}

int main(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_GLOBAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 12;
    }
    LOAD(nvmlInit);
    LOAD(nvmlShutdown);
    LOAD(nvmlDeviceGetCount);
    LOAD(nvmlDeviceGetHandleByIndex);
    LOAD(nvmlDeviceGetName);
    LOAD(nvmlDeviceGetMemoryInfo);
    LOAD(nvmlDeviceGetComputeRunningProcesses);
    LOAD(nvmlDeviceGetMigMode);
    LOAD(nvmlDeviceGetProcessUtilization);
    LOAD(nvmlErrorString);
    CHECK(call_nvmlInit());
    unsigned int count;
    CHECK(call_nvmlDeviceGetCount(&count));
    for (unsigned int index = 0; index < count; index++) {
        nvmlDevice_t device;
        char name[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
        nvmlMemory_t memory;
        nvmlProcessInfo_t processes[16];
        nvmlProcessUtilizationSample_t samples[16];
        unsigned int running = 16, used = 16, mode, pending;
        CHECK(call_nvmlDeviceGetHandleByIndex(index, &device));
        CHECK(call_nvmlDeviceGetName(device, name, sizeof name));
        CHECK(call_nvmlDeviceGetMemoryInfo(device, &memory));
        CHECK(call_nvmlDeviceGetComputeRunningProcesses(device, &running, processes));
        printf("%u %s %llu", index, name, memory.total >> 20);
        for (unsigned int at = 0; at < running; at++)
            printf(" %u:%llu", processes[at].pid, processes[at].usedGpuMemory >> 20);
        nvmlReturn_t utilization = call_nvmlDeviceGetProcessUtilization(device, samples, &used, 0);
        if (utilization == NVML_SUCCESS)
            printf(" sm %u", samples[0].smUtil);
        nvmlReturn_t mig = call_nvmlDeviceGetMigMode(device, &mode, &pending);
        printf(" MIG %s\n", mig == NVML_SUCCESS ? mode ? "on" : "off" : call_nvmlErrorString(mig));
    }
    CHECK(call_nvmlShutdown());
    return 0;
}
