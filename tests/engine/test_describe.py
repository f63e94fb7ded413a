"""The description must equal the network that is built, for any configuration."""

from __future__ import annotations

import math
import subprocess
import sys
import weakref
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from napari_unet3d.engine import filters
from napari_unet3d.engine.config import NetworkConfig, UNet3PlusConfig, UNetConfig
from napari_unet3d.engine.describe import describe
from napari_unet3d.engine.errors import ConfigError
from napari_unet3d.engine.networks.build import build_network
from napari_unet3d.engine.networks.presets import network_config
from napari_unet3d.engine.scales import feature_radius

quick = settings(max_examples=40, deadline=None)


@st.composite
def unet_configs(draw: st.DrawFn, *, line: bool = False) -> UNetConfig:
    """Small networks of all kinds; with `line`, such that only the X axis is looked along."""
    levels = draw(st.integers(1, 3))
    size, step = st.sampled_from([1, 3, 5]), st.integers(1, 3)
    flat = st.just(1)
    kernel = st.tuples(flat if line else size, flat if line else size, size)
    stride = st.tuples(flat if line else step, flat if line else step, step)

    dimensions: Literal[2, 3] = 3 if line or draw(st.booleans()) else 2

    def per_level(strategy: st.SearchStrategy[Any], count: int) -> tuple[Any, ...]:
        return tuple(draw(strategy) for _ in range(count))

    return UNetConfig(
        dimensions=dimensions,
        neighbours=draw(st.integers(0, 2)) if dimensions == 2 else 0,
        in_channels=draw(st.integers(1, 2)),
        classes=draw(st.integers(1, 3)),
        levels=levels,
        filters=per_level(st.integers(1, 4), levels),
        convolutions=per_level(st.integers(1, 2), levels),
        kernel=per_level(kernel, levels),
        strides=per_level(stride, levels - 1),
        pooling=draw(st.sampled_from(["max", "average", "convolution"])),
        upsampling=draw(st.sampled_from(["nearest", "linear", "transposed"])),
        up_channels=draw(st.sampled_from(["keep", "level"])),
        up_bias=draw(st.booleans()),
        up_norm_activation=draw(st.booleans()),
        norm="none" if line else draw(st.sampled_from(["none", "batch", "instance", "group"])),
        norm_groups=draw(st.integers(1, 4)),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        dropout_place=draw(st.sampled_from(["between_convolutions", "after_block", "after_pooling_and_concatenation"])),
        padding=draw(st.sampled_from(["same", "valid"])),
        bias=draw(st.booleans()),
        double_before_pooling=draw(st.booleans()),
        extra_block=draw(st.booleans()),
        concatenation=draw(st.sampled_from(["skip_first", "up_first"])),
        residual=draw(st.booleans()),
        deep_supervision=draw(st.booleans()),
    )


@st.composite
def unet3plus_configs(draw: st.DrawFn, *, line: bool = False) -> UNet3PlusConfig:
    """Small networks with full-scale skips; with `line`, such that only the X axis is looked along."""
    levels = draw(st.integers(2, 4))
    size, step = st.sampled_from([1, 3]), st.integers(1, 3)
    flat = st.just(1)
    kernel = st.tuples(flat if line else size, flat if line else size, size)
    stride = st.tuples(flat if line else step, flat if line else step, step)
    dimensions: Literal[2, 3] = 3 if line or draw(st.booleans()) else 2
    return UNet3PlusConfig(
        dimensions=dimensions,
        neighbours=draw(st.integers(0, 2)) if dimensions == 2 else 0,
        in_channels=draw(st.integers(1, 2)),
        classes=draw(st.integers(1, 3)),
        levels=levels,
        filters=tuple(draw(st.integers(1, 4)) for _ in range(levels)),
        branch_filters=draw(st.sampled_from([None, 1, 2])),
        convolutions=tuple(draw(st.integers(1, 2)) for _ in range(levels)),
        kernel=tuple(draw(kernel) for _ in range(levels)),
        strides=tuple(draw(stride) for _ in range(levels - 1)),
        norm="none" if line else draw(st.sampled_from(["none", "batch", "instance", "group"])),
        norm_groups=draw(st.integers(1, 4)),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        deep_supervision=draw(st.booleans()),
        guidance=not line and draw(st.booleans()),
    )


def network_configs(*, line: bool = False) -> st.SearchStrategy[NetworkConfig]:
    """Networks of all families."""
    return st.one_of(unet_configs(line=line), unet3plus_configs(line=line))


def spatial(x: Tensor) -> tuple[int, ...]:
    """Z Y X, also of B C Y X."""
    return (1,) * (5 - x.ndim) + tuple(x.shape[2:])


# --- layers -----------------------------------------------------------------------------------------------


@given(network_configs())
@quick
def test_parameters_of_every_layer_are_those_of_the_built_network(config: NetworkConfig) -> None:
    description = describe(config)
    network = build_network(config)

    for layer in description.layers:
        module = network.body.get_submodule(layer.name)
        assert sum(p.numel() for p in module.parameters()) == layer.parameters, layer
    assert sum(p.numel() for p in network.parameters()) == description.parameters
    running = [b for name, b in network.named_buffers() if "running" in name]
    assert sum(b.numel() for b in running) == description.running_statistics


@given(network_configs(), st.data())
@quick
def test_shapes_of_every_layer_are_those_of_the_built_network(config: NetworkConfig, data: st.DataObject) -> None:
    description = describe(config)
    smallest = description.legal_shape((1, 1, 1))
    extra = data.draw(st.tuples(*[st.integers(0, 4)] * 3))
    zyx = description.legal_shape([low + more for low, more in zip(smallest, extra, strict=True)])
    network = build_network(config).eval()
    seen: dict[str, Tensor] = {}
    for name, module in network.body.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: seen.__setitem__(name, output))

    with torch.no_grad():
        outputs = network.outputs(torch.zeros(1, config.in_channels, *zyx))
        logits = network(torch.zeros(1, config.in_channels, *zyx))

    for layer, size in zip(description.layers, description.layer_shapes(zyx), strict=True):
        built = seen[layer.name]
        planes = zyx[0] if config.dimensions == 2 else size[0]
        assert (planes, *spatial(built)[1:], built.shape[1]) == (*size, layer.out_channels), layer
    assert logits.shape == (1, config.classes, *description.output_shape(zyx))
    assert torch.equal(logits, outputs[0])
    levels = description.shapes(zyx)
    sizes = [level.decoder for level in levels if level.decoder] or [levels[0].encoder]
    if isinstance(config, UNet3PlusConfig):
        sizes = [zyx] * config.levels
    assert [spatial(output) for output in outputs] == sizes[: len(description.output_grids)]
    assert len(outputs) == len(description.output_grids)
    encoders = [seen[f"encoder.blocks.{level.level}"] for level in levels]
    assert [spatial(e)[1:] for e in encoders] == [level.encoder[1:] for level in levels]


@given(network_configs())
@quick
def test_operations_are_half_of_the_counted_flops(config: NetworkConfig) -> None:
    description = describe(config)
    zyx = description.legal_shape((1, 1, 1))
    network = build_network(config).eval()

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, config.in_channels, *zyx))

    assert description.operations(zyx) * 2 == counter.get_total_flops()


def test_operations_by_hand() -> None:
    config = UNetConfig(levels=1, filters=4, convolutions=1, classes=2)

    # 3 x 3 x 3 taps from 1 to 4 channels and a head from 4 to 2, at 2 * 3 * 5 voxels
    assert describe(config).operations((2, 3, 5)) == 30 * (27 * 4 + 4 * 2)


# --- sizes ------------------------------------------------------------------------------------------------


@given(network_configs(line=True))
@quick
def test_the_network_takes_legal_sizes_and_no_others(config: NetworkConfig) -> None:
    axis = describe(config).geometry[2]
    network = build_network(config).eval()

    def runs(size: int) -> bool:
        try:
            with torch.no_grad():
                network.body(torch.zeros(1, config.in_channels, 1, 1, size))
        except RuntimeError:
            return False
        return True

    sizes = range(max(1, axis.smallest - 2 * axis.total_stride), axis.smallest + 2 * axis.total_stride)
    assert [runs(size) for size in sizes] == [axis.is_legal(size) for size in sizes]
    for size in sizes:
        above = [legal for legal in range(size, size + axis.smallest + axis.total_stride) if axis.is_legal(legal)]
        assert axis.legal(size) == above[0]


def test_sizes_of_the_paper() -> None:
    """Çiçek 2016, figure 2: the tile of 132 x 132 x 116 voxels (X Y Z) gives 44 x 44 x 28."""
    description = describe(network_config("cicek2016", in_channels=3, classes=3))

    assert description.output_shape((116, 132, 132)) == (28, 44, 44)
    levels = description.shapes((116, 132, 132))
    assert [level.encoder for level in levels] == [
        (112, 128, 128),
        (52, 60, 60),
        (22, 26, 26),
        (7, 9, 9),
    ]
    assert [level.decoder for level in levels] == [(28, 44, 44), (16, 24, 24), (10, 14, 14), None]
    assert [level.crop for level in levels] == [(40, 40, 40), (16, 16, 16), (4, 4, 4), None]
    assert description.output_shape((100, 100, 100)) == (12, 12, 12)
    assert description.legal_shape((1, 92, 93)) == (92, 92, 100)
    assert description.output_shape((92, 92, 92)) == (4, 4, 4)
    assert description.total_stride == (8, 8, 8)
    assert description.margin == description.context == (44, 44, 44)


@pytest.mark.parametrize(
    ("zyx", "message"),
    [
        ((116, 132, 131), r"116 x 132 x 131 voxels \(Z Y X\).*131 along X.*124 and 132; pad"),
        ((91, 132, 132), r"91 along Z.*legal 92, the smallest"),
    ],
)
def test_an_illegal_size_names_the_nearest_legal_ones(zyx: tuple[int, int, int], message: str) -> None:
    description = describe(network_config("cicek2016"))

    for ask in (
        description.output_shape,
        description.shapes,
        description.operations,
        description.check_shape,
    ):
        with pytest.raises(ConfigError, match=message):
            ask(zyx)


def test_a_padded_network_gives_back_any_size() -> None:
    description = describe(network_config("keras3d"))

    assert description.output_shape((37, 41, 5)) == (37, 41, 5)
    assert description.legal_shape((37, 41, 5)) == (40, 48, 8)
    assert description.shapes((37, 41, 5)) == description.shapes((40, 48, 8))
    with pytest.raises(ConfigError, match="37 along Z, nearest legal 32 and 40"):
        description.check_shape((37, 41, 5))


# --- reach ------------------------------------------------------------------------------------------------


def positive_line_network(config: NetworkConfig) -> nn.Module:
    """All weights positive, so that every source counts and nothing cancels; float64."""
    network = build_network(config.updated(activation="relu")).double().eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        value = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
        fan = math.prod(parameter.shape[1:])
        parameter.data = torch.zeros_like(value) if name.endswith("bias") else value / fan
    return network


@given(network_configs(line=True))
@quick
def test_receptive_field_is_what_a_changed_voxel_reaches(config: NetworkConfig) -> None:
    description = describe(config)
    axis = description.geometry[2]
    network = positive_line_network(config)
    field, stride = description.receptive_field[2], axis.total_stride
    size = axis.legal(2 * field + 4 * stride + 2 * axis.margin)
    changed = torch.ones(size + 1, config.in_channels, 1, 1, size, dtype=torch.float64)
    changed[torch.arange(size), :, 0, 0, torch.arange(size)] = 1e3

    with torch.no_grad():
        logits = network(changed)[:, 0, 0, 0]  # changed voxel, output voxel

    reached = logits[:-1] != logits[-1]
    middle = (reached.shape[1] - stride) // 2
    widths = []
    for voxel in range(middle, middle + stride):
        sources = torch.nonzero(reached[:, voxel])[:, 0]
        widths.append(int(sources[-1] - sources[0] + 1))
    assert max(widths) == field


@given(network_configs(line=True))
@quick
def test_context_is_what_makes_a_tile_equal_to_the_whole(config: NetworkConfig) -> None:
    description = describe(config)
    axis = description.geometry[2]
    network = positive_line_network(config)
    context, margin, stride = description.context[2], axis.margin, axis.total_stride
    tile = axis.legal(2 * context + 2 * stride)
    start = stride * -(-2 * (context + 1) // stride)
    whole = axis.legal(2 * start + tile)
    image = torch.rand(1, config.in_channels, 1, 1, whole, dtype=torch.float64) + 1

    with torch.no_grad():
        untiled = network(image)[0, 0, 0, 0]
        tiled = network(image[..., start : start + tile])[0, 0, 0, 0]

    wrong = (tiled - untiled[start : start + tile - 2 * margin]).abs() > 1e-9
    cut = context - margin
    assert not wrong[cut : len(wrong) - cut].any()
    may_hide = isinstance(config, UNet3PlusConfig) or config.pooling == "max"
    if cut and not may_hide:  # a maximum may hide what changed at the border
        assert wrong[cut - 1]


def test_reach_of_a_single_convolution_by_hand() -> None:
    description = describe(UNetConfig(levels=1, filters=2, convolutions=2, kernel=((1, 3, 5),)))

    assert description.receptive_field == (1, 5, 9)
    assert description.context == (0, 2, 4)


def test_output_grids_of_a_valid_network() -> None:
    config = network_config("cicek2016", deep_supervision=True)

    # per level two convolutions lose 2 voxels on each side, and coarser decoders begin at 20 and 8 there
    offsets = [(grid.stride[0], grid.offset[0]) for grid in describe(config).output_grids]
    assert offsets == [(1, 44), (2, 2 + 2 * 20), (4, 2 + 2 * (2 + 2 * 8))]


@given(unet_configs(line=True).filter(lambda c: c.deep_supervision and c.levels == 3))
@quick
def test_output_grids_lie_within_what_the_outputs_see(config: UNetConfig) -> None:
    config = config.updated(kernel=1, upsampling="nearest", padding="same", convolutions=1)
    network = positive_line_network(config)
    grids = describe(config).output_grids
    size = grids[1].stride[2] * config.stride_per_level[1][2] * 2
    image = torch.ones(1, config.in_channels, 1, 1, size, dtype=torch.float64)
    image[..., grids[1].offset[2] + grids[1].stride[2] :] = 2  # all but the first voxel of the coarser output

    with torch.no_grad():
        coarse = network.outputs(image)[1][0, 0, 0, 0]  # type: ignore[operator]

    assert coarse.shape == (size // grids[1].stride[2],)
    assert coarse[0] < coarse[-1]


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.2)])
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 2.0, 4.0), (0.7, 3.0)])
def test_feature_radius_is_that_of_the_features(scales: tuple[float, ...], voxel: tuple[float, float, float]) -> None:
    radius = feature_radius(scales, voxel)
    features = filters.ScaleSpace(1, scales, voxel)
    for axis in range(3):
        length = 2 * radius[axis] + 9
        shape = [1, 1, 2, 2, 2]
        shape[2 + axis] = length
        image = torch.rand(shape)
        moved = image.clone()
        moved.select(2 + axis, 0).add_(1)
        differs = (features(image) != features(moved)).any(1)[0]
        others = [i for i in range(3) if i != axis]
        reached = torch.nonzero(differs.any(others[1]).any(others[0]))[:, 0]
        assert reached.max() <= radius[axis]


def test_context_of_a_network_with_features() -> None:
    config = network_config("fast", levels=2, filters=2, feature_scales=(1.0, 2.0))
    network = build_network(config).eval()
    context = describe(config).context[2]
    image = torch.rand(1, 1, 2, 2, 4 * context + 8 - 4 * context % 2)
    start = context + context % 2
    tile = image[..., start : start + 2 * context + 4]

    with torch.no_grad():
        untiled, tiled = network(image), network(tile)

    inside = slice(context, tile.shape[-1] - context)
    assert torch.allclose(tiled[..., inside], untiled[..., start : start + tile.shape[-1]][..., inside], atol=1e-5)
    assert context > describe(config.updated(features="none")).context[2]


# --- memory -----------------------------------------------------------------------------------------------

MEMORY_CASES = {
    "plain": network_config("framework3d"),
    "transposed": network_config("keras3d", filters=16),
    "large": network_config("large", filters=(8, 16, 24, 32, 40)),
    "valid": network_config("cicek2016", filters=8, levels=3),
    "no norm": network_config("framework3d", norm="none", activation="gelu"),
    "full scale": network_config("unet3plus-ds-cgm-3d", filters=4),
    "full scale, no norm": network_config("unet3plus-3d", levels=3, filters=(4, 16, 8), norm="none"),
}


@pytest.mark.parametrize("name", MEMORY_CASES)
def test_training_memory_is_near_what_autograd_keeps(name: str) -> None:
    config = MEMORY_CASES[name]
    description = describe(config)
    zyx = description.legal_shape((32, 32, 32))
    network = build_network(config)
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network.outputs(torch.zeros(1, 1, *zyx))

    estimate = description.memory(zyx, training=True, bytes_per_value=4) - 20 * (
        description.parameters + description.running_statistics
    )
    assert 0.8 < estimate / sum(kept.values()) < 1.25


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Largest sum of the sizes of all tensors alive after an operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._tensors: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        values = result if isinstance(result, tuple | list) else [result]
        self._tensors += [weakref.ref(value) for value in values if isinstance(value, Tensor)]
        alive = [tensor for tensor in (ref() for ref in self._tensors) if tensor is not None]
        sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive}
        self.peak = max(self.peak, sum(sizes.values()))
        self._tensors = [weakref.ref(tensor) for tensor in alive]
        return result


@pytest.mark.parametrize("name", MEMORY_CASES)
def test_prediction_memory_is_near_what_lives_at_once(name: str) -> None:
    config = MEMORY_CASES[name]
    description = describe(config)
    zyx = description.legal_shape((32, 32, 32))
    network = build_network(config).eval()

    with torch.no_grad(), PeakMemory() as memory:
        network(torch.zeros(1, 1, *zyx))

    estimate = description.memory(zyx, training=False, bytes_per_value=4) - 4 * (
        description.parameters + description.running_statistics
    )
    assert 0.8 < estimate / memory.peak < 1.4


def test_memory_halves_with_the_bytes_but_for_the_weights() -> None:
    description = describe(network_config("keras3d"))
    weights = 4 * (description.parameters + description.running_statistics)

    full, half = (description.memory((64, 64, 64), training=False, bytes_per_value=size) - weights for size in (4, 2))
    assert full == 2 * half > 0


# --- imports ----------------------------------------------------------------------------------------------


def test_descriptions_and_presets_need_no_torch() -> None:
    code = (
        "import sys; from napari_unet3d.engine.describe import describe; "
        "from napari_unet3d.engine.networks.presets import network_config, network_presets; "
        "[describe(network_config(name)).memory((99, 300, 300), training=True, bytes_per_value=2)"
        " for name in network_presets() if describe(network_config(name)).config.padding == 'same']; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
