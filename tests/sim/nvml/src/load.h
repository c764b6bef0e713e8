/* What runs on a parent (a GPU, or a compute instance of one) between two times: exact integrals of its processes' load. */
#pragma once
#include "products_types.h"
#include "state.h"

/* Integrals over time, in seconds times parts of the parent; `memory` in bytes times seconds. */
struct sim_sums {
    double duty, sm, tensor, dram, memory, enc, dec;
};

/* The same of one process, without tensor and dram; `peak` is its most memory in bytes. */
struct sim_share {
    uint32_t slot;
    double duty, sm, memory, peak, enc, dec;
};

struct sim_shares {
    uint32_t count;
    struct sim_share of[SIM_MAX_PROCESSES];
};

/* Of one parent alone; `shares` may be NULL. */
void sim_parent_sums(uint32_t gpu, uint32_t compute, int64_t from_ns, int64_t until_ns, struct sim_sums *sums,
                     struct sim_shares *shares);

/* Of a GPU: what runs on it whole, and its compute instances by their part of it. */
void sim_gpu_sums(uint32_t gpu, int64_t from_ns, int64_t until_ns, struct sim_sums *sums);

/* Of a GPU instance: its compute instances by their part of it. */
void sim_instance_sums(uint32_t instance, int64_t from_ns, int64_t until_ns, struct sim_sums *sums);

/* Energy of a GPU in joules: idle power all the time, the rest of its limit in proportion to the SMs in use. */
double sim_gpu_joules(uint32_t gpu, int64_t from_ns, int64_t until_ns);

/* Bytes that a process has allocated at a time; 0 when it does not run. */
uint64_t sim_process_bytes(uint32_t slot, int64_t at_ns);
bool sim_process_runs(uint32_t slot, int64_t at_ns);

const struct sim_product *sim_product(uint32_t gpu);
const struct sim_profile *sim_profile(uint32_t gpu, uint32_t profile_id);
