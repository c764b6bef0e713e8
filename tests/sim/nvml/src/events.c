/* Events: XIDs, each delivered once to every set that was there when it happened. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"

#define STEP_NS 5000000
#define XID_OFF_THE_BUS 79u
#define SET_MARK 0x45565453u
#define NONE 0xFFFFFFFFu

struct nvmlEventSet_st {
    uint32_t mark;
    bool registered[SIM_MAX_GPUS];
    int64_t since[SIM_MAX_GPUS];
    bool delivered[SIM_MAX_FAULTS];
};

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    ARGUMENT(set);
    TRY(sim_enter_library(__func__));
    *set = calloc(1, sizeof **set);
    REQUIRE(*set, NVML_ERROR_MEMORY);
    (*set)->mark = SET_MARK;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    ARGUMENT(set && set->mark == SET_MARK);
    set->mark = 0;
    free(set);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    ARGUMENT(types);
    ENTER(device);
    WHOLE_GPU;
    *types = nvmlEventTypeXidCriticalError;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
    ARGUMENT(set && set->mark == SET_MARK);
    ENTER(device);
    WHOLE_GPU;
    REQUIRE((types & ~(unsigned long long)nvmlEventTypeXidCriticalError) == 0, NVML_ERROR_NOT_SUPPORTED);
    if (types && !set->registered[target.gpu]) {
        set->registered[target.gpu] = true;
        set->since[target.gpu] = target.now;
    }
    return NVML_SUCCESS;
}

static bool take(nvmlEventSet_t set, int64_t now, nvmlEventData_t *data)
{
    for (uint32_t index = 0; index < sim_state->fault_count; index++) {
        const struct sim_fault *fault = &sim_state->faults[index];
        if (!__atomic_load_n(&fault->published, __ATOMIC_ACQUIRE) || set->delivered[index] ||
            fault->gpu >= sim_state->gpu_count || !set->registered[fault->gpu])
            continue;
        uint32_t xid = fault->kind == SIM_FAULT_XID ? fault->xid : fault->kind == SIM_FAULT_LOST ? XID_OFF_THE_BUS : 0;
        if (!xid || fault->from_ns <= set->since[fault->gpu] || fault->from_ns > now)
            continue;
        set->delivered[index] = true;
        *data = (nvmlEventData_t){
            .device = &sim_gpu_handles[fault->gpu],
            .eventType = nvmlEventTypeXidCriticalError,
            .eventData = xid,
            .gpuInstanceId = NONE,
            .computeInstanceId = NONE,
        };
        return true;
    }
    return false;
}

static bool any_lost(nvmlEventSet_t set, int64_t now)
{
    for (uint32_t gpu = 0; gpu < sim_state->gpu_count; gpu++)
        if (set->registered[gpu] && sim_fault_active(gpu, SIM_FAULT_LOST, 0, now))
            return true;
    return false;
}

static int64_t real_now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * SIM_SECOND + at.tv_nsec;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms)
{
    ARGUMENT(set && set->mark == SET_MARK && data);
    int64_t end = real_now() + (int64_t)timeout_ms * 1000000;
    for (;;) {
        TRY(sim_enter_library(__func__));
        int64_t now = sim_now();
        if (take(set, now, data))
            return NVML_SUCCESS;
        REQUIRE(!any_lost(set, now), NVML_ERROR_GPU_IS_LOST);
        REQUIRE(real_now() < end, NVML_ERROR_TIMEOUT);
        nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
    }
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout_ms)
{
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}
