#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct sim_state *sim_state;

/* The file is never closed: closing any descriptor of it would drop all record locks of the process. */
static int state_file = -1;
static pthread_mutex_t in_process = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static int client_slot = -1;
static uint32_t known_pid[SIM_MAX_PROCESSES];
static bool own_slot[SIM_MAX_PROCESSES];

static int map_file(const char *path)
{
    if (state_file < 0) {
        state_file = open(path, O_RDWR | O_CLOEXEC);
        if (state_file < 0)
            return errno;
    }
    struct stat info;
    if (fstat(state_file, &info) != 0)
        return errno;
    if ((size_t)info.st_size < sizeof(struct sim_state) + sizeof(struct sim_point))
        return EINVAL;
    void *mapped = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, state_file, 0);
    if (mapped == MAP_FAILED)
        return errno;
    struct sim_state *found = mapped;
    size_t points = ((size_t)info.st_size - sizeof(struct sim_state)) / sizeof(struct sim_point);
    if (found->magic != SIM_MAGIC || found->point_capacity > points) {
        munmap(mapped, (size_t)info.st_size);
        return EINVAL;
    }
    sim_state = found;
    return 0;
}

int sim_state_open(void)
{
    pthread_mutex_lock(&opening);
    int failed = 0;
    if (!sim_state) {
        const char *path = getenv("GPUWASTE_SIM_STATE");
        if (!path || !*path)
            path = SIM_DEFAULT_STATE;
        failed = map_file(path);
        if (failed)
            fprintf(stderr,
                    "libnvidia-ml (simulated): cannot use %s: %s; make it with `python -m tests.sim.nvml.control "
                    "create` and name it in GPUWASTE_SIM_STATE\n",
                    path, failed == EINVAL ? "no state file of this build" : strerror(failed));
    }
    pthread_mutex_unlock(&opening);
    return failed;
}

static int lock_byte(int command, short type, int64_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    while (fcntl(state_file, command, &lock) != 0)
        if (errno != EINTR)
            return errno;
    return 0;
}

int sim_write_begin(void)
{
    pthread_mutex_lock(&in_process);
    int failed = lock_byte(F_SETLKW, F_WRLCK, SIM_LOCK_WRITER);
    if (failed)
        pthread_mutex_unlock(&in_process);
    return failed;
}

void sim_write_end(void)
{
    lock_byte(F_SETLK, F_UNLCK, SIM_LOCK_WRITER);
    pthread_mutex_unlock(&in_process);
}

int64_t sim_now(void)
{
    const struct sim_clock *clock = &sim_state->clocks[__atomic_load_n(&sim_state->clock_slot, __ATOMIC_ACQUIRE) & 1];
    if (clock->mode == SIM_CLOCK_SET)
        return clock->base_ns;
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    int64_t passed = (int64_t)at.tv_sec * SIM_SECOND + at.tv_nsec - clock->base_monotonic_ns;
    return clock->base_ns + (int64_t)((double)passed * clock->speed);
}

uint64_t sim_utc_us(int64_t at_ns)
{
    return (uint64_t)((sim_state->start_utc_ns + at_ns) / 1000);
}

struct sim_point *sim_points(void)
{
    return (struct sim_point *)(sim_state + 1);
}

int sim_client_enter(void)
{
    for (int slot = 0; client_slot < 0 && slot < SIM_MAX_CLIENTS; slot++)
        if (lock_byte(F_SETLK, F_WRLCK, SIM_LOCK_CLIENTS + slot) == 0)
            client_slot = slot;
    return client_slot < 0 ? EAGAIN : 0;
}

void sim_client_leave(void)
{
    if (client_slot >= 0)
        lock_byte(F_SETLK, F_UNLCK, SIM_LOCK_CLIENTS + client_slot);
    client_slot = -1;
}

/* Who else holds a lock in the range: its PID (0 where it is not visible here), or -1 for nobody. */
static int64_t holder(int64_t first, int64_t bytes)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = first, .l_len = bytes};
    if (fcntl(state_file, F_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
        return -1;
    return lock.l_pid;
}

bool sim_other_clients(void)
{
    return holder(SIM_LOCK_CLIENTS, SIM_MAX_CLIENTS) >= 0;
}

uint32_t sim_process_pid(uint32_t slot)
{
    const struct sim_process *process = &sim_state->processes[slot];
    if (process->origin == SIM_ORIGIN_GIVEN)
        return process->pid;
    if (own_slot[slot])
        return (uint32_t)getpid();
    int64_t pid = holder(SIM_LOCK_PROCESSES + slot, 1);
    if (pid > 0)
        known_pid[slot] = (uint32_t)pid;
    return known_pid[slot];
}

void sim_reap(void)
{
    for (uint32_t slot = 0; slot < sim_state->process_count; slot++) {
        struct sim_process *process = &sim_state->processes[slot];
        if (!__atomic_load_n(&process->published, __ATOMIC_ACQUIRE) || process->origin != SIM_ORIGIN_LIVE ||
            own_slot[slot])
            continue;
        if (__atomic_load_n(&process->until_ns, __ATOMIC_ACQUIRE) != SIM_FOREVER)
            continue;
        if (holder(SIM_LOCK_PROCESSES + slot, 1) >= 0) {
            sim_process_pid(slot);
            continue;
        }
        if (sim_write_begin() != 0)
            return;
        if (process->until_ns == SIM_FOREVER && holder(SIM_LOCK_PROCESSES + slot, 1) < 0)
            __atomic_store_n(&process->until_ns, sim_now(), __ATOMIC_RELEASE);
        sim_write_end();
    }
}

bool sim_compute_alive(uint32_t compute)
{
    if (compute >= sim_state->compute_count)
        return false;
    const struct sim_compute *found = &sim_state->computes[compute];
    return __atomic_load_n(&found->published, __ATOMIC_ACQUIRE) &&
           __atomic_load_n(&found->until_ns, __ATOMIC_ACQUIRE) == SIM_FOREVER;
}

bool sim_find_parent(const char *uuid, uint32_t *gpu, uint32_t *compute)
{
    for (uint32_t index = 0; index < sim_state->gpu_count; index++)
        if (strncmp(sim_state->gpus[index].uuid, uuid, sizeof sim_state->gpus[index].uuid) == 0) {
            *gpu = index;
            *compute = SIM_ANY;
            return true;
        }
    for (uint32_t index = 0; index < sim_state->compute_count; index++)
        if (sim_compute_alive(index) &&
            strncmp(sim_state->computes[index].uuid, uuid, sizeof sim_state->computes[index].uuid) == 0) {
            *compute = index;
            *gpu = sim_state->instances[sim_state->computes[index].instance].gpu;
            return true;
        }
    return false;
}

static uint32_t new_point(int64_t at_ns)
{
    if (sim_state->point_count >= sim_state->point_capacity)
        return 0;
    uint32_t index = sim_state->point_count;
    struct sim_point *point = &sim_points()[index];
    memset(point, 0, sizeof *point);
    point->at_ns = at_ns;
    sim_state->point_count = index + 1;
    return index;
}

/* What the compute mode lets a new process do: 0, or an errno value. Under MPS the server is the one process. */
static int compute_mode_allows(uint32_t gpu, uint32_t compute)
{
    const struct sim_gpu *on = &sim_state->gpus[gpu];
    if (on->compute_mode == SIM_COMPUTE_PROHIBITED)
        return EACCES;
    if (on->compute_mode != SIM_COMPUTE_EXCLUSIVE_PROCESS || on->sharing == SIM_SHARING_MPS)
        return 0;
    int64_t now = sim_now();
    for (uint32_t slot = 0; slot < sim_state->process_count; slot++) {
        const struct sim_process *other = &sim_state->processes[slot];
        bool dead = other->origin == SIM_ORIGIN_LIVE && !own_slot[slot] && holder(SIM_LOCK_PROCESSES + slot, 1) < 0;
        if (other->published && other->gpu == gpu && other->compute == compute && !dead && other->from_ns <= now &&
            now < other->until_ns)
            return EBUSY;
    }
    return 0;
}

static int attach_locked(const char *uuid, uint32_t pid)
{
    uint32_t gpu, compute, slot = sim_state->process_count;
    if (!sim_find_parent(uuid, &gpu, &compute))
        return -ENODEV;
    if (compute == SIM_ANY && sim_state->gpus[gpu].mig_mode)
        return -ENODEV; /* CUDA runs on a MIG GPU's instances only */
    int refused = compute_mode_allows(gpu, compute);
    if (refused)
        return -refused;
    uint32_t point = new_point(sim_now());
    if (slot >= SIM_MAX_PROCESSES || !point)
        return -ENOSPC;
    if (!pid && lock_byte(F_SETLK, F_WRLCK, SIM_LOCK_PROCESSES + slot) != 0)
        return -EAGAIN;
    struct sim_process *process = &sim_state->processes[slot];
    *process = (struct sim_process){
        .from_ns = sim_points()[point].at_ns,
        .until_ns = SIM_FOREVER,
        .pid = pid ? pid : (uint32_t)getpid(),
        .gpu = gpu,
        .compute = compute,
        .first = point,
        .last = point,
        .origin = pid ? SIM_ORIGIN_GIVEN : SIM_ORIGIN_LIVE,
        .kind = SIM_KIND_COMPUTE,
    };
    if (!pid && gethostname(process->name, sizeof process->name - 1) != 0)
        process->name[0] = '\0';
    own_slot[slot] = !pid;
    sim_state->process_count = slot + 1;
    __atomic_store_n(&process->published, 1, __ATOMIC_RELEASE);
    return (int)slot;
}

int gpuwaste_sim_attach(const char *parent_uuid, uint32_t pid)
{
    int failed = sim_state_open();
    if (failed || (failed = sim_write_begin()))
        return -failed;
    int slot = attach_locked(parent_uuid, pid);
    sim_write_end();
    return slot;
}

static bool part(double value)
{
    return value >= 0.0 && value <= 1.0;
}

static struct sim_process *running(int slot)
{
    if (!sim_state || slot < 0 || slot >= (int)sim_state->process_count)
        return NULL;
    struct sim_process *process = &sim_state->processes[slot];
    return process->published && process->until_ns == SIM_FOREVER ? process : NULL;
}

int gpuwaste_sim_load(int slot, double duty, double sm_width, double memory_mib, double tensor, double dram, double enc,
                      double dec)
{
    if (!part(duty) || !part(sm_width) || !part(tensor) || !part(dram) || !part(enc) || !part(dec) ||
        !(memory_mib >= 0.0))
        return -EINVAL;
    if (!running(slot))
        return -ESRCH;
    int failed = sim_write_begin();
    if (failed)
        return -failed;
    struct sim_process *process = &sim_state->processes[slot];
    uint32_t index = new_point(sim_now());
    if (index) {
        struct sim_point *point = &sim_points()[index];
        point->duty = duty;
        point->sm_width = sm_width;
        point->memory_mib = memory_mib;
        point->tensor = tensor;
        point->dram = dram;
        point->enc = enc;
        point->dec = dec;
        __atomic_store_n(&sim_points()[process->last].next, index, __ATOMIC_RELEASE);
        process->last = index;
    }
    sim_write_end();
    return index ? 0 : -ENOSPC;
}

int gpuwaste_sim_detach(int slot)
{
    if (!running(slot))
        return -ESRCH;
    int failed = sim_write_begin();
    if (failed)
        return -failed;
    __atomic_store_n(&sim_state->processes[slot].until_ns, sim_now(), __ATOMIC_RELEASE);
    lock_byte(F_SETLK, F_UNLCK, SIM_LOCK_PROCESSES + slot);
    own_slot[slot] = false;
    sim_write_end();
    return 0;
}
