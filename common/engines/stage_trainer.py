"""The trainer of one stage of a method: best weights, exact resume, records."""

from __future__ import annotations

import logging
import random
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedTrainer, Workflow
from monai.handlers import TensorBoardStatsHandler
from monai.utils import optional_import

from ..checks import InputError, WeightsError, parse_flag, problem
from ..files import check_writable
from ..visualize.curves import training_curves
from ..weights import load_weights, plain_settings, read_info, save_weights, set_aside
from .distributed import barrier, exchange_gradients, rank, shared_token
from .resume import ResumeFile, check_plan
from .shared_handlers import handlers_for_stage

SummaryWriter, has_tensorboard = optional_import("torch.utils.tensorboard", name="SummaryWriter")

__all__ = ["StageTrainer"]

logger = logging.getLogger(__name__)

# drawing takes longer than a short epoch
SECONDS_BETWEEN_CURVES = 30.0

# Which run a composite is being trained in. The stages of one run share the composite and nothing else; by this they
# know the weights and resume files of their own run from those of an earlier one.
_runs: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()


class StageTrainer(SupervisedTrainer):
    """Train one child of a composite network, and leave the composite's weights with this child at its best epoch.

    It is MONAI's ``SupervisedTrainer`` with the record-keeping that every stage of every method needs:

    - at each best validation the whole composite goes to `model_path`, with a sidecar, by write-and-rename; at the end
      of the stage the best is read back, so that the next stage starts from it;
    - after each epoch a resume file goes to `output_dir`, by write-and-rename. With ``resume`` a run that was killed
      at any moment goes on and ends as an unbroken one does: every epoch draws its randomness anew from `seed` and
      the epoch's number, so nothing but that file is carried over. A stage that is done is not run again;
    - a progress bar, TensorBoard scalars under ``output_dir/tensorboard/STAGE`` and a picture of the curves;
    - under ``torchrun`` the child is wrapped for gradient exchange and rank 0 alone writes.

    Args:
        network_def: the composite that holds every network of the method.
        network: what is trained: the same object when the method has one stage, else the child named by `stage`.
        stage: name of the child, for records; None when the method has one stage.
        optimizer: built over the parameters of `network`.
        lr_scheduler: its state is kept for resuming; who steps it is a ``LrScheduleHandler`` among the handlers.
        evaluator: the validator of this stage; its key metric decides on the best epoch. Without one the last is kept.
        model_path: the bundle's ``models/model.pt``.
        output_dir: folder for resume files, TensorBoard and curves.
        resume: go on from the resume file in `output_dir`, if there is one.
        seed: epoch n draws from ``seed + n`` (plus the rank).
        provenance: what the sidecar shall say of the data: name, licence, split, ``phantom``.
        recipe: what the sidecar shall say of the config: ``"paper"``, or the name of an overlay.
        settings: what prediction must share with training beyond the network: grid, windows, regions. It goes to the
            sidecar, where prediction compares it, and a run is not resumed under other settings.
        shared_handlers: handlers of the last stage, to which callers may have added (MLflow, checkpoint loaders); those
            of a type that `train_handlers` lacks are attached here too, renamed after the stage. Validators and
            schedules are not: they belong to the stage that they were made for.
        kwargs: of ``SupervisedTrainer``.

    Raises:
        WeightsError: when the resume file is of another network or cannot be read.
    """

    def __init__(
        self,
        network_def: torch.nn.Module,
        network: torch.nn.Module,
        *,
        model_path: str,
        output_dir: str,
        stage: str | None = None,
        lr_scheduler: Any = None,
        evaluator: Workflow | None = None,
        resume: bool | str = False,
        seed: int = 0,
        provenance: Mapping[str, Any] | None = None,
        recipe: str = "paper",
        settings: Mapping[str, Any] | None = None,
        shared_handlers: Sequence[Any] = (),
        train_handlers: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.composite, self.child, self.stage = network_def, network, stage or "model"
        self.lr_scheduler, self.evaluator = lr_scheduler, evaluator
        self.model_path, self.output_dir = Path(model_path), Path(output_dir)
        self.resume, self.seed, self.provenance = parse_flag(resume, "resume"), int(seed), dict(provenance or {})
        self.recipe, self.settings = recipe, plain_settings(settings)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self._losses: list[torch.Tensor] = []
        self._learning_rate = 0.0
        self._done = self._opened = False
        self._drawn = time.monotonic()
        self._scaler_state: dict[str, Any] | None = None
        own = tuple(train_handlers or ())
        # taking a batch apart reads its loss, for which the host would wait at every iteration
        kwargs.setdefault("decollate", kwargs.get("postprocessing") is not None)
        super().__init__(network=exchange_gradients(network), train_handlers=own, **kwargs)
        self.add_event_handler(Events.STARTED, StageTrainer._restore_scaler)
        self.add_event_handler(Events.EPOCH_STARTED, StageTrainer._reseed)
        self.add_event_handler(Events.ITERATION_COMPLETED, StageTrainer._note_loss)
        # after the handlers of the config, so that validation and the schedule have had their turn
        self.add_event_handler(Events.EPOCH_COMPLETED, StageTrainer._record_epoch)
        self.add_event_handler(Events.COMPLETED, StageTrainer._record_end)
        self._shared = handlers_for_stage(shared_handlers, own, self.stage)
        for handler in self._shared:
            handler.attach(self)

    # -- where things lie ------------------------------------------------------------------------------------------

    @property
    def resume_path(self) -> Path:
        """The resume file of this stage; outside ``models/``, where consumers take every ``.pt`` for weights."""
        return self.output_dir / f"resume_{self.stage}.pt"

    @property
    def _resume_file(self) -> ResumeFile:
        return ResumeFile(self.resume_path, self.composite, self.optimizer, self.lr_scheduler)

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train the stage from the start, or from where the resume file left it, and read its best weights back."""
        if rank() == 0:
            self._open_records()
        if not (self.resume and self.resume_path.is_file() and self._restore()):
            self.best = None  # federated rounds run one trainer many times, each from the weights it was given
            _runs.setdefault(self.composite, shared_token())
        if self._done:
            logger.info("stage '%s' was done after %d epochs: nothing to resume.", self.stage, self.state.epoch)
        else:
            if hasattr(dataset := getattr(self.data_loader, "dataset", None), "fill"):
                dataset.fill()
            super().run()
        barrier()  # rank 0 may still be writing what the others read back
        if self.best is not None:
            self._read_best_back()
            logger.info("stage '%s': best epoch %d, in %s.", self.stage, self.best["epoch"], self.model_path.name)

    def _read_best_back(self) -> None:
        # only this child: on resuming, the file may already hold a later stage, which has a resume file of its own
        prefix = next(
            f"{name}." * bool(name) for name, module in self.composite.named_modules() if module is self.child
        )
        rest = {key: value.clone() for key, value in self.composite.state_dict().items() if not key.startswith(prefix)}
        info = load_weights(self.composite, self.model_path)
        if info.get("run") != _runs.get(self.composite):
            raise WeightsError(
                problem(
                    f"'{self.model_path}' was written by another training than '{self.resume_path}'",
                    "a stage goes on from the weights of its own run",
                    "train without --resume, or with a model_path and output_dir of its own",
                )
            )
        self.composite.load_state_dict(rest, strict=False)

    def _reseed(self) -> None:
        self.state.metrics.clear()  # an epoch that is not validated must not show the scores of the one before
        self._learning_rate = float(self.optimizer.param_groups[0]["lr"])
        seed = self.seed + self.state.epoch + 10_000 * rank()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        transform = getattr(getattr(self.data_loader, "dataset", None), "transform", None)
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(seed=seed)
        # ignite would go on with the order that the loader drew in an earlier epoch
        self.set_data(self.data_loader)

    def _note_loss(self) -> None:
        # the value stays on the device: the host does not wait for it before the epoch ends
        self._losses.append(_loss_of(self.state.output).detach())

    def _mean_loss(self) -> float:
        loss = float(torch.stack(self._losses).mean())
        self._losses.clear()
        if not np.isfinite(loss):
            raise InputError(
                problem(
                    f"the loss of stage '{self.stage}' became {loss} in epoch {self.state.epoch}",
                    "training can not go on from there",
                    "lower the learning rate, or look for corrupt images; what was saved before is untouched",
                )
            )
        return loss

    # -- records ---------------------------------------------------------------------------------------------------

    def _open_records(self) -> None:
        """Make sure that records can be written before hours are spent, and begin them; once a trainer."""
        for folder in (self.output_dir, self.model_path.parent):
            check_writable(folder)
        if self._opened:
            return
        self._opened = True
        ProgressBar(desc=self.stage, persist=False, ncols=100, disable=None).attach(self)
        if has_tensorboard:
            self.writer = SummaryWriter(str(self.output_dir / "tensorboard" / self.stage))
            if self.evaluator is not None:
                TensorBoardStatsHandler(summary_writer=self.writer, iteration_log=False).attach(self.evaluator)

    def _validate(self) -> tuple[str, float] | None:
        """Name and value of the key metric, if this epoch was validated. The last epoch always is."""
        if self.evaluator is None:
            return None
        if self.evaluator.state.epoch != self.state.epoch and self.state.epoch == self.state.max_epochs:
            self.evaluator.run(self.state.epoch)
        name = self.evaluator.state.key_metric_name
        if self.evaluator.state.epoch != self.state.epoch or name not in self.evaluator.state.metrics:
            return None
        return name, float(self.evaluator.state.metrics[name])

    def _record_epoch(self) -> None:
        epoch = self.state.epoch
        row = {"epoch": epoch, "loss": self._mean_loss(), "learning_rate": self._learning_rate}
        validated = self._validate()
        if validated is not None:
            row[validated[0]] = validated[1]
            if self._shared:  # they are attached after this handler and see it; the evaluator has handlers of its own
                self.state.metrics[f"{self.stage}_{validated[0]}"] = validated[1]
        self.history.append(row)
        if self._is_best(validated):
            self.best = {"epoch": epoch, "score": validated[1] if validated else None}
            if rank() == 0:
                self._save_best(validated[0] if validated else "last epoch")
        if rank() == 0:
            text = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
            logger.info("stage '%s', epoch %d of %d: %s", self.stage, epoch, self.state.max_epochs, text)
            self._save_resume()
            if has_tensorboard:
                for name in ("loss", "learning_rate"):
                    self.writer.add_scalar(f"train_{name}", row[name], epoch)
            if time.monotonic() - self._drawn > SECONDS_BETWEEN_CURVES:
                self._draw_curves()

    def _record_end(self) -> None:
        self._done = True
        if rank() == 0:
            self._save_resume()
            self._draw_curves()
            if has_tensorboard:
                self.writer.flush()

    def _draw_curves(self) -> None:
        training_curves(self.history, self.output_dir / f"curves_{self.stage}.png", title=self.stage)
        self._drawn = time.monotonic()

    def _is_best(self, validated: tuple[str, float] | None) -> bool:
        if self.evaluator is None:
            return self.state.epoch == self.state.max_epochs
        if validated is None or not np.isfinite(validated[1]):
            # nothing to compare by: keep something rather than nothing
            return self.state.epoch == self.state.max_epochs and self.best is None
        return self.best is None or bool(self.evaluator.metric_cmp_fn(validated[1], self.best["score"]))

    # -- files -----------------------------------------------------------------------------------------------------

    def _save_best(self, metric: str) -> None:
        stages: dict[str, Any] = {}
        if self.model_path.is_file():
            old = read_info(self.model_path)
            if old.get("run") == _runs[self.composite]:
                stages = old["stages"]
            else:
                set_aside(self.model_path)
        stages = {**stages, self.stage: {**(self.best or {}), "metric": metric}}
        info = {**self.provenance, "recipe": self.recipe, "stages": stages, "run": _runs[self.composite]}
        info |= {"settings": self.settings} if self.settings else {}
        save_weights(self.composite, self.model_path, info)

    def _save_resume(self) -> None:
        record = {
            "run": _runs[self.composite],
            "settings": self.settings,
            "epoch": self.state.epoch,
            "max_epochs": self.state.max_epochs,
            "epoch_length": self.state.epoch_length,
            "done": self._done,
            "history": self.history,
            "best": self.best,
        }
        self._resume_file.write(record, self.scaler)

    def _restore(self) -> bool:
        """Take up the resume file; False when it is of another run than the earlier stages were resumed from."""
        content = self._resume_file.read()
        if _runs.setdefault(self.composite, content["run"]) != content["run"]:
            logger.info("stage '%s': %s is of another run and is not used.", self.stage, self.resume_path.name)
            return False
        self._resume_file.load(content)
        check_plan(content, self.stage, self.settings, self.state.max_epochs)
        self.history, self.best = content["history"], content["best"]
        self._done = content["done"] and self.state.max_epochs == content["max_epochs"]
        self._scaler_state = content["scaler"]
        self.load_state_dict(
            {"epoch": content["epoch"], "max_epochs": self.state.max_epochs, "epoch_length": content["epoch_length"]}
        )
        logger.info("stage '%s' resumes after epoch %d of %d.", self.stage, self.state.epoch, self.state.max_epochs)
        return True

    def _restore_scaler(self) -> None:
        # MONAI makes the scaler when a run starts
        if self.scaler is not None and self._scaler_state is not None:
            self.scaler.load_state_dict(self._scaler_state)


def _loss_of(output: Any) -> torch.Tensor:
    """The loss of an iteration; decollated output repeats it for every item of the batch."""
    first = output[0] if isinstance(output, list) else output
    return torch.as_tensor(first["loss"])
