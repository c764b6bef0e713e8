/* The mapped state file: finding it, its locks, its clock, its processes. Used by the library and by the load program. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

#define SIM_FOREVER INT64_MAX
#define SIM_SECOND INT64_C(1000000000)
#define SIM_DEFAULT_STATE "/run/gpuwaste-sim/nvml.state"

/* The file of this process, or NULL. */
extern struct sim_state *sim_state;

/* Map the file that GPUWASTE_SIM_STATE names. Returns 0, or an errno value; may be called again. */
int sim_state_open(void);

/* Exclude other writers, threads of this process included, until sim_write_end. Returns 0 or an errno value. */
int sim_write_begin(void);
void sim_write_end(void);

/* Nanoseconds of the scenario now, and the same in microseconds since the epoch. */
int64_t sim_now(void);
uint64_t sim_utc_us(int64_t at_ns);

struct sim_point *sim_points(void);

/* Be counted as a client of the driver, or be no more; the kernel does the latter when the process dies. */
int sim_client_enter(void);
void sim_client_leave(void);
bool sim_other_clients(void);

/* PID of a process in the caller's PID namespace; 0 where it is not visible there or is gone. */
uint32_t sim_process_pid(uint32_t slot);

/* End, now, every process of which only the entry is left. */
void sim_reap(void);

/* Indexes of a GPU or of a compute instance by UUID: false if there is none now. */
bool sim_find_parent(const char *uuid, uint32_t *gpu, uint32_t *compute);
bool sim_compute_alive(uint32_t compute);

/*
 * For programs that put load on the simulated GPUs. A slot number, or the negative of an errno value.
 * `pid` 0 is the calling process, whose entry ends with it.
 */
__attribute__((visibility("default"))) int gpuwaste_sim_attach(const char *parent_uuid, uint32_t pid);
__attribute__((visibility("default"))) int gpuwaste_sim_load(int slot, double duty, double sm_width, double memory_mib,
                                                             double tensor, double dram, double enc, double dec);
__attribute__((visibility("default"))) int gpuwaste_sim_detach(int slot);
