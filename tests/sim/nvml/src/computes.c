/* Compute instances: profiles, creating, finding and destroying them. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "mig.h"

/* Compute slices by NVML_COMPUTE_INSTANCE_PROFILE_*; the ids that NVML gives them are the same numbers. */
static const uint32_t SLICES[] = {1, 2, 3, 4, 7};
#define PROFILES (sizeof SLICES / sizeof *SLICES)

static uint32_t slices_of(const struct gi_target *target, unsigned int profile)
{
    return profile < PROFILES && SLICES[profile] <= target->profile->slices ? SLICES[profile] : 0;
}

static uint32_t sms(const struct gi_target *target, uint32_t slices)
{
    return target->profile->sms * slices / target->profile->slices;
}

/* Legal first slices: an instance of three lies as one of four does. */
static bool legal_start(const struct gi_target *target, uint32_t slices, uint32_t start)
{
    uint32_t step = slices == 3 ? 4 : slices == 7 ? 8 : slices;
    return start % step == 0 && start + slices <= target->profile->slices;
}

static uint32_t possible(const struct gi_target *target, uint32_t slices)
{
    uint32_t count = 0;
    for (uint32_t start = 0; start < target->profile->slices; start++)
        count += legal_start(target, slices, start);
    return count;
}

static uint32_t taken_slices(uint32_t instance)
{
    uint32_t taken = 0;
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_compute_alive(index) && sim_instance_of(index) == instance)
            taken |= ((1u << sim_state->computes[index].slices) - 1u) << sim_state->computes[index].start;
    return taken;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t handle, unsigned int profile,
                                                          unsigned int engines, nvmlComputeInstanceProfileInfo_t *info)
{
    ARGUMENT(info && profile < NVML_COMPUTE_INSTANCE_PROFILE_COUNT &&
             engines < NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_COUNT);
    struct gi_target target;
    TRY(sim_enter_instance(__func__, handle, &target));
    uint32_t slices = slices_of(&target, profile);
    REQUIRE(slices, NVML_ERROR_NOT_SUPPORTED);
    *info = (nvmlComputeInstanceProfileInfo_t){
        .id = profile,
        .sliceCount = slices,
        .instanceCount = possible(&target, slices),
        .multiprocessorCount = sms(&target, slices),
        .sharedCopyEngineCount = target.profile->copy,
        .sharedDecoderCount = target.profile->decoder,
        .sharedEncoderCount = target.profile->encoder,
        .sharedJpegCount = target.profile->jpeg,
        .sharedOfaCount = target.profile->ofa,
    };
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t handle, unsigned int profile,
                                                           unsigned int engines,
                                                           nvmlComputeInstanceProfileInfo_v2_t *info)
{
    ARGUMENT(info && (info->version == nvmlComputeInstanceProfileInfo_v2 ||
                      info->version == nvmlComputeInstanceProfileInfo_v3));
    bool third = info->version == nvmlComputeInstanceProfileInfo_v3;
    nvmlComputeInstanceProfileInfo_t found;
    struct gi_target target;
    TRY(sim_enter_instance(__func__, handle, &target));
    TRY(nvmlGpuInstanceGetComputeInstanceProfileInfo(handle, profile, engines, &found));
    /* Version 3 is version 2 with capabilities after it. */
    info->id = found.id;
    info->sliceCount = found.sliceCount;
    info->instanceCount = found.instanceCount;
    info->multiprocessorCount = found.multiprocessorCount;
    info->sharedCopyEngineCount = found.sharedCopyEngineCount;
    info->sharedDecoderCount = found.sharedDecoderCount;
    info->sharedEncoderCount = found.sharedEncoderCount;
    info->sharedJpegCount = found.sharedJpegCount;
    info->sharedOfaCount = found.sharedOfaCount;
    if (found.sliceCount == target.profile->slices)
        snprintf(info->name, sizeof info->name, "MIG %s", target.profile->name);
    else
        snprintf(info->name, sizeof info->name, "MIG %uc.%s", found.sliceCount, target.profile->name);
    if (third)
        ((nvmlComputeInstanceProfileInfo_v3_t *)(void *)info)->capabilities =
            target.profile->gfx ? NVML_COMPUTE_INSTANCE_PROFILE_CAPS_GFX : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t handle, unsigned int profile,
                                                                unsigned int *count)
{
    ARGUMENT(count);
    struct gi_target target;
    TRY(sim_enter_instance(__func__, handle, &target));
    PRIVILEGED;
    uint32_t slices = slices_of(&target, profile), taken = taken_slices(target.index);
    REQUIRE(slices, NVML_ERROR_NOT_SUPPORTED);
    *count = 0;
    for (uint32_t start = 0; start < target.profile->slices; start++)
        *count += legal_start(&target, slices, start) && !(taken & ((1u << slices) - 1u) << start);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstancePossiblePlacements(nvmlGpuInstance_t handle, unsigned int profile,
                                                                 nvmlComputeInstancePlacement_t *placements,
                                                                 unsigned int *count)
{
    ARGUMENT(count);
    struct gi_target target;
    TRY(sim_enter_instance(__func__, handle, &target));
    PRIVILEGED;
    uint32_t slices = slices_of(&target, profile), room = *count;
    REQUIRE(slices, NVML_ERROR_NOT_SUPPORTED);
    *count = possible(&target, slices);
    if (!placements)
        return NVML_SUCCESS;
    REQUIRE(room >= *count, NVML_ERROR_INSUFFICIENT_SIZE);
    for (uint32_t start = 0, index = 0; start < target.profile->slices; start++)
        if (legal_start(&target, slices, start))
            placements[index++] = (nvmlComputeInstancePlacement_t){start, slices};
    return NVML_SUCCESS;
}

/* A name of its own for every compute instance that ever is. */
static void name_compute(char *uuid, size_t length)
{
    unsigned char bits[16] = {0};
    if (getrandom(bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        memcpy(bits, &sim_state->compute_count, sizeof sim_state->compute_count);
    bits[6] = (unsigned char)((bits[6] & 0x0F) | 0x40);
    bits[8] = (unsigned char)((bits[8] & 0x3F) | 0x80);
    snprintf(uuid, length, "MIG-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", bits[0], bits[1],
             bits[2], bits[3], bits[4], bits[5], bits[6], bits[7], bits[8], bits[9], bits[10], bits[11], bits[12],
             bits[13], bits[14], bits[15]);
}

static uint32_t free_ci_id(uint32_t instance)
{
    uint32_t used = 0;
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_compute_alive(index) && sim_instance_of(index) == instance)
            used |= 1u << sim_state->computes[index].ci_id;
    uint32_t id = 0;
    while (used >> id & 1u)
        id++;
    return id;
}

static nvmlReturn_t create(const struct gi_target *target, uint32_t slices, const uint32_t *wanted,
                           nvmlComputeInstance_t *handle)
{
    uint32_t taken = taken_slices(target->index), start = 0;
    bool found = false;
    for (uint32_t at = 0; at < target->profile->slices && !found; at++)
        if (legal_start(target, slices, at) && (!wanted || *wanted == at) && !(taken & ((1u << slices) - 1u) << at)) {
            start = at;
            found = true;
        }
    uint32_t index = found ? sim_free_compute() : SIM_ANY;
    REQUIRE(index != SIM_ANY, NVML_ERROR_INSUFFICIENT_RESOURCES);
    struct sim_compute *compute = &sim_state->computes[index];
    *compute = (struct sim_compute){
        .created_ns = target->on.now,
        .until_ns = SIM_FOREVER,
        .instance = target->index,
        .ci_id = free_ci_id(target->index),
        .slices = slices,
        .start = start,
    };
    name_compute(compute->uuid, sizeof compute->uuid);
    if (index == sim_state->compute_count)
        sim_state->compute_count = index + 1;
    __atomic_store_n(&compute->published, 1, __ATOMIC_RELEASE);
    *handle = &sim_compute_handles[index];
    return NVML_SUCCESS;
}

static nvmlReturn_t create_locked(const char *call, nvmlGpuInstance_t gi, unsigned int profile,
                                  const nvmlComputeInstancePlacement_t *placement, nvmlComputeInstance_t *handle)
{
    ARGUMENT(handle);
    struct gi_target target;
    TRY(sim_enter_instance(call, gi, &target));
    PRIVILEGED;
    uint32_t slices = slices_of(&target, profile);
    REQUIRE(slices, NVML_ERROR_NOT_SUPPORTED);
    ARGUMENT(!placement || (placement->size == slices && legal_start(&target, slices, placement->start)));
    REQUIRE(sim_write_begin() == 0, NVML_ERROR_OPERATING_SYSTEM);
    nvmlReturn_t result = create(&target, slices, placement ? &placement->start : NULL, handle);
    sim_write_end();
    return result;
}

nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t gi, unsigned int profile,
                                                  nvmlComputeInstance_t *handle)
{
    return create_locked(__func__, gi, profile, NULL, handle);
}

nvmlReturn_t nvmlGpuInstanceCreateComputeInstanceWithPlacement(nvmlGpuInstance_t gi, unsigned int profile,
                                                               const nvmlComputeInstancePlacement_t *placement,
                                                               nvmlComputeInstance_t *handle)
{
    ARGUMENT(placement);
    return create_locked(__func__, gi, profile, placement, handle);
}

static nvmlReturn_t enter_compute(const char *call, nvmlComputeInstance_t handle, struct target *target,
                                  uint32_t *index)
{
    TRY(sim_enter_library(call));
    ARGUMENT(handle >= sim_compute_handles && handle < sim_compute_handles + SIM_MAX_COMPUTES);
    *index = (uint32_t)(handle - sim_compute_handles);
    ARGUMENT(sim_compute_alive(*index));
    return sim_enter_gpu(call, sim_state->instances[sim_instance_of(*index)].gpu, target);
}

nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t handle)
{
    struct target target;
    uint32_t index;
    TRY(enter_compute(__func__, handle, &target, &index));
    PRIVILEGED;
    REQUIRE(sim_write_begin() == 0, NVML_ERROR_OPERATING_SYSTEM);
    nvmlReturn_t result = sim_compute_alive(index) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
    if (sim_has_processes(target.gpu, index, sim_now()))
        result = NVML_ERROR_IN_USE;
    if (result == NVML_SUCCESS)
        __atomic_store_n(&sim_state->computes[index].until_ns, sim_now(), __ATOMIC_RELEASE);
    sim_write_end();
    return result;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t gi, unsigned int profile,
                                                nvmlComputeInstance_t *handles, unsigned int *count)
{
    ARGUMENT(handles && count);
    struct gi_target target;
    TRY(sim_enter_instance(__func__, gi, &target));
    PRIVILEGED;
    uint32_t slices = slices_of(&target, profile);
    REQUIRE(slices, NVML_ERROR_NOT_SUPPORTED);
    *count = 0;
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_compute_alive(index) && sim_instance_of(index) == target.index &&
            sim_state->computes[index].slices == slices)
            handles[(*count)++] = &sim_compute_handles[index];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t gi, unsigned int id, nvmlComputeInstance_t *handle)
{
    ARGUMENT(handle);
    struct gi_target target;
    TRY(sim_enter_instance(__func__, gi, &target));
    PRIVILEGED;
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_compute_alive(index) && sim_instance_of(index) == target.index &&
            sim_state->computes[index].ci_id == id) {
            *handle = &sim_compute_handles[index];
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *info)
{
    ARGUMENT(info);
    struct target target;
    uint32_t index;
    TRY(enter_compute(__func__, handle, &target, &index));
    const struct sim_compute *compute = &sim_state->computes[index];
    uint32_t profile = 0;
    while (SLICES[profile] != compute->slices)
        profile++;
    *info = (nvmlComputeInstanceInfo_t){
        .device = &sim_gpu_handles[target.gpu],
        .gpuInstance = &sim_instance_handles[compute->instance],
        .id = compute->ci_id,
        .profileId = profile,
        .placement = {compute->start, compute->slices},
    };
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlComputeInstanceGetInfo(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *info)
{
    return nvmlComputeInstanceGetInfo_v2(handle, info);
}
