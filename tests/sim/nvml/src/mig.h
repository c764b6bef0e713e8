/* MIG: what a GPU instance or compute instance may be, and which there are. */
#pragma once
#include "sim.h"

/* What a call on an instance's handle is about. */
struct gi_target {
    struct target on;
    uint32_t index;
    const struct sim_instance *instance;
    const struct sim_profile *profile;
};

nvmlReturn_t sim_enter_instance(const char *call, nvmlGpuInstance_t handle, struct gi_target *target);

/* MIG calls on a GPU: it has MIG, its mode is on, the handle is the GPU's, the caller privileged, as far as asked. */
#define MIG_CAPABLE REQUIRE(target.compute == SIM_ANY && target.product->profile_count, NVML_ERROR_NOT_SUPPORTED)
#define MIG_ON REQUIRE(target.state->mig_mode, NVML_ERROR_NOT_SUPPORTED)
#define PRIVILEGED REQUIRE(sim_privileged(), NVML_ERROR_NO_PERMISSION)

/* Memory units of a GPU that are taken, as bits, and how many instances of a profile, and media ones, there are. */
struct taken {
    uint32_t units, of_profile, media;
};
struct taken sim_taken(uint32_t gpu, uint32_t profile_id);
bool sim_fits(const struct taken *taken, const struct sim_profile *profile, uint32_t start);

/* A place for a new entry, which is not published: one that nothing refers to any more, or the next. Full: SIM_ANY. */
uint32_t sim_free_instance(void);
uint32_t sim_free_compute(void);

/* Whether a process runs on a parent; SIM_ANY for `compute`: anywhere on the GPU. */
bool sim_has_processes(uint32_t gpu, uint32_t compute, int64_t now);

/* Orders handles for lists: live compute instances of a GPU by GPU instance id and own id. Returns how many. */
uint32_t sim_list_computes(uint32_t gpu, uint32_t *indexes, uint32_t most);
