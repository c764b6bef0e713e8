/*
 * Puts a load on simulated GPUs until it is told to end, as a CUDA program would: statically linked, to be a
 * container's only program. The driver's simulation sees it under its real PID, and sees it go, however it ends.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "state.h"

#define MOST_PARENTS 16
#define EXIT_REFUSED 1
#define EXIT_FLAGS 2
#define EXIT_UNREACHABLE 3

struct step {
    double after_s, duty, sm_width, memory_mib, tensor, dram, enc, dec;
};

static const char usage[] =
    "gpuwaste-load [--gpu UUID]... DUTY:SM_WIDTH:MEMORY_MIB[:TENSOR:DRAM[:ENC:DEC]][@SECONDS]...\n"
    "  Every step holds from SECONDS (real ones; 0 where it is not said) after the start. Without --gpu the load goes\n"
    "  onto each device of NVIDIA_VISIBLE_DEVICES. Ends on SIGTERM or SIGINT.\n";

static int refuse(int status, const char *what, const char *why)
{
    fprintf(stderr, "gpuwaste-load: %s: %s\n%s", what, why, status == EXIT_FLAGS ? usage : "");
    return status;
}

static bool read_step(const char *text, struct step *step)
{
    int used = 0;
    *step = (struct step){0};
    if (sscanf(text, "%lf:%lf:%lf%n", &step->duty, &step->sm_width, &step->memory_mib, &used) < 3)
        return false;
    int more = 0;
    if (sscanf(text + used, ":%lf:%lf%n", &step->tensor, &step->dram, &more) == 2)
        used += more;
    more = 0;
    if (sscanf(text + used, ":%lf:%lf%n", &step->enc, &step->dec, &more) == 2)
        used += more;
    more = 0;
    if (sscanf(text + used, "@%lf%n", &step->after_s, &more) == 1)
        used += more;
    return text[used] == '\0' && step->after_s >= 0.0;
}

/* `GPU-…::3,GPU-…` from the device plugin: replicas are of the GPU before the `::`. */
static int visible_devices(char *list, const char **parents)
{
    int count = 0;
    for (char *rest = NULL, *name = strtok_r(list, ",", &rest); name && count < MOST_PARENTS;
         name = strtok_r(NULL, ",", &rest)) {
        char *replica = strstr(name, "::");
        if (replica)
            *replica = '\0';
        parents[count++] = name;
    }
    return count;
}

static int run(const int *slots, int parents, const struct step *steps, int count)
{
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    double passed = 0.0;
    for (int step = 0; step <= count; step++) {
        if (step == count) {
            int received;
            sigwait(&ends, &received);
            break;
        }
        double wait = steps[step].after_s - passed;
        if (wait > 0.0) {
            struct timespec time = {.tv_sec = (time_t)wait, .tv_nsec = (long)((wait - (double)(time_t)wait) * 1e9)};
            if (sigtimedwait(&ends, NULL, &time) > 0)
                break;
            passed = steps[step].after_s;
        }
        for (int parent = 0; parent < parents; parent++) {
            int failed = gpuwaste_sim_load(slots[parent], steps[step].duty, steps[step].sm_width,
                                           steps[step].memory_mib, steps[step].tensor, steps[step].dram,
                                           steps[step].enc, steps[step].dec);
            if (failed)
                return refuse(EXIT_REFUSED, "the load is refused", strerror(-failed));
        }
    }
    for (int parent = 0; parent < parents; parent++)
        gpuwaste_sim_detach(slots[parent]);
    return 0;
}

int main(int argc, char **argv)
{
    const char *parents[MOST_PARENTS];
    int parent_count = 0, step_count = 0, slots[MOST_PARENTS];
    struct step *steps = calloc((size_t)argc, sizeof *steps);
    if (!steps)
        return refuse(EXIT_REFUSED, "memory", strerror(errno));
    for (int index = 1; index < argc; index++) {
        if (strcmp(argv[index], "--gpu") == 0 && index + 1 < argc && parent_count < MOST_PARENTS)
            parents[parent_count++] = argv[++index];
        else if (!read_step(argv[index], &steps[step_count++]))
            return refuse(EXIT_FLAGS, argv[index], "no step");
    }
    char *visible = getenv("NVIDIA_VISIBLE_DEVICES");
    if (!parent_count && visible)
        parent_count = visible_devices(visible, parents);
    if (!parent_count || !step_count)
        return refuse(EXIT_FLAGS, parent_count ? "steps" : "GPUs", "none given");
    for (int index = 0; index < parent_count; index++) {
        slots[index] = gpuwaste_sim_attach(parents[index], 0);
        if (slots[index] < 0)
            return refuse(EXIT_UNREACHABLE, parents[index], strerror(-slots[index]));
    }
    int status = run(slots, parent_count, steps, step_count);
    free(steps);
    return status;
}
