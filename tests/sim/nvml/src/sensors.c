/* Memory, utilization, power, energy, temperature and clocks. */
#include <pthread.h>

#include "sim.h"

#define MIB (UINT64_C(1) << 20)
#define IDLE_CELSIUS 30
#define LOAD_CELSIUS 45
#define SLOWDOWN_CELSIUS 90u
#define SHUTDOWN_CELSIUS 95u
/* One part in so many of the framebuffer is the driver's own. */
#define RESERVED_PART 128u

unsigned int sim_percent(double part)
{
    double value = part * 100.0 + 0.5;
    return value >= 100.0 ? 100u : (unsigned int)value;
}

uint64_t sim_memory_total(const struct target *target)
{
    if (target->compute == SIM_ANY)
        return target->product->memory_mib * MIB;
    const struct sim_instance *instance = &sim_state->instances[sim_instance_of(target->compute)];
    return sim_profile(target->gpu, instance->profile_id)->memory_mib * MIB;
}

/* A GPU's memory is that of all that runs on it; compute instances of one GPU instance share theirs. */
uint64_t sim_memory_used(const struct target *target)
{
    uint64_t bytes = 0;
    for (uint32_t slot = 0; slot < sim_state->process_count; slot++) {
        const struct sim_process *process = &sim_state->processes[slot];
        if (process->gpu != target->gpu)
            continue;
        if (target->compute != SIM_ANY &&
            (process->compute == SIM_ANY || sim_instance_of(process->compute) != sim_instance_of(target->compute)))
            continue;
        bytes += sim_process_bytes(slot, target->now);
    }
    return bytes;
}

static nvmlReturn_t memory_info(const char *call, nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct target target;
    TRY(sim_enter(call, device, &target));
    AGGREGATE_NEEDS_PRIVILEGE;
    memory->total = sim_memory_total(&target);
    memory->reserved = memory->total / RESERVED_PART / MIB * MIB;
    memory->used = sim_memory_used(&target);
    uint64_t taken = memory->used + memory->reserved;
    memory->free = taken < memory->total ? memory->total - taken : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    ARGUMENT(memory);
    nvmlMemory_v2_t found;
    TRY(memory_info(__func__, device, &found));
    *memory = (nvmlMemory_t){.total = found.total, .free = found.free, .used = found.total - found.free};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    ARGUMENT(memory);
    REQUIRE(memory->version == nvmlMemory_v2, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    return memory_info(__func__, device, memory);
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory)
{
    ARGUMENT(memory);
    ENTER(device);
    AGGREGATE_NEEDS_PRIVILEGE;
    uint64_t total = sim_memory_total(&target);
    *memory = (nvmlBAR1Memory_t){.bar1Total = total, .bar1Free = total, .bar1Used = 0};
    return NVML_SUCCESS;
}

/* The newest whole sample period. */
static int64_t sample_end(const struct target *target)
{
    return target->now / SIM_SAMPLE_NS * SIM_SAMPLE_NS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    ARGUMENT(utilization);
    ENTER(device);
    NOT_UNDER_MIG;
    struct sim_sums sums;
    int64_t end = sample_end(&target);
    sim_gpu_sums(target.gpu, end - SIM_SAMPLE_NS, end, &sums);
    double seconds = (double)SIM_SAMPLE_NS / (double)SIM_SECOND;
    *utilization = (nvmlUtilization_t){.gpu = sim_percent(sums.duty / seconds),
                                       .memory = sim_percent(sums.dram / seconds)};
    return NVML_SUCCESS;
}

static nvmlReturn_t media_engine(const char *call, nvmlDevice_t device, bool encoder, unsigned int *utilization,
                                 unsigned int *period)
{
    ARGUMENT(utilization && period);
    struct target target;
    TRY(sim_enter(call, device, &target));
    NOT_UNDER_MIG;
    struct sim_sums sums;
    int64_t end = sample_end(&target);
    sim_gpu_sums(target.gpu, end - SIM_SAMPLE_NS, end, &sums);
    *utilization = sim_percent((encoder ? sums.enc : sums.dec) / ((double)SIM_SAMPLE_NS / (double)SIM_SECOND));
    *period = SIM_SAMPLE_NS / 1000;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *utilization, unsigned int *period)
{
    return media_engine(__func__, device, true, utilization, period);
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *utilization, unsigned int *period)
{
    return media_engine(__func__, device, false, utilization, period);
}

double sim_power_watts(const struct target *target)
{
    int64_t from = target->now - SIM_SECOND;
    if (from < 0)
        from = 0;
    if (from == target->now)
        return target->product->idle_watts;
    return sim_gpu_joules(target->gpu, from, target->now) / ((double)(target->now - from) / (double)SIM_SECOND);
}

/* The counter starts anew when the driver is loaded, and where a fault says so. */
static int64_t counter_start(const struct target *target)
{
    int64_t start = 0;
    for (uint32_t index = 0; index < sim_state->fault_count; index++) {
        const struct sim_fault *fault = &sim_state->faults[index];
        if (!__atomic_load_n(&fault->published, __ATOMIC_ACQUIRE) ||
            (fault->gpu != target->gpu && fault->gpu != SIM_ANY))
            continue;
        int64_t at = fault->kind == SIM_FAULT_COUNTER_RESET   ? fault->from_ns
                     : fault->kind == SIM_FAULT_DRIVER_RELOAD ? fault->until_ns
                                                              : 0;
        if (at <= target->now && at > start)
            start = at;
    }
    return start;
}

/* The past does not change, so each reading adds only what came after the one before. */
uint64_t sim_energy_mj(const struct target *target)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        int64_t start, until;
        double joules;
    } known[SIM_MAX_GPUS];
    int64_t start = counter_start(target);
    pthread_mutex_lock(&lock);
    if (known[target->gpu].start != start || known[target->gpu].until > target->now ||
        known[target->gpu].until < start) {
        known[target->gpu].start = known[target->gpu].until = start;
        known[target->gpu].joules = 0.0;
    }
    known[target->gpu].joules += sim_gpu_joules(target->gpu, known[target->gpu].until, target->now);
    known[target->gpu].until = target->now;
    uint64_t millijoules = (uint64_t)(known[target->gpu].joules * 1000.0);
    pthread_mutex_unlock(&lock);
    return millijoules;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy)
{
    ARGUMENT(energy);
    ENTER(device);
    WHOLE_GPU;
    REQUIRE(target.product->architecture >= NVML_DEVICE_ARCH_VOLTA, NVML_ERROR_NOT_SUPPORTED);
    *energy = sim_energy_mj(&target);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power)
{
    ARGUMENT(power);
    ENTER(device);
    WHOLE_GPU;
    *power = (unsigned int)(sim_power_watts(&target) * 1000.0 + 0.5);
    return NVML_SUCCESS;
}

static nvmlReturn_t power_limit(const char *call, nvmlDevice_t device, unsigned int *limit)
{
    ARGUMENT(limit);
    struct target target;
    TRY(sim_enter(call, device, &target));
    WHOLE_GPU;
    *limit = target.product->max_watts * 1000;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *limit)
{
    return power_limit(__func__, device, limit);
}

nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int *limit)
{
    return power_limit(__func__, device, limit);
}

nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit)
{
    return power_limit(__func__, device, limit);
}

int sim_temperature(const struct target *target)
{
    const struct sim_product *product = target->product;
    double load = (sim_power_watts(target) - product->idle_watts) / (product->max_watts - product->idle_watts);
    return IDLE_CELSIUS + (int)(LOAD_CELSIUS * load + 0.5);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *celsius)
{
    ARGUMENT(celsius && sensor == NVML_TEMPERATURE_GPU);
    ENTER(device);
    WHOLE_GPU;
    *celsius = (unsigned int)sim_temperature(&target);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    ARGUMENT(temperature);
    REQUIRE(temperature->version == nvmlTemperature_v1, NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    ARGUMENT(temperature->sensorType == NVML_TEMPERATURE_GPU);
    ENTER(device);
    WHOLE_GPU;
    temperature->temperature = sim_temperature(&target);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t which,
                                               unsigned int *celsius)
{
    ARGUMENT(celsius && which < NVML_TEMPERATURE_THRESHOLD_COUNT);
    ENTER(device);
    WHOLE_GPU;
    REQUIRE(which <= NVML_TEMPERATURE_THRESHOLD_SLOWDOWN, NVML_ERROR_NOT_SUPPORTED);
    *celsius = which == NVML_TEMPERATURE_THRESHOLD_SHUTDOWN ? SHUTDOWN_CELSIUS : SLOWDOWN_CELSIUS;
    return NVML_SUCCESS;
}

/* Whether anything ran in the last second: a GPU at rest clocks down. */
static bool busy(const struct target *target)
{
    struct sim_sums sums;
    sim_gpu_sums(target->gpu, target->now - SIM_SECOND, target->now, &sums);
    return sums.duty > 0.0;
}

static nvmlReturn_t clock_mhz(const char *call, nvmlDevice_t device, nvmlClockType_t type, bool most, unsigned int *mhz)
{
    ARGUMENT(mhz && type < NVML_CLOCK_COUNT);
    struct target target;
    TRY(sim_enter(call, device, &target));
    if (type == NVML_CLOCK_MEM)
        *mhz = target.product->memory_mhz;
    else
        *mhz = most || busy(&target) ? target.product->sm_mhz : SIM_IDLE_SM_MHZ;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *mhz)
{
    return clock_mhz(__func__, device, type, false, mhz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *mhz)
{
    return clock_mhz(__func__, device, type, true, mhz);
}

static nvmlReturn_t clock_reasons(const char *call, nvmlDevice_t device, unsigned long long *reasons)
{
    ARGUMENT(reasons);
    struct target target;
    TRY(sim_enter(call, device, &target));
    WHOLE_GPU;
    *reasons = nvmlClocksEventReasonNone;
    if (!busy(&target))
        *reasons |= nvmlClocksEventReasonGpuIdle;
    else if (sim_power_watts(&target) >= target.product->max_watts)
        *reasons |= nvmlClocksEventReasonSwPowerCap;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    return clock_reasons(__func__, device, reasons);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    return clock_reasons(__func__, device, reasons);
}

static nvmlReturn_t supported_reasons(const char *call, nvmlDevice_t device, unsigned long long *reasons)
{
    ARGUMENT(reasons);
    struct target target;
    TRY(sim_enter(call, device, &target));
    WHOLE_GPU;
    *reasons = nvmlClocksEventReasonGpuIdle | nvmlClocksEventReasonSwPowerCap;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    return supported_reasons(__func__, device, reasons);
}

nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons)
{
    return supported_reasons(__func__, device, reasons);
}

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *state)
{
    ARGUMENT(state);
    ENTER(device);
    WHOLE_GPU;
    *state = busy(&target) || target.product->architecture >= NVML_DEVICE_ARCH_AMPERE ? NVML_PSTATE_0 : NVML_PSTATE_8;
    return NVML_SUCCESS;
}
