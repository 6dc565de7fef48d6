"""The engine of large studies, Dask: workers on this machine, or a scheduler elsewhere; loopback or TLS only."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monai.utils import optional_import

from ...checks import InputError, problem
from .worker import run_part

dask, has_dask = optional_import("dask")
distributed, has_distributed = optional_import("distributed")
_, has_cryptography = optional_import("cryptography")

__all__ = ["check_cluster", "connected", "visible_gpus"]

_FILES = {"tls_ca_file": "ca.pem", "tls_client_cert": "cert.pem", "tls_client_key": "key.pem"}
_CONNECT = 20.0  # seconds


def check_cluster(
    workers: int | None, scheduler: str | None, tls: str | os.PathLike[str] | None, device: str | None = None
) -> None:
    """Refuse what no study could be run on, before anything is prepared.

    Args:
        workers: processes on this machine.
        scheduler: address of a scheduler elsewhere.
        tls: folder of certificate and key.
        device: what was given as ``--device``.

    Raises:
        InputError: for both kinds at once, fewer than one worker, more workers than GPUs, one GPU for all workers, an
            address that is neither on TLS nor on this machine, a folder without the three files, a key that others may
            read; and when Dask is not installed.
    """
    if not (has_dask and has_distributed and has_cryptography):
        came = "Dask distributed or cryptography is not installed"
        raise InputError(problem(came, "workers are processes of Dask", "write: pip install 'volseg[cluster]'"))
    if scheduler is not None and workers is not None:
        came = f"--workers {workers} and --scheduler {scheduler} were given"
        raise InputError(problem(came, "workers are here, or those of a scheduler", "leave one of both out"))
    if device is not None and ":" in device and not device.startswith(("$", "@", "%")):
        came = f"--device is '{device}'"
        raise InputError(problem(came, "each worker has a GPU of its own", "write --device cuda, or leave it out"))
    if scheduler is not None:
        _check_address(scheduler, tls)
        return
    if tls is not None:
        came = "--tls was given without --scheduler"
        raise InputError(problem(came, "workers on this machine make keys of their own", "leave --tls out"))
    gpus = visible_gpus(device)
    if workers is not None and workers < 1 or gpus and (workers or 1) > len(gpus):
        rule = f"it must be 1 to {len(gpus)}, the GPUs that are here" if gpus else "it must be 1 or more"
        raise InputError(
            problem(f"--workers is {workers}", rule, "choose another number" + " or --device cpu" * bool(gpus))
        )


def _check_address(scheduler: str, tls: str | os.PathLike[str] | None) -> None:
    parts = urlsplit(scheduler)
    try:
        known = bool(parts.hostname and parts.port)
    except ValueError:  # a port that is no number
        known = False
    if not known or parts.scheme not in ("tls", "tcp"):
        came = f"--scheduler is '{scheduler}'"
        raise InputError(problem(came, "it is the address of a Dask scheduler", "write for example tls://HOST:8786"))
    if parts.scheme == "tcp" and not _loopback(parts.hostname):
        raise InputError(
            problem(
                f"--scheduler is '{scheduler}', which is neither encrypted nor on this machine",
                "images and results go over a network by TLS alone",
                "start scheduler and workers with --tls-ca-file, --tls-cert and --tls-key, and write tls://HOST:PORT",
            )
        )
    if parts.scheme == "tls":
        _check_files(tls)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_files(tls: str | os.PathLike[str] | None) -> None:
    if tls is None:
        came, remedy = "no --tls was given", "write --tls FOLDER"
        raise InputError(problem(came, "a scheduler on TLS wants a certificate", remedy))
    for name in _FILES.values():
        if not (Path(tls) / name).is_file():
            came = f"'{tls}' holds no {name}"
            raise InputError(problem(came, f"it must hold {', '.join(_FILES.values())}", "name the folder that does"))
    key = Path(tls) / _FILES["tls_client_key"]
    if os.name == "posix" and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        rule = "who has it can run code on every worker"
        raise InputError(problem(f"others may read '{key}'", rule, f"write: chmod 600 {key}"))


def visible_gpus(device: str | None = None) -> list[str]:
    """The GPUs here that a run may use, as ``CUDA_VISIBLE_DEVICES`` names them; none for ``--device cpu``."""
    if device == "cpu":
        return []
    import torch  # here, since it takes seconds that a scheduler elsewhere needs not

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


@contextmanager
def connected(
    workers: int | None, scheduler: str | None, tls: str | os.PathLike[str] | None, device: str | None = None
) -> Iterator[Any]:
    """A Dask client whose workers stand ready, or are on their way; what was started here is ended with it.

    Workers here listen on 127.0.0.1 alone and take only who has the key that was made for them, since on a machine of
    several users any of them reaches that address. One a GPU sees that GPU only.

    Args:
        workers: processes on this machine; by default one a GPU, or one.
        scheduler: address of a scheduler elsewhere, instead.
        tls: folder with ``ca.pem``, ``cert.pem`` and ``key.pem``, for a scheduler elsewhere.
        device: what was given as ``--device``.

    Raises:
        InputError: when the scheduler is not reached.
    """
    with ExitStack() as stack:
        if scheduler is None:
            gpus = visible_gpus(device)
            environments = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:workers]] or [{}] * (workers or 1)
            security = distributed.Security.temporary()
            address: Any = stack.enter_context(_local_cluster(environments, security))
        else:
            files = {} if tls is None else {name: str(Path(tls).resolve() / file) for name, file in _FILES.items()}
            address, security = scheduler, distributed.Security(require_encryption=bool(files), **files)
        try:
            client = distributed.Client(address, security=security, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                problem(
                    f"the scheduler {scheduler} was not reached ({_cause(error)})",
                    "it must run there, and take the certificate of --tls",
                    "start it, and see that its certificate is of the same authority",
                )
            ) from error
        yield stack.enter_context(client)


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


@contextmanager
def _local_cluster(environments: list[Mapping[str, str]], security: Any) -> Iterator[Any]:
    settings = {
        "distributed.nanny.pre-spawn-environ": {},  # one thread each, which is for work in Python
        "distributed.scheduler.http.routes": [],  # pages that tell what runs
        "distributed.worker.http.routes": [],
        "distributed.scheduler.allowed-failures": 0,  # attempts are counted here
    }
    shared = {"host": "127.0.0.1", "protocol": "tls://", "security": security, "dashboard": False}
    single = {"nthreads": 1, "memory_limit": 0, "silence_logs": 40, "preload": [run_part.__module__]}
    with dask.config.set(settings):
        cluster = distributed.SpecCluster(
            workers={
                number: {
                    "cls": distributed.Nanny,
                    "options": {**shared, **single, "env": dict(own)},
                }
                for number, own in enumerate(environments)
            },
            scheduler={
                "cls": distributed.Scheduler,
                "options": {**shared, "port": 0, "dashboard_address": "127.0.0.1:0"},
            },
            security=security,
            silence_logs=50,
        )
        with cluster:
            yield cluster
