/* MIG mode, GPU instance profiles and where they may lie. */
#include "mig.h"

#include <stdio.h>
#include <string.h>

#define MIG_NAME "MIG %s"

bool sim_instance_alive(uint32_t instance)
{
    const struct sim_instance *found = &sim_state->instances[instance];
    return __atomic_load_n(&found->published, __ATOMIC_ACQUIRE) &&
           __atomic_load_n(&found->until_ns, __ATOMIC_ACQUIRE) == SIM_FOREVER;
}

uint32_t sim_instance_of(uint32_t compute)
{
    return sim_state->computes[compute].instance;
}

bool sim_has_processes(uint32_t gpu, uint32_t compute, int64_t now)
{
    for (uint32_t slot = 0; slot < sim_state->process_count; slot++) {
        const struct sim_process *process = &sim_state->processes[slot];
        if (process->gpu == gpu && (compute == SIM_ANY || process->compute == compute) && sim_process_runs(slot, now))
            return true;
    }
    return false;
}

static bool ever_used(uint32_t compute)
{
    for (uint32_t slot = 0; slot < sim_state->process_count; slot++)
        if (sim_state->processes[slot].compute == compute)
            return true;
    return false;
}

/* Forget the dead compute instances of a dead GPU instance; false where one of them has a history. */
static bool forget_computes(uint32_t instance)
{
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_state->computes[index].published && sim_instance_of(index) == instance &&
            (sim_compute_alive(index) || ever_used(index)))
            return false;
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_instance_of(index) == instance)
            __atomic_store_n(&sim_state->computes[index].published, 0, __ATOMIC_RELEASE);
    return true;
}

uint32_t sim_free_instance(void)
{
    for (uint32_t index = 0; index < sim_state->instance_count; index++)
        if (!sim_instance_alive(index) && forget_computes(index)) {
            __atomic_store_n(&sim_state->instances[index].published, 0, __ATOMIC_RELEASE);
            return index;
        }
    return sim_state->instance_count < SIM_MAX_INSTANCES ? sim_state->instance_count : SIM_ANY;
}

uint32_t sim_free_compute(void)
{
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (!sim_state->computes[index].published)
            return index;
    return sim_state->compute_count < SIM_MAX_COMPUTES ? sim_state->compute_count : SIM_ANY;
}

static bool has_instances(uint32_t gpu)
{
    for (uint32_t index = 0; index < sim_state->instance_count; index++)
        if (sim_instance_alive(index) && sim_state->instances[index].gpu == gpu)
            return true;
    return false;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
    ARGUMENT(current && pending);
    ENTER(device);
    MIG_CAPABLE;
    *current = target.state->mig_mode;
    *pending = target.state->mig_pending;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetMigMode(nvmlDevice_t device, unsigned int mode, nvmlReturn_t *activation)
{
    ARGUMENT(activation && mode <= NVML_DEVICE_MIG_ENABLE);
    ENTER(device);
    MIG_CAPABLE;
    PRIVILEGED;
    REQUIRE(sim_write_begin() == 0, NVML_ERROR_OPERATING_SYSTEM);
    *activation = NVML_SUCCESS;
    __atomic_store_n(&target.state->mig_pending, mode, __ATOMIC_RELEASE);
    if (mode != target.state->mig_mode) {
        bool busy = sim_other_clients() || sim_has_processes(target.gpu, SIM_ANY, target.now);
        if (busy || has_instances(target.gpu))
            *activation = NVML_ERROR_IN_USE;
        else
            __atomic_store_n(&target.state->mig_mode, mode, __ATOMIC_RELEASE);
    }
    sim_write_end();
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    ARGUMENT(count);
    ENTER(device);
    WHOLE_GPU;
    *count = target.state->mig_mode ? target.product->compute_slices : 0;
    return NVML_SUCCESS;
}

static nvmlReturn_t profile_v1(const struct sim_profile *profile, nvmlGpuInstanceProfileInfo_t *info)
{
    *info = (nvmlGpuInstanceProfileInfo_t){
        .id = profile->id,
        .sliceCount = profile->slices,
        .instanceCount = profile->max_count,
        .multiprocessorCount = profile->sms,
        .copyEngineCount = profile->copy,
        .decoderCount = profile->decoder,
        .encoderCount = profile->encoder,
        .jpegCount = profile->jpeg,
        .ofaCount = profile->ofa,
        .memorySizeMB = profile->memory_mib,
    };
    return NVML_SUCCESS;
}

static nvmlReturn_t profile_v2(const struct sim_profile *profile, nvmlGpuInstanceProfileInfo_v2_t *info)
{
    *info = (nvmlGpuInstanceProfileInfo_v2_t){
        .version = nvmlGpuInstanceProfileInfo_v2,
        .id = profile->id,
        .sliceCount = profile->slices,
        .instanceCount = profile->max_count,
        .multiprocessorCount = profile->sms,
        .copyEngineCount = profile->copy,
        .decoderCount = profile->decoder,
        .encoderCount = profile->encoder,
        .jpegCount = profile->jpeg,
        .ofaCount = profile->ofa,
        .memorySizeMB = profile->memory_mib,
    };
    snprintf(info->name, sizeof info->name, MIG_NAME, profile->name);
    return NVML_SUCCESS;
}

static nvmlReturn_t profile_v3(const struct sim_profile *profile, nvmlGpuInstanceProfileInfo_v3_t *info)
{
    *info = (nvmlGpuInstanceProfileInfo_v3_t){
        .version = nvmlGpuInstanceProfileInfo_v3,
        .id = profile->id,
        .sliceCount = profile->slices,
        .instanceCount = profile->max_count,
        .multiprocessorCount = profile->sms,
        .copyEngineCount = profile->copy,
        .decoderCount = profile->decoder,
        .encoderCount = profile->encoder,
        .jpegCount = profile->jpeg,
        .ofaCount = profile->ofa,
        .memorySizeMB = profile->memory_mib,
        .capabilities = profile->gfx ? NVML_GPU_INSTANCE_PROFILE_CAPS_GFX : 0,
    };
    snprintf(info->name, sizeof info->name, MIG_NAME, profile->name);
    return NVML_SUCCESS;
}

static nvmlReturn_t profile_versioned(const struct sim_profile *profile, nvmlGpuInstanceProfileInfo_v2_t *info)
{
    if (info->version == nvmlGpuInstanceProfileInfo_v2)
        return profile_v2(profile, info);
    ARGUMENT(info->version == nvmlGpuInstanceProfileInfo_v3);
    return profile_v3(profile, (nvmlGpuInstanceProfileInfo_v3_t *)(void *)info);
}

static const struct sim_profile *by_number(const struct sim_product *product, unsigned int number)
{
    for (uint32_t index = 0; index < product->profile_count; index++)
        if (product->profiles[index].nvml_profile == number)
            return &product->profiles[index];
    return NULL;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int number,
                                                 nvmlGpuInstanceProfileInfo_t *info)
{
    ARGUMENT(info);
    ENTER(device);
    MIG_CAPABLE;
    ARGUMENT(number < NVML_GPU_INSTANCE_PROFILE_COUNT);
    const struct sim_profile *profile = by_number(target.product, number);
    REQUIRE(profile, NVML_ERROR_NOT_SUPPORTED);
    return profile_v1(profile, info);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned int number,
                                                  nvmlGpuInstanceProfileInfo_v2_t *info)
{
    ARGUMENT(info);
    ENTER(device);
    MIG_CAPABLE;
    ARGUMENT(number < NVML_GPU_INSTANCE_PROFILE_COUNT);
    const struct sim_profile *profile = by_number(target.product, number);
    REQUIRE(profile, NVML_ERROR_NOT_SUPPORTED);
    return profile_versioned(profile, info);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned int id,
                                                      nvmlGpuInstanceProfileInfo_v2_t *info)
{
    ARGUMENT(info);
    ENTER(device);
    MIG_CAPABLE;
    const struct sim_profile *profile = sim_profile(target.gpu, id);
    REQUIRE(profile, NVML_ERROR_NOT_SUPPORTED);
    return profile_versioned(profile, info);
}

nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned int id,
                                                           nvmlGpuInstancePlacement_t *placements, unsigned int *count)
{
    ARGUMENT(count);
    ENTER(device);
    MIG_CAPABLE;
    PRIVILEGED;
    const struct sim_profile *profile = sim_profile(target.gpu, id);
    REQUIRE(profile, NVML_ERROR_NOT_SUPPORTED);
    unsigned int room = *count;
    *count = profile->start_count;
    if (!placements)
        return NVML_SUCCESS;
    REQUIRE(room >= profile->start_count, NVML_ERROR_INSUFFICIENT_SIZE);
    for (uint32_t index = 0; index < profile->start_count; index++)
        placements[index] = (nvmlGpuInstancePlacement_t){profile->starts[index], profile->size};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements(nvmlDevice_t device, unsigned int id,
                                                        nvmlGpuInstancePlacement_t *placements, unsigned int *count)
{
    return nvmlDeviceGetGpuInstancePossiblePlacements_v2(device, id, placements, count);
}

struct taken sim_taken(uint32_t gpu, uint32_t profile_id)
{
    struct taken taken = {0};
    for (uint32_t index = 0; index < sim_state->instance_count; index++) {
        const struct sim_instance *instance = &sim_state->instances[index];
        if (!sim_instance_alive(index) || instance->gpu != gpu)
            continue;
        const struct sim_profile *profile = sim_profile(gpu, instance->profile_id);
        taken.units |= ((1u << instance->size) - 1u) << instance->start;
        taken.of_profile += instance->profile_id == profile_id;
        taken.media += profile && profile->media;
    }
    return taken;
}

bool sim_fits(const struct taken *taken, const struct sim_profile *profile, uint32_t start)
{
    uint32_t units = ((1u << profile->size) - 1u) << start;
    return !(taken->units & units) && taken->of_profile < profile->max_count && !(profile->media && taken->media);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned int id, unsigned int *count)
{
    ARGUMENT(count);
    ENTER(device);
    MIG_CAPABLE;
    MIG_ON;
    PRIVILEGED;
    const struct sim_profile *profile = sim_profile(target.gpu, id);
    REQUIRE(profile, NVML_ERROR_NOT_SUPPORTED);
    struct taken taken = sim_taken(target.gpu, id);
    unsigned int found = 0;
    for (uint32_t index = 0; index < profile->start_count; index++)
        if (sim_fits(&taken, profile, profile->starts[index])) {
            taken.units |= ((1u << profile->size) - 1u) << profile->starts[index];
            taken.of_profile++;
            taken.media += profile->media;
            found++;
        }
    *count = found;
    return NVML_SUCCESS;
}
