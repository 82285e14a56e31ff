"""ONNX files: the same workload as from torch, shapes from --dim, and nothing outside the file is touched."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import effsim  # noqa: E402
from effsim.errors import DataError, UnsupportedError  # noqa: E402
from effsim.graph.graph import Graph  # noqa: E402
from effsim.importers.onnx_graph import from_onnx_file, read_dimensions  # noqa: E402
from effsim.program.source import explicit_graph  # noqa: E402

FLOAT = TensorProto.FLOAT


def weight(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.zeros(shape, dtype=np.float32), name)


def save(
    path: Path,
    nodes: list[Any],
    weights: list[Any],
    ins: dict[str, tuple],
    outs: dict[str, tuple | None],
    opset: int = 17,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in ins.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outs.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


def graph(path: Path, **dimensions: int) -> Graph:
    return explicit_graph(from_onnx_file(path, dimensions).workload)


def kinds(found: Graph) -> list[str]:
    return [node.op.kind for _, node, _ in found.walk()]


def mlp(path: Path) -> Path:
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w2"], ["m"]),
        node("Add", ["m", "b2"], ["y"]),
    ]
    weights = [weight("w1", 32, 8), weight("b1", 32), weight("w2", 32, 4), weight("b2", 4)]
    return save(path, nodes, weights, {"x": ("batch", 8)}, {"y": ("batch", 4)})


def test_an_mlp_by_hand(tmp_path: Path) -> None:
    found = graph(mlp(tmp_path / "mlp.onnx"), batch=5)
    assert kinds(found) == ["linear", "relu", "linear"]
    assert found.flops == 2 * 5 * (8 * 32 + 32 * 4) + 5 * 32
    assert found.parameters == 8 * 32 + 32 + 32 * 4 + 4


def test_it_runs_in_all_readings_and_from_the_yaml(tmp_path: Path) -> None:
    workload = effsim.from_onnx(mlp(tmp_path / "mlp.onnx"), dimensions={"batch": 64})
    (tmp_path / "w.yaml").write_text(effsim.to_yaml(workload))
    for engine in ("roofline", "analytic", "events"):
        given = effsim.run("gpu_a100", workload, engine=engine, sensitivity=False)
        read = effsim.run("gpu_a100", str(tmp_path / "w.yaml"), engine=engine, sensitivity=False)
        assert given.time_s == read.time_s > 0


def test_shapes_that_are_computed_in_the_graph(tmp_path: Path) -> None:
    """Shape → Gather → Concat → Reshape, as exporters write a view of a tensor with a free dimension."""
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["b"]),
        node("Unsqueeze", ["b", "axes"], ["b1"]),
        node("Concat", ["b1", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["heads"]),
        node("Transpose", ["heads"], ["t"], perm=[0, 2, 1, 3]),
        node("Softmax", ["t"], ["y"], axis=-1),
    ]
    ints = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([6, 2, 4])}
    weights = [numpy_helper.from_array(value.astype(np.int64), name) for name, value in ints.items()]
    found = graph(save(tmp_path / "s.onnx", nodes, weights, {"x": ("n", 6, 8)}, {"y": None}), n=3)
    (row,) = found.walk()
    assert (row[1].op.rows, row[1].op.cols) == (3 * 2 * 6, 4)


def test_convolution_norm_pool_and_unknown_operators(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "s", "s", "s", "v"], ["n"]),
        node("GlobalAveragePool", ["n"], ["p"]),
        node("Det", ["sq"], ["d"]),
    ]
    weights = [weight("w", 8, 3, 3, 3), weight("s", 8), weight("v", 8)]
    ins = {"x": (2, 3, 16, 16), "sq": (2, 4, 4)}
    path = save(tmp_path / "c.onnx", nodes, weights, ins, {"p": None, "d": None})
    with pytest.warns(effsim.ApproximationWarning, match=r"onnx\.Det"):
        found = explicit_graph(effsim.from_onnx(path))
    assert kinds(found)[:3] == ["conv2d", "bias", "sum"]
    conv = next(node.op for _, node, _ in found.walk() if node.op.kind == "conv2d")
    assert conv.flops == 2 * 2 * 64 * 8 * 27


def test_quantised_weights_keep_their_width(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [node("DequantizeLinear", ["w", "scale"], ["d"]), node("MatMul", ["x", "d"], ["y"])]
    weights = [numpy_helper.from_array(np.zeros((64, 32), dtype=np.int8), "w"), weight("scale", 1)]
    found = graph(save(tmp_path / "q.onnx", nodes, weights, {"x": (4, 64)}, {"y": None}))
    (row,) = found.walk()
    assert row[1].op.weight_dtype == "int8"
    assert found.weight_bytes == 64 * 32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """Tiny models of transformers as the exporter of torch writes them."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import imported_models as models

    class Call(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits

    out = {}
    for name in ("llama", "vit"):
        model = models.build(name, device="cpu")
        ids = torch.ones(2, 20, dtype=torch.long)
        called, inputs = (model, (torch.zeros(2, 3, 32, 32),)) if name == "vit" else (Call(model), (ids, ids))
        free = {} if name == "vit" else {"ids": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}}
        path = tmp_path_factory.mktemp("onnx") / f"{name}.onnx"
        names = ["pixels"] if name == "vit" else ["ids", "mask"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(called, inputs, str(path), dynamo=False, input_names=names, dynamic_axes=free)
        out[name] = (model, path)
    return out


@pytest.mark.parametrize("name", ["llama", "vit"])
def test_exported_models_have_the_flops_of_our_own(name: str, exported: dict[str, tuple[Any, Path]]) -> None:
    import imported_models as models

    model, path = exported[name]
    found = from_onnx_file(path, {} if name == "vit" else {"batch": 2, "length": 20})
    own = models.own_graph(model, 2, 20)
    assert explicit_graph(found.workload).flops == own.flops
    assert models.matrix_flops(explicit_graph(found.workload)) == models.matrix_flops(own)
    assert not [text for text in found.warnings if "Unknown" in text]


def external(path: Path, location: str) -> Path:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[8, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="128")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return save(path, nodes, [tensor], {"x": (2, 8)}, {"y": None})


@pytest.mark.parametrize("location", ["weights.bin", "../../../etc/passwd", "/etc/passwd", "/dev/zero", "http://x/y"])
def test_weights_in_other_files_are_never_opened(location: str, tmp_path: Path) -> None:
    path = external(tmp_path / "m.onnx", location)
    opened: list[str] = []
    watching = True  # a hook stays for the life of the process

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open":
            opened.append(str(args[0]))

    sys.addaudithook(hook)
    found = graph(path)
    watching = False
    assert not [name for name in opened if Path(name).name in (Path(location).name, "passwd", "zero")]
    assert found.flops == 2 * 2 * 8 * 4
    assert found.parameters == 32


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"\x00\xff" * 500)
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_text("kind: workload")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("noise", "empty", "text", "folder", "absent"):
        with pytest.raises(DataError, match=name):
            from_onnx_file(tmp_path / f"{name}.onnx", {})


def test_every_free_dimension_needs_a_size(tmp_path: Path) -> None:
    path = mlp(tmp_path / "mlp.onnx")
    with pytest.raises(DataError, match="--dim batch=1"):
        from_onnx_file(path, {})
    with pytest.raises(DataError, match="no input has a free dimension 'bach'; it has batch"):
        from_onnx_file(path, {"batch": 1, "bach": 2})
    assert read_dimensions(["batch=4", "n=1"]) == {"batch": 4, "n": 1}
    for word in ("batch", "batch=", "batch=0", "batch=-1", "=3", "batch=9999999999999"):
        with pytest.raises(DataError, match="NAME=SIZE"):
            read_dimensions([word])


def test_a_shape_that_depends_on_values_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Cast", ["i"], ["y"], to=FLOAT)]
    path = save(tmp_path / "n.onnx", nodes, [], {"x": (4,)}, {"y": None})
    with pytest.raises(DataError, match="shape"):
        from_onnx_file(path, {})


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnsupportedError, match=r"effsim\[onnx\]"):
        effsim.from_onnx(tmp_path / "m.onnx")
