"""Several processes that train one model: how they come to be, and how they end together.

Two ways lead here. `--devices N` starts N - 1 more copies of the command that is running; torchrun
starts all N of them, and says so in the environment. Either way process 0 alone claims folders,
prepares raw logs, measures and writes; the others read their share of each batch's rows.

When one process fails, it counts up a mark in the group's store before it ends. Whoever counted
first tells the user; the others find their connection closed, look at the mark, and end in silence.
"""

import inspect
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bitfold.errors import BitfoldError
from bitfold.progress import is_first_process
from bitfold.training.starting import STARTED, end_others, start, was_started, watch_first

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bitfold.runs.options import TrainConfig

FAILED = "bitfold/failed"  # the mark in the group's store
PATIENCE = timedelta(days=7)  # the first process may prepare a log, or measure, for hours
MISTAKE = 2  # the code of a mistake that the first process tells
LAST_WORD = 3.0  # seconds that it has to tell it


class OtherProcessFailed(BitfoldError):
    """Another process of the same training failed; `told` if it is the one that says why."""

    def __init__(self, told: bool) -> None:
        self.told = told
        super().__init__(
            "another process of this training ended",
            got="a closed connection",
            expected="processes that train to the end together",
            fix="see what that process said, then go on with --resume",
        )


@dataclass(frozen=True)
class Place:
    """Where this process stands among all that train together.

    Args:
        world: how many there are.
        local: how many of them are on this machine.
        rank: 0 for the process that claims, writes and tells.
    """

    world: int = 1
    local: int = 1
    rank: int = 0

    @property
    def nodes(self) -> int:
        """How many machines there are."""
        return max(self.world // self.local, 1)


def place_of_process() -> Place | None:
    """This process's place, as torchrun or `start` put it in the environment; None if alone.

    Raises:
        BitfoldError: the environment's numbers make no sense.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    if not all(name in os.environ for name in names):
        return None
    texts = [os.environ[name] for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE") if name in os.environ]
    try:
        world, local = int(texts[0]), int(texts[-1])
        rank = int(os.environ["RANK"])
    except ValueError:
        world = local = rank = -1
    if not (1 <= local <= world and 0 <= rank < world and world % local == 0):
        raise BitfoldError(
            "the environment of several processes makes no sense",
            got=", ".join(f"{name}={os.environ[name]}" for name in names),
            expected="the variables that torchrun sets",
            fix="unset them to train in one process",
        )
    return Place(world, local, rank)


def only_one(what: str, devices: int = 1) -> None:
    """Refuse what cannot be done by several processes.

    Raises:
        BitfoldError: torchrun, or `start`, made several; or `devices` asks for them.
    """
    found = place_of_process()
    world = devices if found is None else max(found.world, devices)
    if world > 1:
        raise BitfoldError(
            f"only `bitfold train` runs in several processes, {what} does not",
            got=f"{world} processes",
            expected="one",
            fix="run it without torchrun and --devices",
        )


def end(code: int) -> None:
    """End a failed process that trained with others at once, without its threads' last words.

    Of a mistake that all of them meet the first one tells; torchrun ends all when one ends, so the
    others leave it the time to.
    """
    found = place_of_process()
    if code and found is not None and found.world > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        if found.rank > 0 and code == MISTAKE:
            time.sleep(LAST_WORD)
        os._exit(code)


def agreed(devices: int) -> int:
    """How many processes train: those that there are, or else what `devices` asks for.

    Raises:
        BitfoldError: there are several already, and `devices` says another number above 1.
    """
    found = place_of_process()
    if found is None:
        return devices
    if devices not in (1, found.world):
        by = "this script's first training" if STARTED in os.environ else "torchrun"
        raise BitfoldError(
            f"{by} started another number of processes than devices says",
            got=f"devices={devices}, {found.world} processes",
            expected="the same number",
            fix="leave devices out",
        )
    return found.world


def make_fabric(config: "TrainConfig") -> "Fabric":
    """Devices, processes and precision, by Lightning Fabric; other processes are started.

    `config.devices` is the number of all processes, as `agreed` gives it.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    several = config.devices > 1
    found = place_of_process()
    if several and found is None:
        start(config.devices)
        found = place_of_process()
    elif several and was_started():
        threading.Thread(target=watch_first, daemon=True).start()
    nodes = found.nodes if found else 1
    options: dict[str, Any] = {}
    if several:
        options = {
            "strategy": DDPStrategy(timeout=PATIENCE, **_no_buffers(), **_no_weights(config)),
            "plugins": [TorchElasticEnvironment()],
        }
    try:
        fabric = Fabric(
            accelerator=config.device,
            devices=config.devices // nodes,
            num_nodes=nodes,
            precision="bf16-mixed" if config.precision == "bf16" else "32-true",
            **options,
        )
    except (ValueError, RuntimeError) as error:
        raise BitfoldError(
            f"the device {config.device!r} cannot be used",
            got=str(error).splitlines()[0],
            expected="auto, cpu, cuda or mps, as this machine has",
        ) from None
    if several:
        with _quiet_lightning():
            fabric.launch()
    return fabric


def _no_buffers() -> dict[str, Any]:
    """What keeps DDP from sending the first process's buffers to the others before each step.

    There is nothing to send: every process makes the same buffers from the same plan.
    """
    from torch.nn.parallel import DistributedDataParallel

    known = inspect.signature(DistributedDataParallel.__init__).parameters
    new = "forward_sync_buffers"
    return {new if new in known else "broadcast_buffers": False}


def _no_weights(config: "TrainConfig") -> dict[str, Any]:
    """What keeps DDP from sending the first process's weights to the others at the beginning.

    Rows that are codes cannot be written so. Every process draws the same from the seed.
    """
    from bitfold.method.registry import recipe_meant

    coded = recipe_meant(config.method, config.set).low_precision
    return {"init_sync": False} if coded else {}


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Without Lightning's lines about processes that have met."""
    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def together(fabric: "Fabric") -> Iterator[None]:
    """Within it, what one process raises ends all of them, and one of them tells why.

    It may stand in itself.

    Raises:
        OtherProcessFailed: instead of the error of a connection that another process closed.
    """
    if fabric.world_size == 1:
        yield
        return
    try:
        yield
    except Exception as error:
        if hasattr(error, "told"):
            raise
        first = _count_failure()
        mine = first == 1 or (first is None and not _of_connection(error))
        end_others(0.0 if mine else 5.0)  # another one may be about to tell
        if mine and not _of_connection(error):
            error.told = True  # type: ignore[attr-defined]
            raise
        raise OtherProcessFailed(told=mine) from error
    except KeyboardInterrupt:
        if is_first_process():  # it says "stopped"
            _count_failure()
        end_others(0.0)
        raise


def _of_connection(error: Exception) -> bool:
    """Whether an error says that a process went away, and not what is wrong."""
    import torch

    kinds = (torch.distributed.DistError,)
    texts = ("gloo", "Connection closed by peer", "Connection reset", "Broken pipe", "NCCL")
    if isinstance(error, kinds):
        return True
    return type(error) is RuntimeError and any(text in str(error) for text in texts)


def _count_failure() -> int | None:
    """How many processes have failed, this one included; None if the store is gone."""
    import torch

    try:
        store = torch.distributed.distributed_c10d._get_default_store()
        store.set_timeout(timedelta(seconds=10))
        return int(store.add(FAILED, 1))
    except Exception:
        return None
