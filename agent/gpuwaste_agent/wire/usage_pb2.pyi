from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Sharing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SHARING_UNSPECIFIED: _ClassVar[Sharing]
    EXCLUSIVE: _ClassVar[Sharing]
    TIME_SLICING: _ClassVar[Sharing]
    MPS: _ClassVar[Sharing]

class Join(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOIN_UNSPECIFIED: _ClassVar[Join]
    EXACT: _ClassVar[Join]
    LOG_DIR: _ClassVar[Join]
    NAME: _ClassVar[Join]
    PROCESS: _ClassVar[Join]
    NONE: _ClassVar[Join]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    origin_unspecified: _ClassVar[Origin]
    gpm: _ClassVar[Origin]
    dcgm_prof: _ClassVar[Origin]
    process: _ClassVar[Origin]
    device: _ClassVar[Origin]
    apportioned: _ClassVar[Origin]
SHARING_UNSPECIFIED: Sharing
EXCLUSIVE: Sharing
TIME_SLICING: Sharing
MPS: Sharing
JOIN_UNSPECIFIED: Join
EXACT: Join
LOG_DIR: Join
NAME: Join
PROCESS: Join
NONE: Join
origin_unspecified: Origin
gpm: Origin
dcgm_prof: Origin
process: Origin
device: Origin
apportioned: Origin

class Batch(_message.Message):
    __slots__ = ("journal_id", "node", "node_uid", "cluster", "first_seq", "records", "next_seq", "more")
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_UID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    journal_id: str
    node: str
    node_uid: str
    cluster: str
    first_seq: int
    records: _containers.RepeatedCompositeFieldContainer[Record]
    next_seq: int
    more: bool
    def __init__(self, journal_id: _Optional[str] = ..., node: _Optional[str] = ..., node_uid: _Optional[str] = ..., cluster: _Optional[str] = ..., first_seq: _Optional[int] = ..., records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ..., next_seq: _Optional[int] = ..., more: _Optional[bool] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("seq", "window_start_unix_ns", "window_ns", "usage", "device", "node_facts", "gap", "journal_id", "node", "node_uid", "cluster")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_NS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NODE_FACTS_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    NODE_UID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    seq: int
    window_start_unix_ns: int
    window_ns: int
    usage: Usage
    device: Device
    node_facts: NodeFacts
    gap: Gap
    journal_id: str
    node: str
    node_uid: str
    cluster: str
    def __init__(self, seq: _Optional[int] = ..., window_start_unix_ns: _Optional[int] = ..., window_ns: _Optional[int] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., device: _Optional[_Union[Device, _Mapping]] = ..., node_facts: _Optional[_Union[NodeFacts, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., journal_id: _Optional[str] = ..., node: _Optional[str] = ..., node_uid: _Optional[str] = ..., cluster: _Optional[str] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("origin", "coverage_ppm", "resolution_ms", "low", "high")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_PPM_FIELD_NUMBER: _ClassVar[int]
    RESOLUTION_MS_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    origin: Origin
    coverage_ppm: int
    resolution_ms: int
    low: float
    high: float
    def __init__(self, origin: _Optional[_Union[Origin, str]] = ..., coverage_ppm: _Optional[int] = ..., resolution_ms: _Optional[int] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Figures(_message.Message):
    __slots__ = ("duty_ns", "sm_ns", "tensor_ns", "dram_ns", "enc_ns", "dec_ns", "copy_ns", "pcie_bytes", "nvlink_bytes", "memory_byte_s", "memory_peak_bytes", "energy_mj", "histogram_ns", "duty_quality", "sm_quality", "tensor_quality", "dram_quality", "enc_quality", "dec_quality", "copy_quality", "pcie_quality", "nvlink_quality", "memory_quality", "energy_quality")
    DUTY_NS_FIELD_NUMBER: _ClassVar[int]
    SM_NS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_NS_FIELD_NUMBER: _ClassVar[int]
    DRAM_NS_FIELD_NUMBER: _ClassVar[int]
    ENC_NS_FIELD_NUMBER: _ClassVar[int]
    DEC_NS_FIELD_NUMBER: _ClassVar[int]
    COPY_NS_FIELD_NUMBER: _ClassVar[int]
    PCIE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NVLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTE_S_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_MJ_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_NS_FIELD_NUMBER: _ClassVar[int]
    DUTY_QUALITY_FIELD_NUMBER: _ClassVar[int]
    SM_QUALITY_FIELD_NUMBER: _ClassVar[int]
    TENSOR_QUALITY_FIELD_NUMBER: _ClassVar[int]
    DRAM_QUALITY_FIELD_NUMBER: _ClassVar[int]
    ENC_QUALITY_FIELD_NUMBER: _ClassVar[int]
    DEC_QUALITY_FIELD_NUMBER: _ClassVar[int]
    COPY_QUALITY_FIELD_NUMBER: _ClassVar[int]
    PCIE_QUALITY_FIELD_NUMBER: _ClassVar[int]
    NVLINK_QUALITY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_QUALITY_FIELD_NUMBER: _ClassVar[int]
    ENERGY_QUALITY_FIELD_NUMBER: _ClassVar[int]
    duty_ns: int
    sm_ns: int
    tensor_ns: int
    dram_ns: int
    enc_ns: int
    dec_ns: int
    copy_ns: int
    pcie_bytes: int
    nvlink_bytes: int
    memory_byte_s: float
    memory_peak_bytes: int
    energy_mj: int
    histogram_ns: _containers.RepeatedScalarFieldContainer[int]
    duty_quality: Quality
    sm_quality: Quality
    tensor_quality: Quality
    dram_quality: Quality
    enc_quality: Quality
    dec_quality: Quality
    copy_quality: Quality
    pcie_quality: Quality
    nvlink_quality: Quality
    memory_quality: Quality
    energy_quality: Quality
    def __init__(self, duty_ns: _Optional[int] = ..., sm_ns: _Optional[int] = ..., tensor_ns: _Optional[int] = ..., dram_ns: _Optional[int] = ..., enc_ns: _Optional[int] = ..., dec_ns: _Optional[int] = ..., copy_ns: _Optional[int] = ..., pcie_bytes: _Optional[int] = ..., nvlink_bytes: _Optional[int] = ..., memory_byte_s: _Optional[float] = ..., memory_peak_bytes: _Optional[int] = ..., energy_mj: _Optional[int] = ..., histogram_ns: _Optional[_Iterable[int]] = ..., duty_quality: _Optional[_Union[Quality, _Mapping]] = ..., sm_quality: _Optional[_Union[Quality, _Mapping]] = ..., tensor_quality: _Optional[_Union[Quality, _Mapping]] = ..., dram_quality: _Optional[_Union[Quality, _Mapping]] = ..., enc_quality: _Optional[_Union[Quality, _Mapping]] = ..., dec_quality: _Optional[_Union[Quality, _Mapping]] = ..., copy_quality: _Optional[_Union[Quality, _Mapping]] = ..., pcie_quality: _Optional[_Union[Quality, _Mapping]] = ..., nvlink_quality: _Optional[_Union[Quality, _Mapping]] = ..., memory_quality: _Optional[_Union[Quality, _Mapping]] = ..., energy_quality: _Optional[_Union[Quality, _Mapping]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("gpu_uuid", "parent_id", "weight_num", "weight_den", "replicas", "sharing", "allocatable_ns", "unhealthy_ns", "xids", "figures", "unattributed", "mig_profile")
    GPU_UUID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_NUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DEN_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    ALLOCATABLE_NS_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_NS_FIELD_NUMBER: _ClassVar[int]
    XIDS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    UNATTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    MIG_PROFILE_FIELD_NUMBER: _ClassVar[int]
    gpu_uuid: str
    parent_id: str
    weight_num: int
    weight_den: int
    replicas: int
    sharing: Sharing
    allocatable_ns: int
    unhealthy_ns: int
    xids: _containers.RepeatedScalarFieldContainer[int]
    figures: Figures
    unattributed: Figures
    mig_profile: str
    def __init__(self, gpu_uuid: _Optional[str] = ..., parent_id: _Optional[str] = ..., weight_num: _Optional[int] = ..., weight_den: _Optional[int] = ..., replicas: _Optional[int] = ..., sharing: _Optional[_Union[Sharing, str]] = ..., allocatable_ns: _Optional[int] = ..., unhealthy_ns: _Optional[int] = ..., xids: _Optional[_Iterable[int]] = ..., figures: _Optional[_Union[Figures, _Mapping]] = ..., unattributed: _Optional[_Union[Figures, _Mapping]] = ..., mig_profile: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("gpu_uuid", "parent_id", "slice_id", "resource_name", "claim", "namespace", "pod", "pod_uid", "container", "container_id", "join", "held_ns", "held_since_unix_ns", "first_activity_unix_ns", "figures", "missed_processes", "uncertain")
    GPU_UUID_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    SLICE_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    HELD_NS_FIELD_NUMBER: _ClassVar[int]
    HELD_SINCE_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FIRST_ACTIVITY_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    MISSED_PROCESSES_FIELD_NUMBER: _ClassVar[int]
    UNCERTAIN_FIELD_NUMBER: _ClassVar[int]
    gpu_uuid: str
    parent_id: str
    slice_id: str
    resource_name: str
    claim: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    container_id: str
    join: Join
    held_ns: int
    held_since_unix_ns: int
    first_activity_unix_ns: int
    figures: Figures
    missed_processes: int
    uncertain: bool
    def __init__(self, gpu_uuid: _Optional[str] = ..., parent_id: _Optional[str] = ..., slice_id: _Optional[str] = ..., resource_name: _Optional[str] = ..., claim: _Optional[str] = ..., namespace: _Optional[str] = ..., pod: _Optional[str] = ..., pod_uid: _Optional[str] = ..., container: _Optional[str] = ..., container_id: _Optional[str] = ..., join: _Optional[_Union[Join, str]] = ..., held_ns: _Optional[int] = ..., held_since_unix_ns: _Optional[int] = ..., first_activity_unix_ns: _Optional[int] = ..., figures: _Optional[_Union[Figures, _Mapping]] = ..., missed_processes: _Optional[int] = ..., uncertain: _Optional[bool] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("uuid", "index", "model", "product", "memory_bytes", "pci_bus_id", "mig_enabled", "mig_instances", "replicas", "sharing", "architecture", "health")
    UUID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PCI_BUS_ID_FIELD_NUMBER: _ClassVar[int]
    MIG_ENABLED_FIELD_NUMBER: _ClassVar[int]
    MIG_INSTANCES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    index: int
    model: str
    product: str
    memory_bytes: int
    pci_bus_id: str
    mig_enabled: bool
    mig_instances: _containers.RepeatedCompositeFieldContainer[MigInstance]
    replicas: int
    sharing: Sharing
    architecture: str
    health: GpuHealth
    def __init__(self, uuid: _Optional[str] = ..., index: _Optional[int] = ..., model: _Optional[str] = ..., product: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., pci_bus_id: _Optional[str] = ..., mig_enabled: _Optional[bool] = ..., mig_instances: _Optional[_Iterable[_Union[MigInstance, _Mapping]]] = ..., replicas: _Optional[int] = ..., sharing: _Optional[_Union[Sharing, str]] = ..., architecture: _Optional[str] = ..., health: _Optional[_Union[GpuHealth, _Mapping]] = ...) -> None: ...

class GpuHealth(_message.Message):
    __slots__ = ("ecc_enabled", "ecc_corrected", "ecc_uncorrected", "remapped_rows_corrected", "remapped_rows_uncorrected", "remap_pending", "remap_failed", "throttle_reasons", "throttling_known", "xids")
    ECC_ENABLED_FIELD_NUMBER: _ClassVar[int]
    ECC_CORRECTED_FIELD_NUMBER: _ClassVar[int]
    ECC_UNCORRECTED_FIELD_NUMBER: _ClassVar[int]
    REMAPPED_ROWS_CORRECTED_FIELD_NUMBER: _ClassVar[int]
    REMAPPED_ROWS_UNCORRECTED_FIELD_NUMBER: _ClassVar[int]
    REMAP_PENDING_FIELD_NUMBER: _ClassVar[int]
    REMAP_FAILED_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_REASONS_FIELD_NUMBER: _ClassVar[int]
    THROTTLING_KNOWN_FIELD_NUMBER: _ClassVar[int]
    XIDS_FIELD_NUMBER: _ClassVar[int]
    ecc_enabled: bool
    ecc_corrected: int
    ecc_uncorrected: int
    remapped_rows_corrected: int
    remapped_rows_uncorrected: int
    remap_pending: bool
    remap_failed: bool
    throttle_reasons: _containers.RepeatedScalarFieldContainer[str]
    throttling_known: bool
    xids: _containers.RepeatedCompositeFieldContainer[XidCount]
    def __init__(self, ecc_enabled: _Optional[bool] = ..., ecc_corrected: _Optional[int] = ..., ecc_uncorrected: _Optional[int] = ..., remapped_rows_corrected: _Optional[int] = ..., remapped_rows_uncorrected: _Optional[int] = ..., remap_pending: _Optional[bool] = ..., remap_failed: _Optional[bool] = ..., throttle_reasons: _Optional[_Iterable[str]] = ..., throttling_known: _Optional[bool] = ..., xids: _Optional[_Iterable[_Union[XidCount, _Mapping]]] = ...) -> None: ...

class XidCount(_message.Message):
    __slots__ = ("xid", "count")
    XID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    xid: int
    count: int
    def __init__(self, xid: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class MigInstance(_message.Message):
    __slots__ = ("uuid", "profile", "start", "weight_num", "weight_den", "place_unknown", "replicas", "sharing")
    UUID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_NUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DEN_FIELD_NUMBER: _ClassVar[int]
    PLACE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    uuid: str
    profile: str
    start: int
    weight_num: int
    weight_den: int
    place_unknown: bool
    replicas: int
    sharing: Sharing
    def __init__(self, uuid: _Optional[str] = ..., profile: _Optional[str] = ..., start: _Optional[int] = ..., weight_num: _Optional[int] = ..., weight_den: _Optional[int] = ..., place_unknown: _Optional[bool] = ..., replicas: _Optional[int] = ..., sharing: _Optional[_Union[Sharing, str]] = ...) -> None: ...

class NodeFacts(_message.Message):
    __slots__ = ("driver_version", "cuda_version", "nvml_version", "gpus", "topology_json", "mode", "boot_id", "agent_version")
    DRIVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    CUDA_VERSION_FIELD_NUMBER: _ClassVar[int]
    NVML_VERSION_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_JSON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    driver_version: str
    cuda_version: str
    nvml_version: str
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    topology_json: str
    mode: str
    boot_id: str
    agent_version: str
    def __init__(self, driver_version: _Optional[str] = ..., cuda_version: _Optional[str] = ..., nvml_version: _Optional[str] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., topology_json: _Optional[str] = ..., mode: _Optional[str] = ..., boot_id: _Optional[str] = ..., agent_version: _Optional[str] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("from_unix_ns", "to_unix_ns", "reason", "lost_records")
    FROM_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    TO_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LOST_RECORDS_FIELD_NUMBER: _ClassVar[int]
    from_unix_ns: int
    to_unix_ns: int
    reason: str
    lost_records: int
    def __init__(self, from_unix_ns: _Optional[int] = ..., to_unix_ns: _Optional[int] = ..., reason: _Optional[str] = ..., lost_records: _Optional[int] = ...) -> None: ...
