/* Which processes run, what each of them used lately, and over its life. */
#include <stdlib.h>

#include "sim.h"

/* How many sample periods of process utilization the driver keeps. */
#define KEPT_SAMPLES 100
#define ACCOUNTING_BUFFER 4000u
#define NONE 0xFFFFFFFFu

struct found_process {
    uint32_t pid, gi_id, ci_id;
    uint64_t bytes;
};

struct found {
    uint32_t count;
    struct found_process of[SIM_MAX_PROCESSES];
};

static bool concerns(const struct target *target, const struct sim_process *process)
{
    return process->gpu == target->gpu && (target->compute == SIM_ANY || process->compute == target->compute);
}

static void collect(const struct target *target, uint32_t kind, struct found *found)
{
    found->count = 0;
    for (uint32_t slot = 0; slot < sim_state->process_count; slot++) {
        const struct sim_process *process = &sim_state->processes[slot];
        if (!concerns(target, process) || process->kind != kind || !sim_process_runs(slot, target->now))
            continue;
        uint32_t pid = sim_process_pid(slot);
        if (!pid)
            continue; /* lives in a PID namespace that the caller does not see */
        struct found_process *entry = &found->of[found->count++];
        *entry = (struct found_process){pid, NONE, NONE, sim_process_bytes(slot, target->now)};
        if (process->compute != SIM_ANY) {
            entry->gi_id = sim_state->instances[sim_instance_of(process->compute)].gi_id;
            entry->ci_id = sim_state->computes[process->compute].ci_id;
        }
    }
}

/* Begin a list call: *found is to be freed by the caller where the result is NVML_SUCCESS. */
static nvmlReturn_t listed(const char *call, nvmlDevice_t device, uint32_t kind, bool mps, unsigned int *count,
                           const void *infos, struct found **found)
{
    ARGUMENT(count && (infos || !*count));
    struct target target;
    TRY(sim_enter(call, device, &target));
    AGGREGATE_NEEDS_PRIVILEGE;
    *found = malloc(sizeof **found);
    REQUIRE(*found, NVML_ERROR_MEMORY);
    (*found)->count = 0;
    if (!mps || target.state->sharing == SIM_SHARING_MPS)
        collect(&target, kind, *found);
    bool fits = (*found)->count <= *count;
    *count = (*found)->count;
    if (!fits) {
        free(*found);
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t list_v1(const char *call, nvmlDevice_t device, uint32_t kind, bool mps, unsigned int *count,
                            nvmlProcessInfo_v1_t *infos)
{
    struct found *found;
    TRY(listed(call, device, kind, mps, count, infos, &found));
    for (uint32_t index = 0; index < found->count; index++)
        infos[index] = (nvmlProcessInfo_v1_t){.pid = found->of[index].pid, .usedGpuMemory = found->of[index].bytes};
    free(found);
    return NVML_SUCCESS;
}

static nvmlReturn_t list_v2(const char *call, nvmlDevice_t device, uint32_t kind, bool mps, unsigned int *count,
                            nvmlProcessInfo_v2_t *infos)
{
    struct found *found;
    TRY(listed(call, device, kind, mps, count, infos, &found));
    for (uint32_t index = 0; index < found->count; index++)
        infos[index] = (nvmlProcessInfo_v2_t){
            .pid = found->of[index].pid,
            .usedGpuMemory = found->of[index].bytes,
            .gpuInstanceId = found->of[index].gi_id,
            .computeInstanceId = found->of[index].ci_id,
        };
    free(found);
    return NVML_SUCCESS;
}

/* Version 3 of the list calls has version 2's structure. */
#define LISTS(Name, kind, mps)                                                                                  \
    nvmlReturn_t Name(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v1_t *infos)                    \
    {                                                                                                           \
        return list_v1(#Name, device, kind, mps, count, infos);                                                 \
    }                                                                                                           \
    nvmlReturn_t Name##_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos)               \
    {                                                                                                           \
        return list_v2(#Name "_v2", device, kind, mps, count, infos);                                           \
    }                                                                                                           \
    nvmlReturn_t Name##_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)                  \
    {                                                                                                           \
        return list_v2(#Name "_v3", device, kind, mps, count, infos);                                           \
    }

LISTS(nvmlDeviceGetComputeRunningProcesses, SIM_KIND_COMPUTE, false)
LISTS(nvmlDeviceGetGraphicsRunningProcesses, SIM_KIND_GRAPHICS, false)
LISTS(nvmlDeviceGetMPSComputeRunningProcesses, SIM_KIND_COMPUTE, true)

/* Every process of a GPU with its integrals between two times; to be freed by the caller. */
static struct sim_shares *shares_of(const struct target *target, int64_t from_ns, int64_t until_ns)
{
    struct sim_shares *shares = malloc(sizeof *shares);
    struct sim_sums sums;
    if (shares)
        sim_parent_sums(target->gpu, target->compute, from_ns, until_ns, &sums, shares);
    return shares;
}

struct used {
    uint64_t time_us;
    double seconds;
    struct sim_shares *shares;
};

/* Averages since the caller's last sample; drops processes that did nothing. */
static nvmlReturn_t recently_used(const struct target *target, uint64_t seen_us, struct used *used)
{
    int64_t end = target->now / SIM_SAMPLE_NS * SIM_SAMPLE_NS;
    int64_t oldest = end - KEPT_SAMPLES * SIM_SAMPLE_NS;
    int64_t seen = seen_us > sim_utc_us(0) ? (int64_t)(seen_us - sim_utc_us(0)) * 1000 : 0;
    int64_t from = seen > oldest ? seen : oldest;
    if (from < 0)
        from = 0;
    REQUIRE(from < end, NVML_ERROR_NOT_FOUND);
    used->shares = shares_of(target, from, end);
    REQUIRE(used->shares, NVML_ERROR_MEMORY);
    used->time_us = sim_utc_us(end);
    used->seconds = (double)(end - from) / (double)SIM_SECOND;
    uint32_t kept = 0;
    for (uint32_t index = 0; index < used->shares->count; index++) {
        const struct sim_share *share = &used->shares->of[index];
        if ((share->duty > 0.0 || share->enc > 0.0 || share->dec > 0.0) && sim_process_pid(share->slot))
            used->shares->of[kept++] = *share;
    }
    used->shares->count = kept;
    if (!kept) {
        free(used->shares);
        return NVML_ERROR_NOT_FOUND;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                             unsigned int *count, unsigned long long seen_us)
{
    ARGUMENT(count);
    ENTER(device);
    NOT_UNDER_MIG;
    struct used used;
    TRY(recently_used(&target, seen_us, &used));
    bool fits = utilization && used.shares->count <= *count;
    *count = used.shares->count;
    for (uint32_t index = 0; fits && index < used.shares->count; index++)
        utilization[index] = (nvmlProcessUtilizationSample_t){
            .pid = sim_process_pid(used.shares->of[index].slot),
            .timeStamp = used.time_us,
            .smUtil = sim_percent(used.shares->of[index].duty / used.seconds),
            .encUtil = sim_percent(used.shares->of[index].enc / used.seconds),
            .decUtil = sim_percent(used.shares->of[index].dec / used.seconds),
        };
    free(used.shares);
    return fits ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device, nvmlProcessesUtilizationInfo_t *info)
{
    ARGUMENT(info);
    REQUIRE(info->version == nvmlProcessesUtilizationInfo_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    ENTER(device);
    NOT_UNDER_MIG;
    struct used used;
    TRY(recently_used(&target, info->lastSeenTimeStamp, &used));
    bool fits = info->procUtilArray && used.shares->count <= info->processSamplesCount;
    info->processSamplesCount = used.shares->count;
    for (uint32_t index = 0; fits && index < used.shares->count; index++)
        info->procUtilArray[index] = (nvmlProcessUtilizationInfo_v1_t){
            .pid = sim_process_pid(used.shares->of[index].slot),
            .timeStamp = used.time_us,
            .smUtil = sim_percent(used.shares->of[index].duty / used.seconds),
            .encUtil = sim_percent(used.shares->of[index].enc / used.seconds),
            .decUtil = sim_percent(used.shares->of[index].dec / used.seconds),
        };
    free(used.shares);
    return fits ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

nvmlReturn_t nvmlDeviceGetAccountingMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
    ARGUMENT(mode);
    ENTER(device);
    NOT_UNDER_MIG;
    *mode = target.state->accounting_since_ns >= 0 ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetAccountingMode(nvmlDevice_t device, nvmlEnableState_t mode)
{
    ARGUMENT(mode == NVML_FEATURE_ENABLED || mode == NVML_FEATURE_DISABLED);
    ENTER(device);
    NOT_UNDER_MIG;
    REQUIRE(sim_privileged(), NVML_ERROR_NO_PERMISSION);
    if (mode == NVML_FEATURE_DISABLED)
        __atomic_store_n(&target.state->accounting_since_ns, -1, __ATOMIC_RELEASE);
    else if (target.state->accounting_since_ns < 0)
        __atomic_store_n(&target.state->accounting_since_ns, target.now, __ATOMIC_RELEASE);
    return NVML_SUCCESS;
}

/* Accounting knows the processes that began while it was on, until their entries are cleared. */
static bool accounted(const struct target *target, uint32_t slot)
{
    const struct sim_process *process = &sim_state->processes[slot];
    return concerns(target, process) && process->published && process->from_ns <= target->now &&
           target->state->accounting_since_ns >= 0 && process->from_ns >= target->state->accounting_since_ns &&
           (sim_process_runs(slot, target->now) || process->until_ns > target->state->accounting_cleared_ns);
}

nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t device, unsigned int *count, unsigned int *pids)
{
    ARGUMENT(count && (pids || !*count));
    ENTER(device);
    NOT_UNDER_MIG;
    REQUIRE(target.state->accounting_since_ns >= 0, NVML_ERROR_NOT_SUPPORTED);
    unsigned int found = 0;
    for (uint32_t slot = 0; slot < sim_state->process_count; slot++) {
        if (!accounted(&target, slot) || !sim_process_pid(slot))
            continue;
        if (found < *count)
            pids[found] = sim_process_pid(slot);
        found++;
    }
    bool fits = found <= *count;
    *count = found;
    return fits ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
}

nvmlReturn_t nvmlDeviceGetAccountingStats(nvmlDevice_t device, unsigned int pid, nvmlAccountingStats_t *stats)
{
    ARGUMENT(stats);
    ENTER(device);
    NOT_UNDER_MIG;
    REQUIRE(target.state->accounting_since_ns >= 0, NVML_ERROR_NOT_SUPPORTED);
    for (uint32_t slot = sim_state->process_count; slot-- > 0;) {
        const struct sim_process *process = &sim_state->processes[slot];
        if (!accounted(&target, slot) || sim_process_pid(slot) != pid)
            continue;
        bool runs = sim_process_runs(slot, target.now);
        int64_t end = runs ? target.now : process->until_ns;
        struct sim_shares *shares = shares_of(&target, process->from_ns, end);
        REQUIRE(shares, NVML_ERROR_MEMORY);
        double seconds = (double)(end - process->from_ns) / (double)SIM_SECOND;
        *stats = (nvmlAccountingStats_t){
            .time = runs ? 0 : (unsigned long long)(seconds * 1000.0 + 0.5),
            .startTime = sim_utc_us(process->from_ns),
            .isRunning = runs,
        };
        for (uint32_t index = 0; index < shares->count; index++)
            if (shares->of[index].slot == slot && seconds > 0.0) {
                stats->gpuUtilization = sim_percent(shares->of[index].duty / seconds);
                stats->maxMemoryUsage = (unsigned long long)shares->of[index].peak;
            }
        free(shares);
        return NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetAccountingBufferSize(nvmlDevice_t device, unsigned int *size)
{
    ARGUMENT(size);
    ENTER(device);
    NOT_UNDER_MIG;
    *size = ACCOUNTING_BUFFER;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceClearAccountingPids(nvmlDevice_t device)
{
    ENTER(device);
    NOT_UNDER_MIG;
    REQUIRE(sim_privileged(), NVML_ERROR_NO_PERMISSION);
    __atomic_store_n(&target.state->accounting_cleared_ns, target.now, __ATOMIC_RELEASE);
    return NVML_SUCCESS;
}
