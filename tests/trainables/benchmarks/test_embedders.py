"""Frozen backbones, on the real loading code with weights drawn here."""

import pytest
import torch
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from trainables import benchmarks
from trainables.benchmarks import DataError, embedders
from trainables.benchmarks.sources import Examples

NAME = "squeezenet1_1"
WEIGHTS = models.SqueezeNet1_1_Weights.DEFAULT


@pytest.fixture
def network(tmp_path):
    """A network whose drawn weights stand where torchvision keeps the downloaded ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.squeezenet1_1()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / WEIGHTS.url.rsplit("/", 1)[-1])
    return model.eval()


def embed(examples, embedder=NAME, dtype=torch.float32):
    return embedders.embed(examples, embedder, dtype, lambda: pytest.fail("opened the first task"))


def images(n, white=16):
    x = torch.arange(n * 64).reshape(n, 8, 8) % (white + 1)
    return Examples(x.to(torch.uint8), torch.arange(n) % 2, ("a", "b"), white)


def test_features_are_what_enters_the_last_layer(network, monkeypatch):
    monkeypatch.setattr(embedders, "BATCH", 2)
    before = torch.random.get_rng_state()
    found = embed(images(3), dtype=torch.float64)
    assert torch.equal(before, torch.random.get_rng_state())
    assert found.shape == (3, 512)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    assert found.min() >= 0  # after a ReLU

    # SqueezeNet written out: features, ReLU, mean over space (no dropout, no last layer)
    colour = (images(3).x / 16.0)[:, None].repeat(1, 3, 1, 1)
    with torch.no_grad():
        expected = network.features(WEIGHTS.transforms()(colour)).relu().mean((2, 3))
    torch.testing.assert_close(found.float(), expected)


def test_features_are_kept_and_a_damaged_file_is_made_anew(network, cache, monkeypatch):
    first = embedders.features(images(2), NAME).clone()  # of a file that is about to change
    (file,) = cache.rglob("*.safetensors")
    assert file.suffix == ".safetensors"

    run = embedders._run
    monkeypatch.setattr(embedders, "_run", lambda *_: pytest.fail("computed again"))
    assert torch.equal(embedders.features(images(2), NAME), first)
    with pytest.raises(pytest.fail.Exception):  # other images, other file
        embedders.features(images(2, white=255), NAME)

    monkeypatch.setattr(embedders, "_run", run)
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(embedders.features(images(2), NAME), first)
    assert list(cache.rglob("*.safetensors")) == [file]


def test_a_stream_of_features(network, monkeypatch):
    few = images(8)
    declared = benchmarks.Benchmark("few", lambda data_dir, part: few, (2,), "")
    monkeypatch.setitem(benchmarks.BENCHMARKS, "few", declared)
    stream = benchmarks.load("few", embedder=NAME)
    assert stream.problem.input_shape == (512,)
    task = stream.tasks[0]
    assert task.train.x.shape == (6, 512)
    assert task.validation.x.shape == (2, 512)
    found = torch.cat([task.train.x, task.validation.x])
    torch.testing.assert_close(found.sum(0), embedders.features(few, NAME).sum(0))


# ---- feature maps --------------------------------------------------------------------------------


@pytest.mark.parametrize("node", ["features.0", "features.3", "features.12.cat"])
def test_a_node_gives_its_feature_map(network, node):
    before = torch.random.get_rng_state()
    found = embed(images(3), f"{NAME}.{node}")
    assert torch.equal(before, torch.random.get_rng_state())
    colour = WEIGHTS.transforms()((images(3).x / 16.0)[:, None].repeat(1, 3, 1, 1))
    reference = create_feature_extractor(network, {node: "map"})
    with torch.no_grad():
        expected = reference(colour)["map"]
        by_hand = network.features[: int(node.split(".")[1]) + 1](colour)
    assert found.dim() == 4
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, by_hand)


def test_every_node_has_its_own_file(network, cache):
    nodes = ("", ".features.3", ".features.6")
    shapes = {embedders.features(images(2), f"{NAME}{node}").shape for node in nodes}
    assert len(shapes) == len(list(cache.rglob("*.safetensors"))) == 3


def test_a_stream_of_feature_maps(network, monkeypatch):
    few = images(8)
    declared = benchmarks.Benchmark("few", lambda data_dir, part: few, (2,), "")
    monkeypatch.setitem(benchmarks.BENCHMARKS, "few", declared)
    stream = benchmarks.load("few", embedder=f"{NAME}.features.6", dtype=torch.float64)
    assert stream.problem.input_shape == (256, 27, 27)
    assert stream.tasks[0].train.x.shape == (6, 256, 27, 27)
    assert stream.tasks[0].train.x.dtype == torch.float64


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("featurs.3", "unknown node of squeezenet1_1 'featurs.3': did you mean 'features.3'"),
        ("qqq", r"\(known: classifier, features, flatten, x, classifier.0, "),
        ("", "unknown node of squeezenet1_1 ''"),
        ("flatten", r"expected a node with a feature map \(N, C, H, W\), found \(2, 1000\)"),
    ],
)
def test_nodes_that_give_no_map_are_refused_in_one_line(network, cache, node, message):
    with pytest.raises(ValueError, match=message) as error:
        embed(images(2), f"{NAME}.{node}")
    assert "\n" not in str(error.value)
    assert not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize("name", ["squeezenet1_2.features", "identity.x", "base_task.conv"])
def test_nodes_of_what_is_no_network_are_refused(name):
    with pytest.raises(ValueError, match=f"unknown embedder '{name}': did you mean"):
        embedders.check(name)


# ---- weights -------------------------------------------------------------------------------------


def test_weights_that_cannot_be_had(tmp_path):
    with pytest.raises(DataError) as error:
        embed(images(2))
    text = str(error.value)
    assert f"{tmp_path / 'torch' / 'hub' / 'checkpoints'}" in text
    assert WEIGHTS.url in text
    assert "no network in tests" in text
    assert "\n" not in text


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_weights_that_are_damaged(network, tmp_path, content):
    (file,) = (tmp_path / "torch").rglob("*.pth")
    file.write_bytes(file.read_bytes()[:1000] if content is None else content)
    with pytest.raises(DataError, match=file.name) as error:
        embed(images(2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "scaled"),
    [("identity", [[-1, -0.5], [0, 1]]), ("unit", [[0, 0.25], [0.5, 1]])],
)
def test_pixels_are_scaled_and_vectors_kept(name, scaled):
    x = torch.tensor([[[0, 4], [8, 16]]], dtype=torch.uint8)
    assert embed(Examples(x, torch.zeros(1), (), 16), name).tolist() == [[scaled]]
    vectors = torch.tensor([[0.25, -3.0]])
    found = embed(Examples(vectors, torch.zeros(1), ()), name, torch.float64)
    assert found.tolist() == vectors.tolist()
    assert found.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("alexnet", 4096),
        ("convnext_tiny", 768),
        ("densenet121", 1024),
        ("efficientnet_b0", 1280),
        ("mnasnet0_5", 1280),
        ("mobilenet_v3_small", 1024),
        ("resnet18", 512),
        ("shufflenet_v2_x0_5", 1024),
        ("squeezenet1_0", 512),
        ("vgg11", 4096),
        ("vit_b_16", 768),
    ],
)
def test_what_is_left_without_the_head(name, width):
    with torch.device("meta"):  # shapes only
        model = embedders.behead(models.get_model(name)).eval()
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, width)
