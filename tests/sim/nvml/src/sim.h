/* What every part of the simulated driver's library uses. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(default)
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#include <nvml.h>
#pragma GCC visibility pop

#include "load.h"

/* Handles are the addresses of these; what they stand for follows from their place. */
struct nvmlDevice_st {
    char place;
};
struct nvmlGpuInstance_st {
    char place;
};
struct nvmlComputeInstance_st {
    char place;
};
extern struct nvmlDevice_st sim_gpu_handles[SIM_MAX_GPUS], sim_mig_handles[SIM_MAX_COMPUTES];
extern struct nvmlGpuInstance_st sim_instance_handles[SIM_MAX_INSTANCES];
extern struct nvmlComputeInstance_st sim_compute_handles[SIM_MAX_COMPUTES];

/* What a call is about. `compute` is SIM_ANY, or the compute instance behind a MIG device handle. */
struct target {
    uint32_t gpu, compute;
    int64_t now;
    struct sim_gpu *state;
    const struct sim_product *product;
};

/* NVML is initialised, the driver loaded, the handle good, the GPU on its bus; waits while the call is to hang. */
nvmlReturn_t sim_enter_library(const char *call);
nvmlReturn_t sim_enter(const char *call, nvmlDevice_t device, struct target *target);
nvmlReturn_t sim_enter_gpu(const char *call, uint32_t gpu, struct target *target);

#define TRY(expression)                     \
    do {                                    \
        nvmlReturn_t tried_ = (expression); \
        if (tried_ != NVML_SUCCESS)         \
            return tried_;                  \
    } while (0)
#define REQUIRE(condition, otherwise) \
    do {                              \
        if (!(condition))             \
            return otherwise;         \
    } while (0)
#define ARGUMENT(condition) REQUIRE(condition, NVML_ERROR_INVALID_ARGUMENT)
#define ENTER(device)     \
    struct target target; \
    TRY(sim_enter(__func__, device, &target))

/* A call that asks a whole GPU, and one that MIG mode rules out. */
#define WHOLE_GPU REQUIRE(target.compute == SIM_ANY, NVML_ERROR_NOT_SUPPORTED)
#define NOT_UNDER_MIG REQUIRE(target.compute == SIM_ANY && !target.state->mig_mode, NVML_ERROR_NOT_SUPPORTED)

/* CAP_SYS_ADMIN is in effect: the one the driver asks for. */
bool sim_privileged(void);

/* In MIG mode a GPU's handle tells everything of all instances, to the privileged alone. */
#define AGGREGATE_NEEDS_PRIVILEGE \
    REQUIRE(target.compute != SIM_ANY || !target.state->mig_mode || sim_privileged(), NVML_ERROR_NO_PERMISSION)

nvmlReturn_t sim_copy_text(char *to, unsigned int length, const char *text);

bool sim_fault_active(uint32_t gpu, uint32_t kind, uint32_t xid, int64_t at_ns);

/* Whole per cent of a part, rounded half up as the agent's own simulator does. */
unsigned int sim_percent(double part);

/* Sampling of utilization: the driver's samples are this long and end on multiples of it. */
#define SIM_SAMPLE_NS INT64_C(200000000)
#define SIM_IDLE_SM_MHZ 210u

/* Live instances. */
bool sim_instance_alive(uint32_t instance);
uint32_t sim_instance_of(uint32_t compute);
uint64_t sim_energy_mj(const struct target *target);
double sim_power_watts(const struct target *target);
int sim_temperature(const struct target *target);
uint64_t sim_memory_total(const struct target *target);
uint64_t sim_memory_used(const struct target *target);
