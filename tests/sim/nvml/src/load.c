#include "load.h"

#include <stdlib.h>
#include <string.h>

#include "products.h"

/* A process with the point of its load that holds at the time looked at. */
struct member {
    uint32_t slot, point;
    double duty_scale, sm_scale, enc_scale, dec_scale;
};

struct parent {
    uint32_t count, sharing;
    struct member *members;
};

const struct sim_product *sim_product(uint32_t gpu)
{
    for (size_t index = 0; index < sizeof SIM_PRODUCTS / sizeof *SIM_PRODUCTS; index++)
        if (strcmp(SIM_PRODUCTS[index].name, sim_state->gpus[gpu].product) == 0)
            return &SIM_PRODUCTS[index];
    return NULL;
}

const struct sim_profile *sim_profile(uint32_t gpu, uint32_t profile_id)
{
    const struct sim_product *product = sim_product(gpu);
    for (uint32_t index = 0; index < product->profile_count; index++)
        if (product->profiles[index].id == profile_id)
            return &product->profiles[index];
    return NULL;
}

static int64_t until(uint32_t slot)
{
    return __atomic_load_n(&sim_state->processes[slot].until_ns, __ATOMIC_ACQUIRE);
}

static uint32_t next_point(uint32_t point)
{
    return __atomic_load_n(&sim_points()[point].next, __ATOMIC_ACQUIRE);
}

static uint32_t point_at(uint32_t point, int64_t at_ns)
{
    for (uint32_t next; (next = next_point(point)) && sim_points()[next].at_ns <= at_ns;)
        point = next;
    return point;
}

bool sim_process_runs(uint32_t slot, int64_t at_ns)
{
    const struct sim_process *process = &sim_state->processes[slot];
    return __atomic_load_n(&process->published, __ATOMIC_ACQUIRE) && process->from_ns <= at_ns && at_ns < until(slot);
}

uint64_t sim_process_bytes(uint32_t slot, int64_t at_ns)
{
    if (!sim_process_runs(slot, at_ns))
        return 0;
    const struct sim_point *point = &sim_points()[point_at(sim_state->processes[slot].first, at_ns)];
    return (uint64_t)(point->memory_mib * (1 << 20));
}

static bool gather(struct parent *parent, uint32_t gpu, uint32_t compute, int64_t from_ns, int64_t until_ns)
{
    uint32_t most = sim_state->process_count;
    parent->count = 0;
    parent->sharing = sim_state->gpus[gpu].sharing;
    parent->members = calloc(most ? most : 1, sizeof *parent->members);
    if (!parent->members)
        return false;
    for (uint32_t slot = 0; slot < most; slot++) {
        const struct sim_process *process = &sim_state->processes[slot];
        if (!__atomic_load_n(&process->published, __ATOMIC_ACQUIRE) || process->gpu != gpu ||
            process->compute != compute || process->from_ns >= until_ns || until(slot) <= from_ns)
            continue;
        parent->members[parent->count++] = (struct member){.slot = slot, .point = process->first};
    }
    return true;
}

/* The first time after `at_ns`, `end_ns` at the latest, at which anything changes. */
static int64_t next_cut(const struct parent *parent, int64_t at_ns, int64_t end_ns)
{
    int64_t cut = end_ns;
    for (uint32_t index = 0; index < parent->count; index++) {
        const struct member *member = &parent->members[index];
        const struct sim_process *process = &sim_state->processes[member->slot];
        uint32_t next = next_point(member->point);
        int64_t times[] = {process->from_ns, until(member->slot), next ? sim_points()[next].at_ns : end_ns};
        for (int which = 0; which < 3; which++)
            if (times[which] > at_ns && times[which] < cut)
                cut = times[which];
    }
    return cut;
}

/*
 * How processes get in each other's way: the agent's simulate/timeline.py in C, for the loads that only a running
 * system knows. Turns that ask for more than all the time are scaled together; under MPS the SMs are.
 */
static double scale(struct parent *parent, int64_t at_ns)
{
    double asked = 0.0, wide = 0.0, idle = 1.0, enc = 0.0, dec = 0.0;
    for (uint32_t index = 0; index < parent->count; index++) {
        struct member *member = &parent->members[index];
        if (!sim_process_runs(member->slot, at_ns))
            continue;
        member->point = point_at(member->point, at_ns);
        const struct sim_point *point = &sim_points()[member->point];
        asked += point->duty;
        wide += point->duty * point->sm_width;
        idle *= 1.0 - point->duty;
        enc += point->enc;
        dec += point->dec;
    }
    bool mps = parent->sharing == SIM_SHARING_MPS;
    double duty_scale = mps || asked <= 1.0 ? 1.0 : 1.0 / asked;
    double sm_scale = mps ? (wide <= 1.0 ? 1.0 : 1.0 / wide) : duty_scale;
    for (uint32_t index = 0; index < parent->count; index++) {
        parent->members[index].duty_scale = duty_scale;
        parent->members[index].sm_scale = sm_scale;
        parent->members[index].enc_scale = enc <= 1.0 ? 1.0 : 1.0 / enc;
        parent->members[index].dec_scale = dec <= 1.0 ? 1.0 : 1.0 / dec;
    }
    if (mps)
        return 1.0 - idle;
    return asked < 1.0 ? asked : 1.0;
}

static double at_most_one(double value)
{
    return value < 1.0 ? value : 1.0;
}

static void add_piece(const struct parent *parent, int64_t at_ns, double seconds, double duty, struct sim_sums *sums,
                      struct sim_shares *shares)
{
    double sm = 0.0, tensor = 0.0, dram = 0.0, memory = 0.0, enc = 0.0, dec = 0.0;
    for (uint32_t index = 0; index < parent->count; index++) {
        const struct member *member = &parent->members[index];
        if (!sim_process_runs(member->slot, at_ns))
            continue;
        const struct sim_point *point = &sim_points()[member->point];
        double width = point->duty * point->sm_width * member->sm_scale;
        double bytes = (double)(uint64_t)(point->memory_mib * (1 << 20));
        sm += width;
        tensor += point->duty * point->tensor * member->sm_scale;
        dram += point->duty * point->dram * member->sm_scale;
        memory += bytes;
        enc += point->enc;
        dec += point->dec;
        if (shares) {
            struct sim_share *share = &shares->of[index];
            share->duty += point->duty * member->duty_scale * seconds;
            share->sm += width * seconds;
            share->memory += bytes * seconds;
            share->enc += point->enc * member->enc_scale * seconds;
            share->dec += point->dec * member->dec_scale * seconds;
            share->peak = bytes > share->peak ? bytes : share->peak;
        }
    }
    sums->duty += duty * seconds;
    sums->sm += at_most_one(sm) * seconds;
    sums->tensor += at_most_one(tensor) * seconds;
    sums->dram += at_most_one(dram) * seconds;
    sums->memory += memory * seconds;
    sums->enc += at_most_one(enc) * seconds;
    sums->dec += at_most_one(dec) * seconds;
}

void sim_parent_sums(uint32_t gpu, uint32_t compute, int64_t from_ns, int64_t until_ns, struct sim_sums *sums,
                     struct sim_shares *shares)
{
    struct parent parent;
    *sums = (struct sim_sums){0};
    if (shares)
        shares->count = 0;
    if (from_ns < 0)
        from_ns = 0;
    if (!gather(&parent, gpu, compute, from_ns, until_ns))
        return;
    if (shares) {
        shares->count = parent.count;
        for (uint32_t index = 0; index < parent.count; index++)
            shares->of[index] = (struct sim_share){.slot = parent.members[index].slot};
    }
    for (int64_t at = from_ns; at < until_ns;) {
        double duty = scale(&parent, at);
        int64_t end = next_cut(&parent, at, until_ns);
        add_piece(&parent, at, (double)(end - at) / (double)SIM_SECOND, duty, sums, shares);
        at = end;
    }
    free(parent.members);
}

static void add_part(struct sim_sums *sums, const struct sim_sums *more, double weight)
{
    sums->duty += more->duty * weight;
    sums->sm += more->sm * weight;
    sums->tensor += more->tensor * weight;
    sums->dram += more->dram * weight;
    sums->memory += more->memory;
    sums->enc += more->enc * weight;
    sums->dec += more->dec * weight;
}

void sim_instance_sums(uint32_t instance, int64_t from_ns, int64_t until_ns, struct sim_sums *sums)
{
    const struct sim_instance *of = &sim_state->instances[instance];
    const struct sim_profile *profile = sim_profile(of->gpu, of->profile_id);
    *sums = (struct sim_sums){0};
    for (uint32_t index = 0; profile && index < sim_state->compute_count; index++) {
        const struct sim_compute *compute = &sim_state->computes[index];
        if (!__atomic_load_n(&compute->published, __ATOMIC_ACQUIRE) || compute->instance != instance ||
            compute->until_ns <= from_ns || compute->created_ns >= until_ns)
            continue;
        struct sim_sums more;
        sim_parent_sums(of->gpu, index, from_ns, until_ns, &more, NULL);
        add_part(sums, &more, (double)compute->slices / profile->slices);
    }
}

void sim_gpu_sums(uint32_t gpu, int64_t from_ns, int64_t until_ns, struct sim_sums *sums)
{
    sim_parent_sums(gpu, SIM_ANY, from_ns, until_ns, sums, NULL);
    const struct sim_product *product = sim_product(gpu);
    for (uint32_t index = 0; index < sim_state->instance_count; index++) {
        const struct sim_instance *instance = &sim_state->instances[index];
        if (!__atomic_load_n(&instance->published, __ATOMIC_ACQUIRE) || instance->gpu != gpu ||
            instance->until_ns <= from_ns || instance->created_ns >= until_ns)
            continue;
        struct sim_sums more;
        sim_instance_sums(index, from_ns, until_ns, &more);
        add_part(sums, &more, (double)instance->size / product->axis_units);
    }
}

double sim_gpu_joules(uint32_t gpu, int64_t from_ns, int64_t until_ns)
{
    const struct sim_product *product = sim_product(gpu);
    struct sim_sums sums;
    if (until_ns <= from_ns)
        return 0.0;
    sim_gpu_sums(gpu, from_ns, until_ns, &sums);
    double seconds = (double)(until_ns - from_ns) / (double)SIM_SECOND;
    return product->idle_watts * seconds + (double)(product->max_watts - product->idle_watts) * sums.sm;
}
