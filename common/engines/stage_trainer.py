"""The trainer of one stage of a method: best weights, exact resume, records."""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer, Workflow
from monai.handlers import CheckpointLoader

from ..checks import InputError, parse_flag, problem
from ..data.overlap import resolved
from ..files import check_writable
from ..weights import plain_settings
from .distributed import barrier, exchange_gradients, of_first_rank, rank, shared_token
from .resume import ResumeFile, check_no_later_stage, check_plan
from .shared_handlers import handlers_for_stage
from .stage_cost import StageCost
from .stage_records import StageRecords
from .stage_weights import StageWeights

__all__ = ["StageTrainer"]

logger = logging.getLogger(__name__)

# Which run a composite is being trained in. The stages of one run share the composite and nothing else; by this they
# know the weights and resume files of their own run from those of an earlier one.
_runs: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()
# The stages of that run that have begun, in their order.
_begun: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, str]] = weakref.WeakKeyDictionary()

_ALWAYS_NOTED = {"epoch", "loss", "learning_rate"}  # of an epoch; beside these is the score, where it was validated


class StageTrainer(SupervisedTrainer):
    """Train one child of a composite network, and leave the composite's weights with this child at its best epoch.

    It is MONAI's ``SupervisedTrainer`` with the record-keeping that every stage of every method needs:

    - at each best validation the whole composite goes to `model_path`, with a sidecar, by write-and-rename; at the end
      of the stage the best is read back, so that the next stage starts from it;
    - after each epoch a resume file goes to `output_dir`, by write-and-rename. With ``resume`` a run that was killed
      at any moment goes on and ends as an unbroken one does: every epoch draws its randomness anew from `seed` and
      the epoch's number, so nothing but that file is carried over. A stage that is done is not run again;
    - a progress bar, TensorBoard scalars under ``output_dir/tensorboard/STAGE`` and a picture of the curves;
    - ``training.json``, or ``training_STAGE.json``, tells what it cost: epochs, seconds, peak memory, device;
    - under ``torchrun`` the child is wrapped for gradient exchange and rank 0 alone writes.

    Stages may train the same network one after the other. A stage of 0 epochs is left out.

    Args:
        network_def: the composite that holds every network of the method.
        network: what is trained: the same object when the method has one stage, else the child named by `stage`.
        stage: name of the child, for records; None when the method has one stage.
        optimizer: built over the parameters of `network`.
        lr_scheduler: its state is kept for resuming; who steps it is a ``LrScheduleHandler`` among the handlers.
        evaluator: the validator of this stage; its key metric decides on the best epoch. Without one the last is kept.
        patience: end the stage at the first validation that is this many epochs past the best one, and no better; None
            for all of its epochs. While every validation gives one and the same score, as 0 where nothing is found yet,
            there is no best: the stage goes on, and of such epochs the last is kept.
        model_path: the bundle's ``models/model.pt``.
        output_dir: folder for resume files, TensorBoard and curves.
        resume: go on from the resume file in `output_dir`, if there is one.
        seed: epoch n draws from ``seed + n`` (plus the rank).
        provenance: what the sidecar shall say of the data: name, licence, split, ``phantom``, contents.
        recipe: what the sidecar shall say of the config: ``"paper"``, or the name of an overlay.
        settings: what prediction must share with training beyond the network: grid, windows, regions. It goes to the
            sidecar, where prediction compares it, and a run is not resumed under other settings.
        shared_handlers: handlers of the last stage, to which callers may have added (MLflow, checkpoint loaders); those
            of a type that `train_handlers` lacks are attached here too, renamed after the stage. Validators and
            schedules are not: they belong to the stage that they were made for.
        kwargs: of ``SupervisedTrainer``.

    Raises:
        InputError: for a patience below 1, or without an evaluator to be patient with; when a stage that is resumed has
            other settings than before, or would be trained further although a later one began with what it left.
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
        patience: int | None = None,
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
        self.patience = _checked_patience(patience, evaluator)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self._stage_weights = StageWeights(self.model_path, network_def, network)
        self._best_weights: dict[str, torch.Tensor] | None = None
        self._losses: list[torch.Tensor] = []
        self._learning_rate = 0.0
        self._done = False
        self._before: list[str] = []
        self._records = StageRecords(self.stage, self.output_dir, may_end_early=self.patience is not None)
        self._cost = StageCost(stage, self.output_dir)
        self._scaler_state: dict[str, Any] | None = None
        own = tuple(train_handlers or ())
        # taking a batch apart reads its loss, for which the host would wait at every iteration
        kwargs.setdefault("decollate", kwargs.get("postprocessing") is not None)
        super().__init__(network=self._for_processes(network), train_handlers=own, **kwargs)
        self.add_event_handler(Events.STARTED, StageTrainer._restore_scaler)
        self.add_event_handler(Events.EPOCH_STARTED, StageTrainer._reseed)
        self.add_event_handler(Events.ITERATION_COMPLETED, StageTrainer._note_loss)
        # after the handlers of the config, so that validation and the schedule have had their turn
        self.add_event_handler(Events.EPOCH_COMPLETED, StageTrainer._record_epoch)
        self.add_event_handler(Events.COMPLETED, StageTrainer._record_end)
        self._shared = handlers_for_stage(shared_handlers, own, self.stage)
        for handler in self._shared:
            handler.attach(self)
        self._loads = any(isinstance(handler, CheckpointLoader) for handler in (*own, *self._shared))
        self._kept: dict[str, torch.Tensor] = {}
        # after all loaders that callers have added
        self.add_event_handler(Events.STARTED, StageTrainer._keep_trained)

    def _for_processes(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network as it is trained in several processes."""
        return exchange_gradients(network)

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
        if self.state.max_epochs == 0:
            logger.info("stage '%s' has 0 epochs and is left out.", self.stage)
            return
        if rank() == 0:
            for folder in (self.output_dir, self.model_path.parent):
                check_writable(folder)  # before hours are spent
            self._records.open(self)
        self._cost.begin(self.state.device)
        if self.evaluator is not None:
            self.evaluator.state.epoch = 0  # another stage may have left its own there
        earlier = {name: at for name, at in _begun.get(self.composite, {}).items() if name != self.stage}
        self._before, trained = list(earlier), set(earlier.values())
        if not (self.resume and self.resume_path.is_file() and self._restore()):
            # federated rounds run one trainer many times, each from the weights it was given
            self.best, self._best_weights, self._done = None, None, False
            _runs.setdefault(self.composite, shared_token())
        elif not self._done and (self.state.epoch >= self.state.max_epochs or self._out_of_patience()):
            self._record_end()  # killed after its last epoch, before that was noted
        elif not self._done:
            check_no_later_stage(self.resume_path, self.stage, _runs[self.composite])
            trained |= {self._stage_weights.prefix}
        _begun[self.composite] = {**earlier, self.stage: self._stage_weights.prefix}
        if self._done:
            logger.info("stage '%s' was done after %d epochs: nothing to resume.", self.stage, self.state.epoch)
        else:
            if rank() == 0:
                self.provenance = resolved(self.provenance)  # may read every scan, once
            if hasattr(dataset := getattr(self.data_loader, "dataset", None), "fill"):
                dataset.fill()
            if self._loads:
                self._kept = self._stage_weights.now(trained)
            super().run()
        barrier()  # rank 0 may still be writing what the others read back
        if self.best is not None:
            self._read_best_back()
            logger.info("stage '%s': best epoch %d, in %s.", self.stage, self.best["epoch"], self.model_path.name)

    def _read_best_back(self) -> None:
        self._stage_weights.read_back(_runs.get(self.composite), self.resume_path, self._best_weights)

    def _keep_trained(self) -> None:
        """Undo what a caller's loader did to weights of this run: a file is where a run starts from, not a stage."""
        self.composite.load_state_dict(self._kept, strict=False)
        self._kept = {}

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

    def _iteration(self, engine: SupervisedTrainer, batchdata: Any) -> Any:
        return self._as_list(super()._iteration(engine, batchdata))

    @staticmethod
    def _as_list(output: Any) -> list[Any]:
        """As a list: MONAI's handlers (MLflow) take the loss of its first item; of a dictionary they make a tuple."""
        return output if isinstance(output, list) else [output]

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
        # ranks that disagree by a rounding error would part at the first better epoch
        validated = of_first_rank(self._validate())
        if validated is not None:
            row[validated[0]] = validated[1]
            if self._shared:  # they are attached after this handler and see it; the evaluator has handlers of its own
                self.state.metrics[f"{self.stage}_{validated[0]}"] = validated[1]
        self.history.append(row)
        if self._is_best(validated):
            self.best = {"epoch": epoch, "score": validated[1] if validated else None}
            self._best_weights = None
            if rank() == 0:
                self._save_best(validated[0] if validated else "last epoch")
        if rank() == 0:
            text = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
            left = self._records.time_left(self)
            logger.info("stage '%s', epoch %d of %d (%s): %s", self.stage, epoch, self.state.max_epochs, left, text)
            self._save_resume()
            self._write_cost()
            self._records.add(self.history, self.evaluator.state.metrics if validated else {})
        if self._out_of_patience():
            logger.info("stage '%s' ends: no better epoch since epoch %d.", self.stage, self.best["epoch"])
            self.terminate()

    def _out_of_patience(self) -> bool:
        """Whether the last epoch was validated and is `patience` or more past the best one."""
        if self.patience is None or self.best is None or self._undecided():
            return False
        last = self.history[-1]
        return len(last.keys() - _ALWAYS_NOTED) > 0 and last["epoch"] - self.best["epoch"] >= self.patience

    def _undecided(self) -> bool:
        """Whether all validations so far, one or more, gave the same score."""
        return len(set(self._scores())) == 1

    def _scores(self) -> list[float]:
        """Of all validations so far, where defined."""
        scores = (row[name] for row in self.history for name in row.keys() - _ALWAYS_NOTED)
        return [score for score in scores if np.isfinite(score)]

    def _record_end(self) -> None:
        self._done = True
        if rank() == 0:
            if self.best is not None and self._best_weights is None:
                self._best_weights = self._stage_weights.of_child(_runs[self.composite], self.resume_path)
            self._save_resume()
            self._write_cost()
            self._records.end(self.history)
            if len(self._scores()) > 1 and self._undecided():
                text = "stage '%s': every validation gave %.4g, so no epoch is better than another; the last is kept."
                logger.warning(text, self.stage, self.best["score"])

    def _is_best(self, validated: tuple[str, float] | None) -> bool:
        if self.evaluator is None:
            return self.state.epoch == self.state.max_epochs
        if validated is None or not np.isfinite(validated[1]):
            # nothing to compare by: keep something rather than nothing
            return self.state.epoch == self.state.max_epochs and self.best is None
        if self.best is None or self._undecided():
            return True
        return bool(self.evaluator.metric_cmp_fn(validated[1], self.best["score"]))

    # -- files -----------------------------------------------------------------------------------------------------

    def _save_best(self, metric: str) -> None:
        info = {**self.provenance, "recipe": self.recipe}
        info |= {"settings": self.settings} if self.settings else {}
        started_from = getattr(self.state, "started_from", None)
        info |= {"started_from": started_from} if started_from else {}
        entry = {**(self.best or {}), "metric": metric}
        self._stage_weights.save(_runs[self.composite], self.stage, entry, info)

    def _save_resume(self) -> None:
        record = {
            "run": _runs[self.composite],
            "after": self._before,
            "settings": self.settings,
            "epoch": self.state.epoch,
            "max_epochs": self.state.max_epochs,
            "epoch_length": self.state.epoch_length,
            "done": self._done,
            "history": self.history,
            "best": self.best,
            # a later stage that shares the network overwrites them in the weights file
            "best_weights": self._best_weights,
            "cost": self._cost.so_far(),
        }
        # MONAI makes the scaler when a run starts
        record["scaler"] = self._scaler_state if self.scaler is None else self.scaler.state_dict()
        self._resume_file.write(record)

    def _write_cost(self) -> None:
        best = self.best or {"epoch": None, "score": None}
        epochs = {"epochs": self.state.epoch, "best_epoch": best["epoch"], "best_score": best["score"]}
        self._cost.write(recipe=self.recipe, **epochs, done=self._done)

    def _restore(self) -> bool:
        """Take up the resume file; False when it is of another run than the earlier stages were resumed from."""
        content = self._resume_file.read()
        if _runs.setdefault(self.composite, content["run"]) != content["run"]:
            logger.info("stage '%s': %s is of another run and is not used.", self.stage, self.resume_path.name)
            return False
        self._resume_file.load(content)
        check_plan(content, self.stage, self.settings, self.state.max_epochs)
        self.history, self.best, self._best_weights = content["history"], content["best"], content.get("best_weights")
        self._before = content.get("after", self._before)
        self._done = content["done"] and self.state.max_epochs == content["max_epochs"]
        self._scaler_state = content["scaler"]
        self._cost.resume(content.get("cost"))
        self.load_state_dict(
            {
                "epoch": content["epoch"],
                "max_epochs": max(self.state.max_epochs, content["epoch"]),
                "epoch_length": content["epoch_length"],
            }
        )
        logger.info("stage '%s' resumes after epoch %d of %d.", self.stage, self.state.epoch, self.state.max_epochs)
        return True

    def _restore_scaler(self) -> None:
        if self.scaler is not None and self._scaler_state is not None:
            self.scaler.load_state_dict(self._scaler_state)


def _loss_of(output: Any) -> torch.Tensor:
    """The loss of an iteration; decollated output repeats it for every item of the batch."""
    return torch.as_tensor(output[0]["loss"])


def _checked_patience(patience: int | None, evaluator: Workflow | None) -> int | None:
    if patience is None:
        return None
    if int(patience) < 1 or evaluator is None:
        came = f"patience is {patience}" + (" and there is no evaluator" if evaluator is None else "")
        rule = "it must be 1 epoch or more, and needs validations to judge by"
        raise InputError(problem(came, rule, "set patience to None to train for all epochs"))
    return int(patience)
