/* Field values: many numbers in one call, each with its own result. */
#include "sim.h"

#define XID_DOUBLE_BIT 48u
#define XID_ROW_REMAP 63u

static unsigned int faults_so_far(const struct target *target, uint32_t xid)
{
    unsigned int count = 0;
    for (uint32_t index = 0; index < sim_state->fault_count; index++) {
        const struct sim_fault *fault = &sim_state->faults[index];
        count += __atomic_load_n(&fault->published, __ATOMIC_ACQUIRE) && fault->kind == SIM_FAULT_XID &&
                 fault->xid == xid && fault->gpu == target->gpu && fault->from_ns <= target->now;
    }
    return count;
}

static void whole(nvmlFieldValue_t *value, unsigned int number)
{
    value->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
    value->value.uiVal = number;
}

static void large(nvmlFieldValue_t *value, unsigned long long number)
{
    value->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
    value->value.ullVal = number;
}

/* Rows that were remapped, by field: XID 63 tells of one, and of its being pending while the fault is on. */
static unsigned int remapped(const struct target *target, unsigned int field)
{
    if (field == NVML_FI_DEV_REMAPPED_UNC)
        return faults_so_far(target, XID_ROW_REMAP);
    if (field == NVML_FI_DEV_REMAPPED_PENDING)
        return sim_fault_active(target->gpu, SIM_FAULT_XID, XID_ROW_REMAP, target->now);
    return 0;
}

static nvmlReturn_t answer(const struct target *target, nvmlFieldValue_t *value)
{
    const struct sim_product *product = target->product;
    switch (value->fieldId) {
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
    case NVML_FI_DEV_ENERGY:
        REQUIRE(product->architecture >= NVML_DEVICE_ARCH_VOLTA, NVML_ERROR_NOT_SUPPORTED);
        large(value, sim_energy_mj(target));
        return NVML_SUCCESS;
    case NVML_FI_DEV_POWER_AVERAGE:
    case NVML_FI_DEV_POWER_INSTANT:
        whole(value, (unsigned int)(sim_power_watts(target) * 1000.0 + 0.5));
        return NVML_SUCCESS;
    case NVML_FI_DEV_POWER_MAX_LIMIT:
    case NVML_FI_DEV_POWER_DEFAULT_LIMIT:
    case NVML_FI_DEV_POWER_CURRENT_LIMIT:
    case NVML_FI_DEV_POWER_REQUESTED_LIMIT:
        whole(value, product->max_watts * 1000);
        return NVML_SUCCESS;
    case NVML_FI_DEV_ECC_CURRENT:
        whole(value, 1);
        return NVML_SUCCESS;
    case NVML_FI_DEV_ECC_DBE_VOL_TOTAL:
        large(value, faults_so_far(target, XID_DOUBLE_BIT));
        return NVML_SUCCESS;
    case NVML_FI_DEV_REMAPPED_COR:
    case NVML_FI_DEV_REMAPPED_FAILURE:
    case NVML_FI_DEV_REMAPPED_UNC:
    case NVML_FI_DEV_REMAPPED_PENDING:
        REQUIRE(product->architecture >= NVML_DEVICE_ARCH_AMPERE, NVML_ERROR_NOT_SUPPORTED);
        whole(value, remapped(target, value->fieldId));
        return NVML_SUCCESS;
    case NVML_FI_DEV_IS_MIG_MODE_INDEPENDENT_MIG_QUERY_CAPABLE:
        whole(value, product->profile_count > 0);
        return NVML_SUCCESS;
    default:
        return value->fieldId < NVML_FI_MAX ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    ARGUMENT(values && count > 0);
    ENTER(device);
    WHOLE_GPU;
    for (int index = 0; index < count; index++) {
        values[index].timestamp = (long long)sim_utc_us(target.now);
        values[index].latencyUsec = 0;
        values[index].nvmlReturn = answer(&target, &values[index]);
    }
    return NVML_SUCCESS;
}
