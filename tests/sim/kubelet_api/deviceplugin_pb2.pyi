from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Nothing(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Options(_message.Message):
    __slots__ = ("preferred_allocation",)
    PREFERRED_ALLOCATION_FIELD_NUMBER: _ClassVar[int]
    preferred_allocation: bool
    def __init__(self, preferred_allocation: _Optional[bool] = ...) -> None: ...

class Registration(_message.Message):
    __slots__ = ("version", "endpoint", "resource_name", "options")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    version: str
    endpoint: str
    resource_name: str
    options: Options
    def __init__(self, version: _Optional[str] = ..., endpoint: _Optional[str] = ..., resource_name: _Optional[str] = ..., options: _Optional[_Union[Options, _Mapping]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("id", "health")
    ID_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    id: str
    health: str
    def __init__(self, id: _Optional[str] = ..., health: _Optional[str] = ...) -> None: ...

class Devices(_message.Message):
    __slots__ = ("devices",)
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    def __init__(self, devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ...) -> None: ...

class Preference(_message.Message):
    __slots__ = ("containers",)
    class Container(_message.Message):
        __slots__ = ("available", "must_include", "count")
        AVAILABLE_FIELD_NUMBER: _ClassVar[int]
        MUST_INCLUDE_FIELD_NUMBER: _ClassVar[int]
        COUNT_FIELD_NUMBER: _ClassVar[int]
        available: _containers.RepeatedScalarFieldContainer[str]
        must_include: _containers.RepeatedScalarFieldContainer[str]
        count: int
        def __init__(self, available: _Optional[_Iterable[str]] = ..., must_include: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ...) -> None: ...
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[Preference.Container]
    def __init__(self, containers: _Optional[_Iterable[_Union[Preference.Container, _Mapping]]] = ...) -> None: ...

class Preferred(_message.Message):
    __slots__ = ("containers",)
    class Container(_message.Message):
        __slots__ = ("ids",)
        IDS_FIELD_NUMBER: _ClassVar[int]
        ids: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[Preferred.Container]
    def __init__(self, containers: _Optional[_Iterable[_Union[Preferred.Container, _Mapping]]] = ...) -> None: ...

class Allocation(_message.Message):
    __slots__ = ("containers",)
    class Container(_message.Message):
        __slots__ = ("ids",)
        IDS_FIELD_NUMBER: _ClassVar[int]
        ids: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[Allocation.Container]
    def __init__(self, containers: _Optional[_Iterable[_Union[Allocation.Container, _Mapping]]] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("container_path", "host_path", "read_only")
    CONTAINER_PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_PATH_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    container_path: str
    host_path: str
    read_only: bool
    def __init__(self, container_path: _Optional[str] = ..., host_path: _Optional[str] = ..., read_only: _Optional[bool] = ...) -> None: ...

class Allocated(_message.Message):
    __slots__ = ("containers",)
    class Container(_message.Message):
        __slots__ = ("environment", "mounts", "annotations")
        class EnvironmentEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        class AnnotationsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
        MOUNTS_FIELD_NUMBER: _ClassVar[int]
        ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
        environment: _containers.ScalarMap[str, str]
        mounts: _containers.RepeatedCompositeFieldContainer[Mount]
        annotations: _containers.ScalarMap[str, str]
        def __init__(self, environment: _Optional[_Mapping[str, str]] = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., annotations: _Optional[_Mapping[str, str]] = ...) -> None: ...
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    containers: _containers.RepeatedCompositeFieldContainer[Allocated.Container]
    def __init__(self, containers: _Optional[_Iterable[_Union[Allocated.Container, _Mapping]]] = ...) -> None: ...
