/* MIG devices: handles that stand for compute instances. */
#include "mig.h"

static bool before(uint32_t one, uint32_t other)
{
    const struct sim_compute *a = &sim_state->computes[one], *b = &sim_state->computes[other];
    uint32_t gi_a = sim_state->instances[a->instance].gi_id, gi_b = sim_state->instances[b->instance].gi_id;
    return gi_a != gi_b ? gi_a < gi_b : a->ci_id < b->ci_id;
}

uint32_t sim_list_computes(uint32_t gpu, uint32_t *indexes, uint32_t most)
{
    uint32_t count = 0;
    for (uint32_t index = 0; index < sim_state->compute_count && count < most; index++) {
        if (!sim_compute_alive(index) || sim_state->instances[sim_instance_of(index)].gpu != gpu)
            continue;
        uint32_t at = count++;
        for (; at > 0 && before(index, indexes[at - 1]); at--)
            indexes[at] = indexes[at - 1];
        indexes[at] = index;
    }
    return count;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig)
{
    ARGUMENT(is_mig);
    ENTER(device);
    *is_mig = target.compute != SIM_ANY;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    ARGUMENT(id);
    ENTER(device);
    REQUIRE(target.compute != SIM_ANY, NVML_ERROR_NOT_SUPPORTED);
    *id = sim_state->instances[sim_instance_of(target.compute)].gi_id;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    ARGUMENT(id);
    ENTER(device);
    REQUIRE(target.compute != SIM_ANY, NVML_ERROR_NOT_SUPPORTED);
    *id = sim_state->computes[target.compute].ci_id;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig)
{
    ARGUMENT(mig);
    ENTER(device);
    MIG_CAPABLE;
    MIG_ON;
    ARGUMENT(index < target.product->compute_slices);
    uint32_t computes[SIM_MAX_PROFILES];
    uint32_t count = sim_list_computes(target.gpu, computes, SIM_MAX_PROFILES);
    REQUIRE(index < count, NVML_ERROR_NOT_FOUND);
    *mig = &sim_mig_handles[computes[index]];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
    ARGUMENT(device);
    ENTER(mig);
    ARGUMENT(target.compute != SIM_ANY);
    *device = &sim_gpu_handles[target.gpu];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    ARGUMENT(attributes);
    ENTER(device);
    REQUIRE(target.compute != SIM_ANY, NVML_ERROR_NOT_SUPPORTED);
    const struct sim_compute *compute = &sim_state->computes[target.compute];
    const struct sim_profile *profile = sim_profile(target.gpu, sim_state->instances[compute->instance].profile_id);
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = profile->sms * compute->slices / profile->slices,
        .sharedCopyEngineCount = profile->copy,
        .sharedDecoderCount = profile->decoder,
        .sharedEncoderCount = profile->encoder,
        .sharedJpegCount = profile->jpeg,
        .sharedOfaCount = profile->ofa,
        .gpuInstanceSliceCount = profile->slices,
        .computeInstanceSliceCount = compute->slices,
        .memorySizeMB = profile->memory_mib,
    };
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
{
    return nvmlDeviceGetAttributes_v2(device, attributes);
}
