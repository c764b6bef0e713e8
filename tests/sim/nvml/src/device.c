/* Which GPUs there are, and what they are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sim.h"

#define FIRST_BUS 0x10u
#define LINK_WIDTH 16u
#define VENDOR_SUBSYSTEM 0x147910DEu

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    ARGUMENT(count);
    TRY(sim_enter_library(__func__));
    *count = sim_state->gpu_count;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return nvmlDeviceGetCount_v2(count);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    TRY(sim_enter_library(__func__));
    ARGUMENT(device && index < sim_state->gpu_count);
    struct target target;
    TRY(sim_enter_gpu(__func__, index, &target));
    *device = &sim_gpu_handles[index];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    ARGUMENT(uuid && device);
    TRY(sim_enter_library(__func__));
    uint32_t gpu, compute;
    REQUIRE(sim_find_parent(uuid, &gpu, &compute), NVML_ERROR_NOT_FOUND);
    struct target target;
    TRY(sim_enter_gpu(__func__, gpu, &target));
    *device = compute == SIM_ANY ? &sim_gpu_handles[gpu] : &sim_mig_handles[compute];
    return NVML_SUCCESS;
}

static void bus_id(uint32_t gpu, const char *format, char *text, size_t length)
{
    snprintf(text, length, format, 0u, FIRST_BUS + gpu, 0u);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *asked, nvmlDevice_t *device)
{
    ARGUMENT(asked && device);
    TRY(sim_enter_library(__func__));
    unsigned int domain = 0, bus, slot, function = 0;
    if (sscanf(asked, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
        domain = 0;
        ARGUMENT(sscanf(asked, "%x:%x.%x", &bus, &slot, &function) >= 2);
    }
    REQUIRE(domain == 0 && slot == 0 && function == 0 && bus >= FIRST_BUS && bus - FIRST_BUS < sim_state->gpu_count,
            NVML_ERROR_NOT_FOUND);
    return nvmlDeviceGetHandleByIndex_v2(bus - FIRST_BUS, device);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *asked, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(asked, device);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    ENTER(device);
    if (target.compute == SIM_ANY)
        return sim_copy_text(name, length, target.product->nvml_name);
    const struct sim_compute *compute = &sim_state->computes[target.compute];
    const struct sim_profile *profile = sim_profile(target.gpu, sim_state->instances[compute->instance].profile_id);
    char text[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
    if (compute->slices == profile->slices)
        snprintf(text, sizeof text, "%s MIG %s", target.product->nvml_name, profile->name);
    else
        snprintf(text, sizeof text, "%s MIG %uc.%s", target.product->nvml_name, compute->slices, profile->name);
    return sim_copy_text(name, length, text);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    ENTER(device);
    const char *found = target.compute == SIM_ANY ? target.state->uuid : sim_state->computes[target.compute].uuid;
    return sim_copy_text(uuid, length, found);
}

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
    ARGUMENT(index);
    ENTER(device);
    if (target.compute == SIM_ANY) {
        *index = target.gpu;
        return NVML_SUCCESS;
    }
    unsigned int most = target.product->compute_slices;
    for (unsigned int at = 0; at < most; at++) {
        nvmlDevice_t found;
        if (nvmlDeviceGetMigDeviceHandleByIndex(&sim_gpu_handles[target.gpu], at, &found) == NVML_SUCCESS &&
            found == device) {
            *index = at;
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
    ARGUMENT(minor);
    ENTER(device);
    WHOLE_GPU;
    *minor = target.gpu;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    ENTER(device);
    WHOLE_GPU;
    char text[NVML_DEVICE_SERIAL_BUFFER_SIZE];
    snprintf(text, sizeof text, "%.13s", target.state->uuid + strlen(target.state->uuid) - 12);
    return sim_copy_text(serial, length, text);
}

static nvmlReturn_t pci_info(const char *call, nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    ARGUMENT(pci);
    struct target target;
    TRY(sim_enter(call, device, &target));
    *pci = (nvmlPciInfo_t){
        .bus = FIRST_BUS + target.gpu,
        .pciDeviceId = target.product->pci_id,
        .pciSubSystemId = VENDOR_SUBSYSTEM,
    };
    bus_id(target.gpu, "%04X:%02X:%02X.0", pci->busIdLegacy, sizeof pci->busIdLegacy);
    bus_id(target.gpu, "%08X:%02X:%02X.0", pci->busId, sizeof pci->busId);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    return pci_info(__func__, device, pci);
}

/* Callers of version 2 have a structure that ends before `busId`. */
nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    ARGUMENT(pci);
    nvmlPciInfo_t found;
    TRY(pci_info(__func__, device, &found));
    memcpy(pci, &found, offsetof(nvmlPciInfo_t, busId));
    return NVML_SUCCESS;
}

static nvmlReturn_t link_generation(const char *call, nvmlDevice_t device, unsigned int *generation)
{
    ARGUMENT(generation);
    struct target target;
    TRY(sim_enter(call, device, &target));
    WHOLE_GPU;
    uint32_t architecture = target.product->architecture;
    *generation = architecture >= NVML_DEVICE_ARCH_HOPPER ? 5 : architecture >= NVML_DEVICE_ARCH_AMPERE ? 4 : 3;
    return NVML_SUCCESS;
}

static nvmlReturn_t link_width(const char *call, nvmlDevice_t device, unsigned int *width)
{
    ARGUMENT(width);
    struct target target;
    TRY(sim_enter(call, device, &target));
    WHOLE_GPU;
    *width = LINK_WIDTH;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation)
{
    return link_generation(__func__, device, generation);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t device, unsigned int *generation)
{
    return link_generation(__func__, device, generation);
}

nvmlReturn_t nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t device, unsigned int *width)
{
    return link_width(__func__, device, width);
}

nvmlReturn_t nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t device, unsigned int *width)
{
    return link_width(__func__, device, width);
}

nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, nvmlBrandType_t *brand)
{
    ARGUMENT(brand);
    ENTER(device);
    *brand = strstr(target.product->nvml_name, "Tesla") ? NVML_BRAND_TESLA : NVML_BRAND_NVIDIA;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, nvmlDeviceArchitecture_t *architecture)
{
    ARGUMENT(architecture);
    ENTER(device);
    *architecture = target.product->architecture;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    ARGUMENT(major && minor);
    ENTER(device);
    *major = (int)target.product->cc_major;
    *minor = (int)target.product->cc_minor;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, nvmlEnableState_t *mode)
{
    ARGUMENT(mode);
    ENTER(device);
    *mode = NVML_FEATURE_ENABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetVirtualizationMode(nvmlDevice_t device, nvmlGpuVirtualizationMode_t *mode)
{
    ARGUMENT(mode);
    ENTER(device);
    *mode = NVML_GPU_VIRTUALIZATION_MODE_NONE;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, nvmlComputeMode_t *mode)
{
    ARGUMENT(mode);
    ENTER(device);
    *mode = (nvmlComputeMode_t)target.state->compute_mode;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t device, nvmlComputeMode_t mode)
{
    ENTER(device);
    ARGUMENT(mode < NVML_COMPUTEMODE_COUNT && mode != NVML_COMPUTEMODE_EXCLUSIVE_THREAD);
    REQUIRE(sim_privileged(), NVML_ERROR_NO_PERMISSION);
    __atomic_store_n(&target.state->compute_mode, (uint32_t)mode, __ATOMIC_RELEASE);
    return NVML_SUCCESS;
}
