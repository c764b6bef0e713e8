/* GPU performance monitoring: two samples, and averages between them. */
#include <stdlib.h>

#include "sim.h"

#define LEAST_NS INT64_C(100000000)
#define SAMPLE_MARK 0x47504D53u

/* What happened between two samples can be computed from their times, so a sample is only that. */
struct nvmlGpmSample_st {
    uint32_t mark, gpu, instance, compute;
    int64_t at;
    bool taken;
};

static bool is_sample(nvmlGpmSample_t sample)
{
    return sample && sample->mark == SAMPLE_MARK;
}

nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample)
{
    ARGUMENT(sample);
    *sample = calloc(1, sizeof **sample);
    REQUIRE(*sample, NVML_ERROR_MEMORY);
    (*sample)->mark = SAMPLE_MARK;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample)
{
    ARGUMENT(is_sample(sample));
    sample->mark = 0;
    free(sample);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *support)
{
    ARGUMENT(support);
    REQUIRE(support->version == NVML_GPM_SUPPORT_VERSION, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    ENTER(device);
    support->isSupportedDevice = target.product->gpm;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample)
{
    ARGUMENT(is_sample(sample));
    ENTER(device);
    REQUIRE(target.product->gpm, NVML_ERROR_NOT_SUPPORTED);
    AGGREGATE_NEEDS_PRIVILEGE;
    sample->gpu = target.gpu;
    sample->compute = target.compute;
    sample->instance = SIM_ANY;
    sample->at = target.now;
    sample->taken = true;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned int gi_id, nvmlGpmSample_t sample)
{
    ARGUMENT(is_sample(sample));
    ENTER(device);
    REQUIRE(target.product->gpm && target.state->mig_mode, NVML_ERROR_NOT_SUPPORTED);
    REQUIRE(sim_privileged(), NVML_ERROR_NO_PERMISSION);
    ARGUMENT(target.compute == SIM_ANY);
    for (uint32_t index = 0; index < sim_state->instance_count; index++) {
        const struct sim_instance *instance = &sim_state->instances[index];
        if (!sim_instance_alive(index) || instance->gpu != target.gpu || instance->gi_id != gi_id)
            continue;
        sample->gpu = target.gpu;
        sample->instance = index;
        sample->compute = SIM_ANY;
        sample->at = target.now;
        sample->taken = true;
        return NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND;
}

static double per_cent(double part)
{
    return part * 100.0;
}

static void answer(nvmlGpmMetric_t *metric, const struct sim_sums *average)
{
    metric->nvmlReturn = NVML_SUCCESS;
    switch (metric->metricId) {
    case NVML_GPM_METRIC_GRAPHICS_UTIL:
        metric->value = per_cent(average->duty);
        break;
    case NVML_GPM_METRIC_SM_UTIL:
        metric->value = per_cent(average->sm);
        break;
    case NVML_GPM_METRIC_ANY_TENSOR_UTIL:
    case NVML_GPM_METRIC_HMMA_TENSOR_UTIL:
        metric->value = per_cent(average->tensor);
        break;
    case NVML_GPM_METRIC_DRAM_BW_UTIL:
        metric->value = per_cent(average->dram);
        break;
    case NVML_GPM_METRIC_NVDEC_0_UTIL:
        metric->value = per_cent(average->dec);
        break;
    case NVML_GPM_METRIC_NVENC_0_UTIL:
        metric->value = per_cent(average->enc);
        break;
    default:
        metric->value = 0.0;
        metric->nvmlReturn = NVML_ERROR_NOT_SUPPORTED; /* scenarios know nothing of it */
    }
}

nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get)
{
    ARGUMENT(get);
    REQUIRE(get->version == NVML_GPM_METRICS_GET_VERSION, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    const struct nvmlGpmSample_st *first = get->sample1, *second = get->sample2;
    ARGUMENT(is_sample(get->sample1) && is_sample(get->sample2) && get->numMetrics <= NVML_GPM_METRIC_MAX);
    ARGUMENT(first->taken && second->taken && first->gpu == second->gpu && first->instance == second->instance &&
             first->compute == second->compute);
    struct target target;
    TRY(sim_enter_gpu(__func__, first->gpu, &target));
    ARGUMENT(second->at - first->at >= LEAST_NS);
    struct sim_sums sums;
    if (first->instance != SIM_ANY)
        sim_instance_sums(first->instance, first->at, second->at, &sums);
    else if (first->compute != SIM_ANY)
        sim_parent_sums(first->gpu, first->compute, first->at, second->at, &sums, NULL);
    else
        sim_gpu_sums(first->gpu, first->at, second->at, &sums);
    double seconds = (double)(second->at - first->at) / (double)SIM_SECOND;
    struct sim_sums average = {sums.duty / seconds, sums.sm / seconds, sums.tensor / seconds, sums.dram / seconds,
                               sums.memory / seconds, sums.enc / seconds, sums.dec / seconds};
    for (unsigned int index = 0; index < get->numMetrics; index++)
        answer(&get->metrics[index], &average);
    return NVML_SUCCESS;
}
