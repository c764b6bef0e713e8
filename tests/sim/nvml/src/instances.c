/* GPU instances: creating, finding and destroying them. */
#include "mig.h"

nvmlReturn_t sim_enter_instance(const char *call, nvmlGpuInstance_t handle, struct gi_target *target)
{
    TRY(sim_enter_library(call));
    ARGUMENT(handle >= sim_instance_handles && handle < sim_instance_handles + SIM_MAX_INSTANCES);
    target->index = (uint32_t)(handle - sim_instance_handles);
    ARGUMENT(target->index < sim_state->instance_count && sim_instance_alive(target->index));
    target->instance = &sim_state->instances[target->index];
    target->profile = sim_profile(target->instance->gpu, target->instance->profile_id);
    return sim_enter_gpu(call, target->instance->gpu, &target->on);
}

/* How many more placements, of any profile, would be free after this one. */
static unsigned int left_after(const struct sim_product *product, struct taken taken, const struct sim_profile *profile,
                               uint32_t start)
{
    unsigned int left = 0;
    taken.units |= ((1u << profile->size) - 1u) << start;
    for (uint32_t index = 0; index < product->profile_count; index++) {
        const struct sim_profile *other = &product->profiles[index];
        for (uint32_t at = 0; at < other->start_count; at++)
            left += !(taken.units & ((1u << other->size) - 1u) << other->starts[at]);
    }
    return left;
}

/* The driver's choice where the caller names no placement: the one that leaves most others free, then the first. */
static bool choose(const struct sim_product *product, const struct taken *taken, const struct sim_profile *profile,
                   uint32_t *start)
{
    bool found = false;
    unsigned int best = 0;
    for (uint32_t index = 0; index < profile->start_count; index++) {
        uint32_t at = profile->starts[index];
        if (!sim_fits(taken, profile, at))
            continue;
        unsigned int left = left_after(product, *taken, profile, at);
        if (found && left <= best)
            continue;
        found = true;
        best = left;
        *start = at;
    }
    return found;
}

/* Ids by place: the whole axis is 0, its halves 1 and 2, and so on down. */
static uint32_t gi_id(const struct sim_product *product, const struct sim_profile *profile, uint32_t start)
{
    return product->axis_units / profile->size - 1 + start / profile->size;
}

static nvmlReturn_t create(const struct target *target, const struct sim_profile *profile, const uint32_t *wanted,
                           nvmlGpuInstance_t *handle)
{
    struct taken taken = sim_taken(target->gpu, profile->id);
    uint32_t start = wanted ? *wanted : 0;
    bool fits = wanted ? sim_fits(&taken, profile, start) : choose(target->product, &taken, profile, &start);
    uint32_t index = fits ? sim_free_instance() : SIM_ANY;
    REQUIRE(index != SIM_ANY, NVML_ERROR_INSUFFICIENT_RESOURCES);
    struct sim_instance *instance = &sim_state->instances[index];
    *instance = (struct sim_instance){
        .created_ns = target->now,
        .until_ns = SIM_FOREVER,
        .gpu = target->gpu,
        .gi_id = gi_id(target->product, profile, start),
        .profile_id = profile->id,
        .start = start,
        .size = profile->size,
    };
    if (index == sim_state->instance_count)
        sim_state->instance_count = index + 1;
    __atomic_store_n(&instance->published, 1, __ATOMIC_RELEASE);
    *handle = &sim_instance_handles[index];
    return NVML_SUCCESS;
}

static nvmlReturn_t create_locked(const char *call, nvmlDevice_t device, unsigned int id,
                                  const nvmlGpuInstancePlacement_t *placement, nvmlGpuInstance_t *handle)
{
    ARGUMENT(handle);
    struct target target;
    TRY(sim_enter(call, device, &target));
    MIG_CAPABLE;
    MIG_ON;
    PRIVILEGED;
    const struct sim_profile *profile = sim_profile(target.gpu, id);
    ARGUMENT(profile);
    bool legal = !placement;
    for (uint32_t index = 0; placement && index < profile->start_count; index++)
        legal = legal || (profile->starts[index] == placement->start && profile->size == placement->size);
    ARGUMENT(legal);
    REQUIRE(sim_write_begin() == 0, NVML_ERROR_OPERATING_SYSTEM);
    nvmlReturn_t result = create(&target, profile, placement ? &placement->start : NULL, handle);
    sim_write_end();
    return result;
}

nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *handle)
{
    return create_locked(__func__, device, id, NULL, handle);
}

nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned int id,
                                                      const nvmlGpuInstancePlacement_t *placement,
                                                      nvmlGpuInstance_t *handle)
{
    ARGUMENT(placement);
    return create_locked(__func__, device, id, placement, handle);
}

nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t handle)
{
    struct gi_target target;
    TRY(sim_enter_instance(__func__, handle, &target));
    PRIVILEGED;
    REQUIRE(sim_write_begin() == 0, NVML_ERROR_OPERATING_SYSTEM);
    nvmlReturn_t result = sim_instance_alive(target.index) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_compute_alive(index) && sim_instance_of(index) == target.index)
            result = NVML_ERROR_IN_USE;
    if (result == NVML_SUCCESS)
        __atomic_store_n(&sim_state->instances[target.index].until_ns, sim_now(), __ATOMIC_RELEASE);
    sim_write_end();
    return result;
}

nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *handles,
                                       unsigned int *count)
{
    ARGUMENT(handles && count);
    ENTER(device);
    MIG_CAPABLE;
    MIG_ON;
    PRIVILEGED;
    REQUIRE(sim_profile(target.gpu, id), NVML_ERROR_NOT_SUPPORTED);
    *count = 0;
    for (uint32_t index = 0; index < sim_state->instance_count; index++) {
        const struct sim_instance *instance = &sim_state->instances[index];
        if (sim_instance_alive(index) && instance->gpu == target.gpu && instance->profile_id == id)
            handles[(*count)++] = &sim_instance_handles[index];
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *handle)
{
    ARGUMENT(handle);
    ENTER(device);
    MIG_CAPABLE;
    MIG_ON;
    PRIVILEGED;
    for (uint32_t index = 0; index < sim_state->instance_count; index++) {
        const struct sim_instance *instance = &sim_state->instances[index];
        if (sim_instance_alive(index) && instance->gpu == target.gpu && instance->gi_id == id) {
            *handle = &sim_instance_handles[index];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t handle, nvmlGpuInstanceInfo_t *info)
{
    ARGUMENT(info);
    struct gi_target target;
    TRY(sim_enter_instance(__func__, handle, &target));
    *info = (nvmlGpuInstanceInfo_t){
        .device = &sim_gpu_handles[target.instance->gpu],
        .id = target.instance->gi_id,
        .profileId = target.instance->profile_id,
        .placement = {target.instance->start, target.instance->size},
    };
    return NVML_SUCCESS;
}
