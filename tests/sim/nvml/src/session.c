/* Initialisation, versions, error texts, and the checks that begin every call. */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

struct nvmlDevice_st sim_gpu_handles[SIM_MAX_GPUS], sim_mig_handles[SIM_MAX_COMPUTES];
struct nvmlGpuInstance_st sim_instance_handles[SIM_MAX_INSTANCES];
struct nvmlComputeInstance_st sim_compute_handles[SIM_MAX_COMPUTES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int initialised;
static int64_t since_ns;

#define HANG_STEP_NS 5000000

bool sim_privileged(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &header, data) != 0)
        return false;
    return data[CAP_SYS_ADMIN / 32].effective >> (CAP_SYS_ADMIN % 32) & 1;
}

bool sim_fault_active(uint32_t gpu, uint32_t kind, uint32_t xid, int64_t at_ns)
{
    for (uint32_t index = 0; index < sim_state->fault_count; index++) {
        const struct sim_fault *fault = &sim_state->faults[index];
        if (!__atomic_load_n(&fault->published, __ATOMIC_ACQUIRE) || fault->kind != kind ||
            (fault->gpu != gpu && fault->gpu != SIM_ANY) || (xid && fault->xid != xid))
            continue;
        if (fault->from_ns <= at_ns && at_ns < __atomic_load_n(&fault->until_ns, __ATOMIC_ACQUIRE))
            return true;
    }
    return false;
}

static bool to_hang(const char *call, uint32_t gpu, int64_t at_ns)
{
    for (uint32_t index = 0; index < sim_state->fault_count; index++) {
        const struct sim_fault *fault = &sim_state->faults[index];
        if (!__atomic_load_n(&fault->published, __ATOMIC_ACQUIRE) || fault->kind != SIM_FAULT_HANG ||
            (fault->gpu != gpu && fault->gpu != SIM_ANY) || (*fault->call && strcmp(fault->call, call) != 0))
            continue;
        if (fault->from_ns <= at_ns && at_ns < __atomic_load_n(&fault->until_ns, __ATOMIC_ACQUIRE))
            return true;
    }
    return false;
}

/* Whether the driver went away after this session began. */
static bool reloaded(int64_t now)
{
    for (uint32_t index = 0; index < sim_state->fault_count; index++) {
        const struct sim_fault *fault = &sim_state->faults[index];
        if (__atomic_load_n(&fault->published, __ATOMIC_ACQUIRE) && fault->kind == SIM_FAULT_DRIVER_RELOAD &&
            since_ns < fault->from_ns && fault->from_ns <= now)
            return true;
    }
    return false;
}

nvmlReturn_t sim_enter_library(const char *call)
{
    REQUIRE(__atomic_load_n(&initialised, __ATOMIC_ACQUIRE), NVML_ERROR_UNINITIALIZED);
    while (to_hang(call, SIM_ANY, sim_now()))
        nanosleep(&(struct timespec){.tv_nsec = HANG_STEP_NS}, NULL);
    int64_t now = sim_now();
    REQUIRE(!sim_fault_active(SIM_ANY, SIM_FAULT_DRIVER_RELOAD, 0, now), NVML_ERROR_DRIVER_NOT_LOADED);
    REQUIRE(!reloaded(now), NVML_ERROR_UNKNOWN);
    return NVML_SUCCESS;
}

nvmlReturn_t sim_enter_gpu(const char *call, uint32_t gpu, struct target *target)
{
    TRY(sim_enter_library(call));
    while (to_hang(call, gpu, sim_now()))
        nanosleep(&(struct timespec){.tv_nsec = HANG_STEP_NS}, NULL);
    sim_reap();
    *target = (struct target){
        .gpu = gpu,
        .compute = SIM_ANY,
        .now = sim_now(),
        .state = &sim_state->gpus[gpu],
        .product = sim_product(gpu),
    };
    REQUIRE(!sim_fault_active(gpu, SIM_FAULT_LOST, 0, target->now), NVML_ERROR_GPU_IS_LOST);
    return NVML_SUCCESS;
}

nvmlReturn_t sim_enter(const char *call, nvmlDevice_t device, struct target *target)
{
    REQUIRE(__atomic_load_n(&initialised, __ATOMIC_ACQUIRE), NVML_ERROR_UNINITIALIZED);
    if (device >= sim_gpu_handles && device < sim_gpu_handles + sim_state->gpu_count)
        return sim_enter_gpu(call, (uint32_t)(device - sim_gpu_handles), target);
    ARGUMENT(device >= sim_mig_handles && device < sim_mig_handles + SIM_MAX_COMPUTES);
    uint32_t compute = (uint32_t)(device - sim_mig_handles);
    ARGUMENT(sim_compute_alive(compute));
    TRY(sim_enter_gpu(call, sim_state->instances[sim_state->computes[compute].instance].gpu, target));
    target->compute = compute;
    return NVML_SUCCESS;
}

static nvmlReturn_t begin(unsigned int flags)
{
    if (sim_state_open() != 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    for (uint32_t gpu = 0; gpu < sim_state->gpu_count; gpu++)
        if (!sim_product(gpu)) {
            fprintf(stderr, "libnvidia-ml (simulated): knows no product `%s`; build library and state anew\n",
                    sim_state->gpus[gpu].product);
            return NVML_ERROR_UNKNOWN;
        }
    int64_t now = sim_now();
    REQUIRE(!sim_fault_active(SIM_ANY, SIM_FAULT_DRIVER_RELOAD, 0, now), NVML_ERROR_DRIVER_NOT_LOADED);
    if (!(flags & NVML_INIT_FLAG_NO_ATTACH) && sim_client_enter() != 0)
        return NVML_ERROR_INSUFFICIENT_RESOURCES;
    since_ns = now;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    pthread_mutex_lock(&lock);
    nvmlReturn_t result = initialised ? NVML_SUCCESS : begin(flags);
    if (result == NVML_SUCCESS)
        __atomic_store_n(&initialised, initialised + 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    return result;
}

nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlInit(void)
{
    return nvmlInitWithFlags(0);
}

nvmlReturn_t nvmlShutdown(void)
{
    pthread_mutex_lock(&lock);
    bool was = initialised > 0;
    if (initialised == 1)
        sim_client_leave();
    if (was)
        __atomic_store_n(&initialised, initialised - 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    return was ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t sim_copy_text(char *to, unsigned int length, const char *text)
{
    ARGUMENT(to);
    REQUIRE(strlen(text) < length, NVML_ERROR_INSUFFICIENT_SIZE);
    memcpy(to, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    TRY(sim_enter_library(__func__));
    return sim_copy_text(version, length, sim_state->driver_version);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    TRY(sim_enter_library(__func__));
    return sim_copy_text(version, length, sim_state->nvml_version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    ARGUMENT(version);
    TRY(sim_enter_library(__func__));
    *version = (int)sim_state->cuda_version;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return nvmlSystemGetCudaDriverVersion(version);
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    ARGUMENT(name && length);
    TRY(sim_enter_library(__func__));
    char path[32], found[4096];
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    FILE *file = fopen(path, "re");
    REQUIRE(file, NVML_ERROR_NOT_FOUND);
    size_t bytes = fread(found, 1, sizeof found - 1, file);
    fclose(file);
    found[bytes] = '\0';
    snprintf(name, length, "%s", found);
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    static const char *const texts[] = {
        [NVML_SUCCESS] = "Success",
        [NVML_ERROR_UNINITIALIZED] = "Uninitialized",
        [NVML_ERROR_INVALID_ARGUMENT] = "Invalid Argument",
        [NVML_ERROR_NOT_SUPPORTED] = "Not Supported",
        [NVML_ERROR_NO_PERMISSION] = "Insufficient Permissions",
        [NVML_ERROR_ALREADY_INITIALIZED] = "Already Initialized",
        [NVML_ERROR_NOT_FOUND] = "Not Found",
        [NVML_ERROR_INSUFFICIENT_SIZE] = "Insufficient Size",
        [NVML_ERROR_INSUFFICIENT_POWER] = "Insufficient External Power",
        [NVML_ERROR_DRIVER_NOT_LOADED] = "Driver Not Loaded",
        [NVML_ERROR_TIMEOUT] = "Timeout",
        [NVML_ERROR_IRQ_ISSUE] = "Interrupt Request Issue",
        [NVML_ERROR_LIBRARY_NOT_FOUND] = "NVML Shared Library Not Found",
        [NVML_ERROR_FUNCTION_NOT_FOUND] = "Function Not Found",
        [NVML_ERROR_CORRUPTED_INFOROM] = "Corrupted infoROM",
        [NVML_ERROR_GPU_IS_LOST] = "GPU is lost",
        [NVML_ERROR_RESET_REQUIRED] = "GPU requires restart",
        [NVML_ERROR_OPERATING_SYSTEM] = "The operating system has blocked the request.",
        [NVML_ERROR_LIB_RM_VERSION_MISMATCH] = "RM has detected an NVML/RM version mismatch.",
        [NVML_ERROR_IN_USE] = "In use by another client",
        [NVML_ERROR_MEMORY] = "Insufficient Memory",
        [NVML_ERROR_NO_DATA] = "No data",
        [NVML_ERROR_VGPU_ECC_NOT_SUPPORTED] = "The requested vgpu operation is not available on target device",
        [NVML_ERROR_INSUFFICIENT_RESOURCES] = "Insufficient Resources",
        [NVML_ERROR_ARGUMENT_VERSION_MISMATCH] = "The provided version is invalid/unsupported",
    };
    if ((size_t)result < sizeof texts / sizeof *texts && texts[result])
        return texts[result];
    return "Unknown Error";
}
