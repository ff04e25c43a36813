"""fb.resnet.torch's .t7 files: the same function as written, and refused wherever they are something else."""

import copy
import struct

import pytest
import torch

from fastres.machine.errors import DataError
from fastres.model.reading import read_weights
from fastres.model.t7 import read_t7
from fastres.model.weights import initial_network, network_from
from fastres.schedules.types import Schedule, Stage
from tests.support.t7_files import Raw, lua_network, network, save


@pytest.fixture(scope="module")
def net():
    return network()


def modules(module: tuple, *path: int) -> tuple:
    """The module at indices from 0, container by container."""
    for index in path:
        module = module[1]["modules"][index]
    return module


def same(state: dict, net) -> bool:
    own = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    return state.keys() == own.keys() and all(torch.equal(state[k], v) for k, v in own.items())


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("library", "cuda"), [("cudnn", True), ("nn", False)])
def test_a_written_network_is_read_to_the_bit(tmp_path, arch, library, cuda):
    net = network(arch)
    path = save(tmp_path / "net.t7", lua_network(net, library), cuda)
    assert same(read_weights(path), net)
    stage = Stage(name="all", epochs=1, train=("*",), upscale=4)
    schedule = Schedule(name="t7", arch=arch, width=8, weights=str(path), stages=(stage,))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(initial_network(schedule, 6).eval()(x), net(x))


def test_convolutions_with_a_bias_as_matrices_and_norms_of_version_1(tmp_path, net):
    """What old files have: the same function, checked by running torch's own layers with that bias."""
    lua, theirs = lua_network(net), copy.deepcopy(net)
    conv, norm = modules(lua, 0), modules(lua, 1)
    bias = torch.randn(8, generator=torch.Generator().manual_seed(2))
    conv[1]["bias"], conv[1]["weight"] = bias, conv[1]["weight"].reshape(8, -1)
    norm[1]["running_std"] = (norm[1].pop("running_var").double() + 1e-5).pow(-0.5).float()
    theirs.conv1.bias = torch.nn.Parameter(bias)
    read = network_from(read_weights(save(tmp_path / "old.t7", lua)), "old").eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(read(x), theirs(x), atol=1e-4, rtol=1e-4)
    assert (read(x) - net(x)).abs().max() > 1e-2


def test_what_is_shared_stays_shared(tmp_path):
    whole = torch.arange(6.0)
    table = {"a": whole[1:3], "b": whole.view(2, 3).T, "n": [None, True, "text", 2.5]}
    table["again"] = table["a"]
    read = read_t7(save(tmp_path / "shared.t7", table))
    assert read["again"] is read["a"] and torch.equal(read["b"], table["b"])
    assert read["n"] == {1: None, 2: True, 3: "text", 4: 2.5}
    read["a"][0] = 7
    assert read["b"][1, 0] == 7


def refused(tmp_path, lua, *words: str) -> None:
    with pytest.raises(DataError) as fault:
        read_weights(save(tmp_path / "bad.t7", lua))
    assert fault.value.exit_code == 3 and all(word in str(fault.value) for word in ("bad.t7", *words)), fault.value


@pytest.mark.parametrize("tag", [6, 7, 8])
def test_functions_are_refused(tmp_path, net, tag):
    lua = lua_network(net)
    lua[1]["hook"] = Raw(struct.pack("<iii", tag, 999, 4) + b"\x1bLJ\x02")
    refused(tmp_path, lua, "Lua function")


def other_class(lua):
    lua[1]["modules"][2] = ("nn.Evil", {})


def shortcut_a(lua):
    shortcut = ("nn.Sequential", {"modules": [("nn.SpatialAveragePooling", {}), ("nn.Concat", {"modules": []})]})
    modules(lua, 5, 0, 0)[1]["modules"][1] = shortcut


def shortcut_c(lua):
    modules(lua, 4, 1, 0)[1]["modules"][1] = modules(lua, 5, 0, 0, 1)


def norm_behind_the_addition(lua):
    modules(lua, 4, 0)[1]["modules"].insert(2, modules(lua, 1))


def other_stride(lua):
    modules(lua, 5, 0, 0, 0, 0)[1]["dW"] = 1


def other_eps(lua):
    modules(lua, 1)[1]["eps"] = 1e-3


def no_head(lua):
    lua[1]["modules"].pop()


def other_pooling(lua):
    modules(lua, 3)[1]["padW"] = 0


FAULTS = {
    other_class: "nn.Evil", shortcut_a: "type A", shortcut_c: "type C", norm_behind_the_addition: "ResNet-50",
    other_stride: "stride", other_eps: "0.001", no_head: "Linear", other_pooling: "padW",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_other_networks_are_refused(tmp_path, net, fault):
    lua = lua_network(net)
    fault(lua)
    refused(tmp_path, lua, FAULTS[fault])


@pytest.mark.slow
def test_damage_is_a_data_error_wherever_it_is(tmp_path, net):
    path = save(tmp_path / "net.t7", lua_network(net))
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(3)
    for at in torch.randint(len(whole), (60,), generator=generator).tolist() + [0, 1, 4, 20]:
        path.write_bytes(whole[:at])
        with pytest.raises(DataError, match="net.t7"):
            read_weights(path)
    for at in range(0, 400):  # tags, indices, lengths and names of the first objects
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x81]) + whole[at + 1 :])
        try:
            read_weights(path)
        except DataError:
            continue


def test_tensors_beyond_their_storage_and_deep_nests_are_refused(tmp_path):
    storage = torch.zeros(4)
    for reach in (storage.as_strided((1,), (1,), 3), storage.as_strided((4,), (1,), 0)):
        raw = bytearray(save(tmp_path / "x.t7", reach, cuda=False).read_bytes())
        where = raw.index(b"torch.FloatTensor") + len(b"torch.FloatTensor") + 4
        raw[where : where + 8] = struct.pack("<q", 5)
        (tmp_path / "x.t7").write_bytes(raw)
        with pytest.raises(DataError, match="does not fit"):
            read_t7(tmp_path / "x.t7")
    deep = {}
    for _ in range(500):
        deep = {"in": deep}
    with pytest.raises(DataError, match="inside each other"):
        read_t7(save(tmp_path / "deep.t7", deep))
