"""The perceptron against ``torch.nn``."""

import itertools

import pytest
import torch
from torch import nn

from tests.conftest import EXACTLY, F64, generator
from trainables.engine.method import Problem
from trainables.engine.nets import choose, classifier, decoder, encoder, halved, mlp


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("sizes", [(5, 3), (5, 7, 3), (5, 7, 6, 3)])
def test_mlp_is_a_stack_of_linear_layers(sizes, slope):
    net = mlp(sizes, slope=slope, dtype=F64)
    g = generator(1)
    params = {k: torch.randn(p.shape, generator=g, dtype=F64) for k, p in net.init(g).items()}
    layers = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(a, b, dtype=F64)
        linear.load_state_dict({"weight": params[f"w{i}"].T, "bias": params[f"b{i}"]})
        layers += [linear, nn.LeakyReLU(slope)]
    x = torch.randn(11, 5, generator=g, dtype=F64)
    torch.testing.assert_close(net.apply(params, x), nn.Sequential(*layers[:-1])(x).detach())


def test_init_has_the_variance_of_he():
    params = mlp([400, 300, 2], dtype=F64).init(generator(0))
    weight = params["w0"]
    # 120,000 draws: the standard error of the mean square is 2/400 · √(2/120,000) = 2e-5.
    assert abs(weight.square().mean() - 2 / 400) < 1e-4
    assert abs(params["w1"].square().mean() - 2 / 300) < 2e-3
    assert abs(weight.mean()) < 1e-3
    assert not params["b0"].any()
    assert not params["b1"].any()


def test_init_is_a_function_of_its_generator():
    net = mlp([5, 7, 3])
    first, again, other = (net.init(generator(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first, again, **EXACTLY)
    assert (first["w0"] != other["w0"]).all()
    assert first["w0"].dtype == torch.float32


def test_mlp_flattens_images():
    net = mlp([12, 4, 3], dtype=F64)
    params, x = net.init(generator(0)), torch.randn(2, 3, 2, 2, generator=generator(1), dtype=F64)
    torch.testing.assert_close(net.apply(params, x), net.apply(params, x.reshape(2, 12)), **EXACTLY)


@pytest.mark.parametrize("told", [(), ("classifier",)])
@pytest.mark.parametrize("layers", [1, 2])
def test_masks_multiply_the_hidden_layers_that_they_stand_for(layers, told):
    attributes = torch.randn(3, 4, generator=generator(2), dtype=F64)
    net = classifier("perceptron", Problem((5,), 3, F64, attributes, told), (5,), 7, layers)
    params, x = random_params(net), torch.randn(6, 5, generator=generator(1), dtype=F64)
    masks = [torch.randn(6, 7, generator=generator(10 + i), dtype=F64) for i in range(layers)]
    hidden = x
    for i, mask in enumerate(masks):
        hidden = (hidden @ params[f"w{i}"] + params[f"b{i}"]).relu() * mask
    torch.testing.assert_close(net.features(params, x, masks), hidden)
    if not told:
        expected = hidden @ params[f"w{layers}"] + params[f"b{layers}"]
        torch.testing.assert_close(net.head(params, hidden), expected)


@pytest.mark.parametrize("condition", [True, False])
def test_choose_takes_one_tree_or_the_other(condition):
    yes, no = ({"w": torch.full((2, 3), v), "b": torch.tensor(v)} for v in (1.0, 2.0))
    chosen = choose(torch.tensor(condition), yes, no)
    torch.testing.assert_close(chosen, yes if condition else no, **EXACTLY)


# ---- images --------------------------------------------------------------------------------------

SIZES = [(1, 8, 8), (3, 13, 14), (2, 5, 1)]


def random_params(net, seed=1):
    g = generator(seed)
    return {k: torch.randn(p.shape, generator=g, dtype=F64) for k, p in net.init(g).items()}


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("condition", [0, 4])
def test_a_convolutional_encoder_is_that_of_torch(shape, condition):
    net = encoder("convolutional", shape, 6, 2, 5, condition=condition, slope=0.2, dtype=F64)
    params = random_params(net)
    convolutions = []
    for i, (a, b) in enumerate([(shape[0], 3), (3, 6)]):
        layer = nn.Conv2d(a, b, 3, stride=2, padding=1, dtype=F64)
        layer.load_state_dict({"weight": params[f"k{i}"], "bias": params[f"c{i}"]})
        convolutions += [layer, nn.LeakyReLU(0.2)]
    x = torch.randn(3, *shape, generator=generator(2), dtype=F64)
    told = torch.randn(3, condition, generator=generator(3), dtype=F64)
    features = torch.cat([nn.Sequential(*convolutions)(x).flatten(1), told], 1)
    expected = nn.functional.linear(features, params["w0"].T, params["b0"])
    found = net.apply(params, torch.cat([x.flatten(1), told], 1))
    torch.testing.assert_close(found, expected.detach())


@pytest.mark.parametrize("shape", SIZES)
def test_the_features_of_a_convolutional_classifier_are_its_last_maps(shape):
    net = classifier("convolutional", Problem(shape, 5, F64), shape, 6, 2)
    params, x = random_params(net), torch.randn(3, *shape, generator=generator(2), dtype=F64)
    maps = x
    for i in range(2):
        maps = nn.functional.conv2d(maps, params[f"k{i}"], params[f"c{i}"], 2, 1).relu()
    found = net.features(params, x)
    torch.testing.assert_close(found, maps)
    torch.testing.assert_close(net.features(params, x.flatten(1)), maps)
    torch.testing.assert_close(net.head(params, found), net.apply(params, x), **EXACTLY)


@pytest.mark.parametrize("shape", SIZES)
def test_a_convolutional_decoder_is_that_of_torch(shape):
    net = decoder("convolutional", 5, 6, 2, shape, slope=0.2, dtype=F64)
    params, sizes = random_params(net), halved(shape[1:], 2)
    z = torch.randn(3, 5, generator=generator(2), dtype=F64)
    image = nn.functional.linear(z, params["w0"].T, params["b0"]).reshape(3, 6, *sizes[2])
    for i, (a, b, size) in enumerate([(6, 3, sizes[1]), (3, shape[0], sizes[0])]):
        layer = nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, dtype=F64)
        layer.load_state_dict({"weight": params[f"k{i}"], "bias": params[f"c{i}"]})
        image = layer(nn.functional.leaky_relu(image, 0.2), output_size=size)
    assert image.shape[1:] == shape
    torch.testing.assert_close(net.apply(params, z), image.detach().flatten(1))


def test_convolutions_keep_the_size_of_a_signal():
    """Initialisation after He: unit inputs give outputs of order one, layer after layer."""
    shape, g = (4, 16, 16), generator(0)
    reads = encoder("convolutional", shape, 64, 3, 50, dtype=F64)
    writes = decoder("convolutional", 50, 64, 3, shape, dtype=F64)
    x = torch.randn(20, 4 * 16 * 16, generator=g, dtype=F64)
    out = reads.apply(reads.init(g), x)
    assert 0.5 < out.std() < 3
    assert 0.3 < writes.apply(writes.init(g), out).std() < 5


@pytest.mark.parametrize(("network", "shape", "layers", "message"), [
    ("convolutional", (64,), 2, "needs at least one hidden layer and examples of"),
    ("convolutional", (1, 8, 8), 0, "needs at least one hidden layer"),
    ("convolution", (1, 8, 8), 2, "unknown network 'convolution': did you mean 'convolutional'"),
])  # fmt: skip
def test_impossible_networks_are_refused(network, shape, layers, message):
    with pytest.raises(ValueError, match=message):
        encoder(network, shape, 8, layers, 3)
    with pytest.raises(ValueError, match=message):
        decoder(network, 3, 8, layers, shape)


# ---- attributes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["perceptron", "convolutional"])
def test_logits_are_products_with_linear_functions_of_the_attributes(network):
    g = generator(0)
    attributes = torch.randn(6, 4, generator=g, dtype=F64)
    problem = Problem((1, 4, 4), 6, F64, attributes, ("classifier",))
    net = classifier(network, problem, (1, 4, 4), 7, 1)
    params, x = random_params(net), torch.randn(5, 16, generator=g, dtype=F64)
    depth = 1 if network == "convolutional" else 0
    body = encoder(network, (1, 4, 4), 7, depth, 7, dtype=F64)
    hidden = body.apply(params, x).relu()
    for k in range(6):
        weights = attributes[k] @ params["attribute"] + params["shared"]
        logit = hidden @ weights + params["bias"][k]
        torch.testing.assert_close(net.apply(params, x)[:, k], logit)


def test_a_class_that_is_told_to_others_only_has_logits_of_its_own():
    attributes = torch.ones(6, 4, dtype=F64)
    for told in ((), ("generator",)):
        net = classifier("perceptron", Problem((8,), 6, F64, attributes, told), (8,), 7, 1)
        assert net.init(generator(0))["w1"].shape == (7, 6)
