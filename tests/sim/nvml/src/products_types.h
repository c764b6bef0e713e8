/* Types of the generated product table. */
#pragma once
#include <stdint.h>

#define SIM_MAX_PROFILES 12

struct sim_profile {
    const char *name;
    uint32_t id, nvml_profile, slices, size, max_count, media, gfx, sms, memory_mib;
    uint32_t copy, decoder, encoder, jpeg, ofa, start_count;
    uint32_t starts[8];
};

struct sim_product {
    const char *name, *nvml_name;
    uint32_t architecture, cc_major, cc_minor, sms, memory_mib, gpm, idle_watts, max_watts, axis_units, compute_slices;
    uint32_t sm_mhz, memory_mhz, pci_id, profile_count;
    struct sim_profile profiles[SIM_MAX_PROFILES];
};
