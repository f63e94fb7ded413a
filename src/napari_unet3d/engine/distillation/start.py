"""What a distillation begins with: the teacher's classes and normalisation, the student's network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from napari_unet3d.engine.config import DistillConfig, NetworkConfig, NormalizeConfig, RunRecord, TrainConfig
from napari_unet3d.engine.device import choose_device
from napari_unet3d.engine.distillation.teacher import Teacher
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.build import Network
from napari_unet3d.engine.trained_model import TrainedModel
from napari_unet3d.engine.training_setup import network_for
from napari_unet3d.engine.training_start import TrainingStart, network_with_weights, settled_precision
from napari_unet3d.engine.volume import AnnotatedVolume

_LEAST_SHARED: Final = 0.01
"""Share of the student's weights that must fit for it to begin with those of the teacher."""


def settle_student(
    volumes: Sequence[AnnotatedVolume],
    teacher: Teacher,
    student: NetworkConfig,
    config: TrainConfig,
    distill: DistillConfig,
    origin: TrainedModel | None,
    past: RunRecord | None,
) -> TrainingStart:
    """Settle classes, network, normalisation, device and precision of a distillation.

    Parameters
    ----------
    volumes, teacher, student, config, distill
        As of `Distiller`; the first of its teachers.
    origin
        A student to begin with or to go on with.
    past
        Record of the run to repeat or to go on with.

    Raises
    ------
    ConfigError
        If the student does not fit the teacher, asks for another normalisation, or shares no weights with it though it
        should begin with them.
    DeviceError
        If the device is missing.
    """
    model = teacher.model
    taught = model.recipe
    if config.normalize not in (NormalizeConfig(), taught.train.normalize):
        raise ConfigError(
            f"train.normalize differs from that of the teacher {teacher.name} (method "
            f"{taught.train.normalize.method}), which the student takes over; leave it away"
        )
    if student.head != taught.network.head:
        raise ConfigError(
            f"network.head = {student.head} but the teacher {teacher.name} has {taught.network.head}; set network.head "
            f"to {taught.network.head}"
        )
    if student.label_count != taught.network.label_count:
        raise ConfigError(
            f"network.classes = {student.classes} but the teacher {teacher.name} knows the classes "
            f"{', '.join(map(str, model.label_ids))}; set network.classes to {taught.network.classes}"
        )
    fitted = network_for(volumes, student, model.label_ids)
    network = network_with_weights(fitted, config, origin)
    notes: tuple[str, ...] = ()
    is_fresh = origin is None
    if origin is None and distill.student_from == "teacher":
        shared, has_gain = take_over(network, model.network)
        if shared < _LEAST_SHARED:
            raise ConfigError(
                f"the student could take only {shared:.2%} of its weights from the teacher {teacher.name}, the others "
                "having other sizes; use --student-from scratch or the teacher's filters with fewer levels"
            )
        notes = (f"{shared:.0%} of the student's weights are those of the teacher {teacher.name} at the start",)
        is_fresh = not has_gain
    choice = choose_device(config.device)
    return TrainingStart(
        label_ids=model.label_ids,
        classes=model.classes,
        network=network,
        normalization=model.normalization,
        device=choice.device,
        device_reason=choice.reason,
        precision=settled_precision(config, choice, past),
        is_fresh=is_fresh,
        notes=notes,
    )


def take_over(student: Network, teacher: torch.nn.Module) -> tuple[float, bool]:
    """Copy the weights and running statistics that have the same name and size in both.

    Returns
    -------
    share : float
        Of the student's trainable values.
    has_gain : bool
        Whether the sizes of the fixed features are among them.
    """
    own, given = student.state_dict(), teacher.state_dict()
    fitting = {name: given[name] for name, tensor in own.items() if name in given and given[name].shape == tensor.shape}
    student.load_state_dict(fitting, strict=False)
    trainable = {name: parameter.numel() for name, parameter in student.named_parameters()}
    shared = sum(count for name, count in trainable.items() if name in fitting)
    return shared / sum(trainable.values()), "features.gain" in fitting
