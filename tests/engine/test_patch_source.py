from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_unet3d.engine import patch_source
from napari_unet3d.engine.networks.build import Network, build_network
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.normalize import ChannelNormalization, Normalization
from napari_unet3d.engine.patch_source import PatchSource
from napari_unet3d.engine.progress import Box
from napari_unet3d.engine.volume import Volume

SHAPE = (11, 14, 13)
CPU = torch.device("cpu")
CORNER: Box = (slice(0, 3), slice(9, 14), slice(0, 13))
INNER: Box = (slice(4, 7), slice(5, 9), slice(6, 7))


class _Watched:
    """An array that remembers what was read."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.read: list[tuple[slice, ...]] = []

    def __getitem__(self, index: Any, /) -> Any:
        self.read.append(index)
        return self._values[index]


def _grey() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((2, *SHAPE), dtype=np.float32)


def _network(dimensions: int = 3) -> Network:
    return build_network(
        network_config("fast", dimensions=dimensions, in_channels=2, levels=2, filters=2, feature_scales=(0.6, 1.0))
    )


def _source(network: Network, keep: bool, dtype: torch.dtype = torch.float32, data: Any = None) -> PatchSource:
    plain = ChannelNormalization(offset=0.5, factor=2, low=-10, high=10, fill=0)
    z, y, x = (axis.feature_radius for axis in network.description.geometry)
    image = Volume(_grey() if data is None else data)
    normalization = Normalization(channels=(plain, plain))
    channels = network.config.body_channels
    kept_on = CPU if keep else None
    return PatchSource(image, normalization, network.inputs, (z, y, x), channels, CPU, dtype, kept_on)


def _expected(network: Network) -> torch.Tensor:
    """Z Y X F of the whole volume at once."""
    grey = torch.from_numpy((_grey() - 0.5) * 2)[None]
    with torch.no_grad():
        return network.inputs(grey)[0].permute(1, 2, 3, 0)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("box", [CORNER, INNER])
def test_kept_streamed_and_whole_are_equal(monkeypatch: pytest.MonkeyPatch, dimensions: int, box: Box) -> None:
    monkeypatch.setattr(patch_source, "_BLOCK", (4, 5, 13))
    network = _network(dimensions)
    kept, streamed = _source(network, keep=True), _source(network, keep=False)
    kept.make_room()
    expected = _expected(network)[box]
    assert kept.shape == streamed.shape == SHAPE
    torch.testing.assert_close(kept.read(box), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(streamed.read(box), expected, atol=1e-5, rtol=1e-4)


def test_blocks_are_computed_when_they_are_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_source, "_BLOCK", (4, 5, 13))
    network, data = _network(), _Watched(_grey())
    source = _source(network, keep=True, data=data)
    source.make_room()
    assert data.read == []
    source.read((slice(4, 8), slice(2, 9), slice(3, 4)))
    assert len(data.read) == 2  # Y 0-4 and 5-9
    everything: Box = (slice(0, 11), slice(0, 14), slice(0, 13))
    torch.testing.assert_close(source.read(everything), _expected(network), atol=1e-5, rtol=1e-4)
    assert len(data.read) == 3 * 3


def test_what_is_kept_is_read_without_a_copy_and_without_the_file() -> None:
    data = _Watched(_grey())
    source = _source(_network(), keep=True, data=data)
    source.make_room()
    first = source.read(INNER)
    data.read.clear()
    second = source.read(INNER)
    assert first.data_ptr() == second.data_ptr()
    assert data.read == []


def test_streaming_reads_the_box_and_its_context_only() -> None:
    data = _Watched(_grey())
    _source(_network(), keep=False, data=data).read(CORNER)
    # the steps to 0.6 and 1.0 are 0.6 and 0.8: 2 + 3 voxels, and one for the differences
    (read,) = data.read
    assert read[1:] == (slice(0, 3 + 6), slice(9 - 6, 14), slice(0, 13))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_can_be_learnt_from(keep: bool, dtype: torch.dtype) -> None:
    source = _source(_network(), keep, dtype)
    source.make_room()
    values = source.read(INNER)
    assert values.dtype == dtype
    assert not values.is_inference()
    assert values.stride(-1) == 1  # a voxel's features lie together
    weight = torch.ones(values.shape[-1], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad((values @ weight).sum(), weight)
    assert gradient.abs().sum() > 0


def test_without_features_the_normalised_image_is_read() -> None:
    network = build_network(network_config("fast", in_channels=2, levels=1, features="none"))
    values = _source(network, keep=False).read(INNER)
    torch.testing.assert_close(values, _expected(network)[INNER])


def test_needed_bytes() -> None:
    image = Volume(np.zeros((1, 2, 3, 4), np.uint8))
    assert PatchSource.needed_bytes(image, 16, torch.bfloat16) == 2 * 3 * 4 * 16 * 2
    assert PatchSource.needed_bytes(image, 1, torch.float32) == 2 * 3 * 4 * 4


# --- lack of memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("full", "place"), [({"meta"}, CPU), ({"meta", "cpu"}, None)])
def test_what_does_not_fit_on_the_device_lies_in_the_computers_memory(
    monkeypatch: pytest.MonkeyPatch, full: set[str], place: torch.device | None
) -> None:
    """The device is pretended; where the computer has no room either, features are computed for every box."""
    network = _network()
    source = _source(network, keep=True)
    source._keep = torch.device("meta")
    empty = torch.empty

    def scarce(*shape: int, **options: Any) -> torch.Tensor:
        if torch.device(options["device"]).type in full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return empty(*shape, **options)

    with monkeypatch.context() as patch:
        patch.setattr("napari_unet3d.engine.patch_source.torch.empty", scarce)
        source.make_room()
    assert source.kept_on == place
    box = (slice(2, 9), slice(0, 14), slice(5, 13))
    torch.testing.assert_close(source.read(box), _expected(network)[box])


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr("napari_unet3d.engine.patch_source.torch.empty", broken)
    with pytest.raises(RuntimeError, match="device-side"):
        _source(_network(), keep=True).make_room()


def test_nothing_leaves_a_cpu() -> None:
    source = _source(_network(), keep=True)
    assert not source.leave_device()
    source.make_room()
    assert not source.leave_device()
