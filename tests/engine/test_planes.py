from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_unet3d.engine import planes
from napari_unet3d.engine.networks.build import Network, build_network
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.normalize import ChannelNormalization, Normalization
from napari_unet3d.engine.patch_source import PatchSource
from napari_unet3d.engine.planes import predict_plane
from napari_unet3d.engine.tiling import Footprint
from napari_unet3d.engine.volume import Volume

SHAPE = (18, 22, 26)


def _network(**changes: Any) -> Network:
    torch.manual_seed(0)
    settings = {"levels": 2, "filters": 3, "convolutions": 1, "features": "none", "norm": "none", "classes": 3}
    return build_network(network_config("fast", **{**settings, **changes})).eval()


def _grey(shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((1, 1, *shape), dtype=np.float32))


def _plane(network: Network, shape: tuple[int, int, int], axis: int, index: int) -> torch.Tensor:
    same = ChannelNormalization(offset=0, factor=1, low=-9, high=9, fill=0)
    z, y, x = (part.feature_radius for part in network.description.geometry)
    source = PatchSource(
        Volume(_grey(shape)[0].numpy()),
        Normalization(channels=(same,)),
        network.inputs,
        (z, y, x),
        network.config.body_channels,
        torch.device("cpu"),
        torch.float32,
        keep=None,
    )
    with torch.inference_mode():
        return predict_plane(
            lambda values: network.outputs_of(values)[0], source, Footprint.of(network.config), axis, index
        )


@pytest.mark.parametrize("changes", [{}, {"dimensions": 2}, {"deep_supervision": True}, {"levels": 1}])
@pytest.mark.parametrize(("axis", "index"), [(0, 0), (0, 9), (0, 17), (1, 0), (1, 13), (1, 21), (2, 7), (2, 25)])
def test_equals_the_untiled_prediction(changes: dict[str, Any], axis: int, index: int) -> None:
    network = _network(**changes)
    # the slab holds all that a voxel sees
    assert max(network.description.context) <= planes._CONTEXT_ACROSS
    whole = _whole(network, SHAPE)
    plane = _plane(network, SHAPE, axis, index)
    assert plane.shape == (3, *(n for i, n in enumerate(SHAPE) if i != axis))
    assert plane.dtype == torch.float32
    torch.testing.assert_close(plane, whole.select(axis + 1, index), atol=1e-5, rtol=1e-5)


def _whole(network: Network, shape: tuple[int, int, int]) -> torch.Tensor:
    """K Z Y X logits of a volume around which its edge is repeated: that of the features, if there are any."""
    border = Footprint.of(network.config).border
    legal = network.description.legal_shape([size + 2 * b for size, b in zip(shape, border, strict=True)])
    widths = [(b, total - b - size) for b, total, size in zip(border, legal, shape, strict=True)]
    with torch.inference_mode():
        framed = np.pad(network.inputs(_grey(shape)).numpy(), [(0, 0), (0, 0), *widths], mode="edge")
        logits: torch.Tensor = network.outputs_of(torch.from_numpy(framed))[0][0]
    return logits[(slice(None), *(slice(b, b + size) for b, size in zip(border, shape, strict=True)))]


@pytest.mark.parametrize(("axis", "index"), [(0, 0), (1, 10), (2, 25)])
def test_valid_networks_see_context_beyond_the_volume(axis: int, index: int) -> None:
    network = _network(padding="valid")
    margin = network.description.margin[0]
    widths = [(0, 0), (0, 0)] + [(margin, margin)] * 3
    with torch.inference_mode():
        whole = network(torch.from_numpy(np.pad(_grey(SHAPE).numpy(), widths, mode="edge")))[0]
    assert whole.shape[1:] == SHAPE
    torch.testing.assert_close(_plane(network, SHAPE, axis, index), whole.select(axis + 1, index), atol=1e-5, rtol=1e-5)


def test_large_planes_are_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network()
    once = _plane(network, SHAPE, 0, 5)
    monkeypatch.setattr(planes, "_SIDE", 16)
    calls = []
    network.body.encoder.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape))
    torch.testing.assert_close(_plane(network, SHAPE, 0, 5), once, atol=1e-5, rtol=1e-5)
    assert len(calls) > 1


def test_features_are_read_with_their_own_context() -> None:
    network = _network(features="scale_space", feature_scales=(1.0,))
    whole = _whole(network, (20, 16, 16))
    torch.testing.assert_close(_plane(network, (20, 16, 16), 0, 9), whole[:, 9], atol=1e-4, rtol=1e-4)


def test_a_single_voxel() -> None:
    assert _plane(_network(), (1, 1, 1), 1, 0).shape == (3, 1, 1)
