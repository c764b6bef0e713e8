/* The driver's own samples of power, utilization and clocks. */
#include "sim.h"

/* How many of them the driver keeps. */
#define KEPT 100

static bool known(nvmlSamplingType_t type)
{
    switch (type) {
    case NVML_TOTAL_POWER_SAMPLES:
    case NVML_GPU_UTILIZATION_SAMPLES:
    case NVML_MEMORY_UTILIZATION_SAMPLES:
    case NVML_ENC_UTILIZATION_SAMPLES:
    case NVML_DEC_UTILIZATION_SAMPLES:
    case NVML_PROCESSOR_CLK_SAMPLES:
    case NVML_MEMORY_CLK_SAMPLES:
        return true;
    default:
        return false;
    }
}

static unsigned int sampled(const struct target *target, nvmlSamplingType_t type, int64_t from_ns, int64_t until_ns)
{
    double seconds = (double)(until_ns - from_ns) / (double)SIM_SECOND;
    struct sim_sums sums;
    if (type == NVML_TOTAL_POWER_SAMPLES)
        return (unsigned int)(sim_gpu_joules(target->gpu, from_ns, until_ns) / seconds * 1000.0 + 0.5);
    sim_gpu_sums(target->gpu, from_ns, until_ns, &sums);
    switch (type) {
    case NVML_GPU_UTILIZATION_SAMPLES:
        return sim_percent(sums.duty / seconds);
    case NVML_MEMORY_UTILIZATION_SAMPLES:
        return sim_percent(sums.dram / seconds);
    case NVML_PROCESSOR_CLK_SAMPLES:
        return sums.duty > 0.0 ? target->product->sm_mhz : SIM_IDLE_SM_MHZ;
    case NVML_MEMORY_CLK_SAMPLES:
        return target->product->memory_mhz;
    case NVML_ENC_UTILIZATION_SAMPLES:
        return sim_percent(sums.enc / seconds);
    case NVML_DEC_UTILIZATION_SAMPLES:
        return sim_percent(sums.dec / seconds);
    default:
        return 0;
    }
}

nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type, unsigned long long seen_us,
                                  nvmlValueType_t *value_type, unsigned int *count, nvmlSample_t *samples)
{
    ARGUMENT(count && value_type && known(type) && (!samples || *count));
    ENTER(device);
    WHOLE_GPU;
    bool utilization = type == NVML_GPU_UTILIZATION_SAMPLES || type == NVML_MEMORY_UTILIZATION_SAMPLES ||
                       type == NVML_ENC_UTILIZATION_SAMPLES || type == NVML_DEC_UTILIZATION_SAMPLES;
    REQUIRE(!utilization || !target.state->mig_mode, NVML_ERROR_NOT_SUPPORTED);
    *value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
    if (!samples) {
        *count = KEPT;
        return NVML_SUCCESS;
    }
    int64_t newest = target.now / SIM_SAMPLE_NS;
    unsigned int written = 0;
    for (int64_t number = newest > KEPT ? newest - KEPT + 1 : 1; number <= newest && written < *count; number++) {
        int64_t end = number * SIM_SAMPLE_NS;
        if (sim_utc_us(end) <= seen_us)
            continue;
        samples[written++] = (nvmlSample_t){
            .timeStamp = sim_utc_us(end),
            .sampleValue.uiVal = sampled(&target, type, end - SIM_SAMPLE_NS, end),
        };
    }
    *count = written;
    return written ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
