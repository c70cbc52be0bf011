"""Devices: where values are, and where new ones are generated."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Self

from numparam.errors import ArgumentTypeError, ArgumentValueError, DeviceError
from numparam.text import shown

KINDS = frozenset({"cpu", "cuda"})
"""The kinds of device; the name of a device begins with one."""


class Device(str):
    """Name a device: ``"cpu"``, or ``"cuda:N"`` for the CUDA device of that number.

    A device is a str, so it compares with one. As a context manager it is the default device inside the block.

    Examples
    --------
    >>> cpu = device("cpu")
    >>> cpu == "cpu", cpu.kind, cpu.index
    (True, 'cpu', 0)
    >>> with device("cpu"):
    ...     get_default_device()
    Device('cpu')
    """

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        """Name a device without looking for it; see `device`."""
        return super().__new__(cls, name)

    @property
    def kind(self) -> str:
        """Return ``"cpu"`` or ``"cuda"``."""
        return str(self.partition(":")[0])

    @property
    def index(self) -> int:  # type: ignore[override]
        """Return the number of a CUDA device; 0 for the CPU."""
        return int(self.partition(":")[2] or 0)

    def __enter__(self) -> Device:
        _inside.set((*_inside.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        _inside.set(_inside.get()[:-1])

    def __repr__(self) -> str:
        return f"Device({str(self)!r})"


class DeviceMemory(Device):
    """Name a device that is present, and describe its memory.

    Attributes
    ----------
    name : str
        As its maker calls it.
    total, free : int
        Bytes.
    """

    __slots__ = ("free", "name", "total")
    name: str
    total: int
    free: int

    def __new__(cls, device: str, name: str = "", total: int = 0, free: int = 0) -> DeviceMemory:
        """Describe a device."""
        found = super().__new__(cls, device)
        found.name, found.total, found.free = name, total, free
        return found

    @property
    def device(self) -> Device:
        """Return the name alone."""
        return Device(self)


_CPU = Device("cpu")
_default = _CPU
_inside: ContextVar[tuple[Device, ...]] = ContextVar("devices", default=())


def device(name: str) -> Device:
    """Return a device that is present.

    Parameters
    ----------
    name : str or Device
        ``"cpu"`` in any case, ``"cuda"`` or ``"cuda:N"``; ``"cuda"`` is ``"cuda:0"``.

    Returns
    -------
    Device
        A str, and a context manager that makes it the default device.

    Raises
    ------
    TypeError
        If the name is not a str.
    ValueError
        If it names no kind of device.
    DeviceError
        If the device does not exist; the message has what was looked for and what to install.

    Examples
    --------
    >>> device("CPU")
    Device('cpu')
    """
    if not isinstance(name, str):
        raise ArgumentTypeError(f"a device is named 'cpu', 'cuda' or 'cuda:N', found {shown(name)}")
    if name.lower() == "cpu":
        return _CPU
    match = re.fullmatch(r"cuda(?::(\d+))?", name)
    if match is None:
        raise ArgumentValueError(f"a device is named 'cpu', 'cuda' or 'cuda:N', found {shown(name)}")
    index, count = int(match[1] or 0), _count_cuda(name)
    if index >= count:
        there = "no CUDA device" if not count else "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"device {name!r} was asked for, but the driver has {there}")
    return Device(f"cuda:{index}")


def devices() -> list[DeviceMemory]:
    """List the devices that are present, the CPU first.

    Returns
    -------
    list of DeviceMemory
        Devices with the attributes ``name``, and ``total`` and ``free`` memory in bytes.

    Examples
    --------
    >>> cpu = devices()[0]
    >>> cpu == "cpu", cpu.free <= cpu.total
    (True, True)
    """
    import platform

    found = [DeviceMemory(_CPU, platform.processor() or platform.machine(), *_host_memory())]
    try:
        count = _count_cuda("cuda")
    except DeviceError:
        return found
    from numparam.kernels.machine.driver import get_driver

    driver = get_driver()
    for index in range(count):
        free, total = driver.memory(index)
        found.append(DeviceMemory(Device(f"cuda:{index}"), driver.name(index), total, free))
    return found


def get_default_device() -> Device:
    """Return the device on which new tensors are."""
    inside = _inside.get()
    return inside[-1] if inside else _default


def set_default_device(name: str) -> None:
    """Set the device on which new tensors are, in all threads, outside of ``with device(...)``.

    Parameters
    ----------
    name : str or Device
        As in `device`, with the same errors.
    """
    global _default  # noqa: PLW0603
    _default = device(name)


def _count_cuda(name: str) -> int:
    from numparam.kernels.machine import driver as _driver

    try:
        return _driver.count_devices()
    except _driver.DeviceMissingError as error:
        raise DeviceError(f"device {name!r} was asked for, but {error}") from None


def _host_memory() -> tuple[int, int]:
    """Return bytes of total and free memory of this machine; 0 if unknown."""
    import os

    try:
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0, 0
