"""Candidates: what the converters' known traps would have made of these graphs, and what is made instead."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto

from naiad.export._precision.conversion import PRECISIONS, Conversion, conversions
from naiad.export._precision.converter import ConversionFailed, Converter
from precision_helpers import Candidates, Net, candidates

STATIC = ("static minmax", "static entropy", "static percentile")


@pytest.fixture(scope="module")
def digits(digits_net: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidates]:
    made = candidates(digits_net, tmp_path_factory.mktemp("digits"))
    with made.converter:
        yield made


@pytest.fixture(scope="module")
def encoder(encoder_net: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidates]:
    made = candidates(encoder_net, tmp_path_factory.mktemp("encoder"))
    with made.converter:
        yield made


@pytest.fixture(scope="module")
def recurrent(recurrent_net: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidates]:
    made = candidates(recurrent_net, tmp_path_factory.mktemp("recurrent"))
    with made.converter:
        yield made


@pytest.fixture(scope="module")
def convolutions(convolutions_net: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidates]:
    made = candidates(convolutions_net, tmp_path_factory.mktemp("convolutions"))
    with made.converter:
        yield made


@pytest.fixture(scope="module")
def spoilt(spoilt_net: Net, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidates]:
    made = candidates(spoilt_net, tmp_path_factory.mktemp("spoilt"))
    with made.converter:
        yield made


class TestHalf:
    @pytest.mark.parametrize("net", ["encoder", "digits", "recurrent"])
    def test_fp16_is_valid_and_near(self, net: str, request: pytest.FixtureRequest) -> None:
        """The graph loads and is as near as 11 bits allow, on a transformer too, where other converters fail."""
        made: Candidates = request.getfixturevalue(net)
        assert made.error(made.path("fp16")) < 2e-3
        assert made.facts("fp16")["num_changed"] > 0

    def test_clients_see_no_difference(self, encoder: Candidates) -> None:
        """Inputs and outputs keep their names, types and dimensions; the weights are in fp16."""
        before, after = onnx.load(encoder.source).graph, onnx.load(encoder.path("fp16")).graph
        for kind in ("input", "output"):
            pairs = zip(getattr(before, kind), getattr(after, kind), strict=True)
            assert all(a.name == b.name and a.type == b.type for a, b in pairs)
        assert {item.data_type for item in after.initializer if item.dims} <= {TensorProto.FLOAT16, TensorProto.INT64}

    def test_bf16_weights_are_rounded_once(self, digits: Candidates) -> None:
        """Every weight is the nearest bf16 of the one in fp32, although fp16's converter leads the way."""
        weights = {item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(digits.source).graph.initializer}
        converted = onnx.load(digits.path("bf16")).graph.initializer
        half = [item for item in converted if item.data_type == TensorProto.BFLOAT16 and item.name in weights]
        assert half
        for item in half:
            expected = torch.from_numpy(weights[item.name].copy()).bfloat16().float()
            assert torch.equal(torch.from_numpy(onnx.numpy_helper.to_array(item).astype("f4")), expected)

    def test_bf16_cannot_run_on_this_cpu(self, digits: Candidates) -> None:
        """ONNX Runtime has no kernels for it on a CPU, which is why such a candidate is refused and not trusted."""
        with pytest.raises(Exception, match=r"bfloat16|NOT_IMPLEMENTED"):
            digits.error(digits.path("bf16"))


class TestDynamic:
    def test_plain_quantize_dynamic_fails_on_gemm(self, digits: Candidates, tmp_path: Path) -> None:
        """The exporter's notes of shapes make the plain call fail on this graph; the candidate is made from it."""
        from onnxruntime.quantization import quantize_dynamic

        with pytest.raises(Exception, match="Inferred shape and existing shape differ"):
            quantize_dynamic(str(digits.source), str(tmp_path / "plain.onnx"))
        assert digits.facts("int8", "dynamic")["num_changed"] == 2
        assert digits.error(digits.path("int8", "dynamic")) < 2e-2

    def test_convolutions_are_left_alone(self, digits: Candidates) -> None:
        """ConvInteger is several times slower than Conv, so that only MatMul and Gemm are quantised."""
        operators = [kind for _, kind in digits.operators("int8", "dynamic")]
        assert operators.count("Conv") == 2
        assert operators.count("MatMulInteger") == 2
        assert "ConvInteger" not in operators

    def test_lstm_is_quantised(self, recurrent: Candidates) -> None:
        """A recurrent net becomes a DynamicQuantizeLSTM and stays near."""
        assert ("com.microsoft", "DynamicQuantizeLSTM") in recurrent.operators("int8", "dynamic")
        assert recurrent.error(recurrent.path("int8", "dynamic")) < 5e-2

    def test_nodes_can_be_left_out(self, digits: Candidates) -> None:
        """A Gemm is left as it is by its own name, although the quantiser replaces it before it looks."""
        gemms = [node.name for node in onnx.load(digits.source).graph.node if node.op_type == "Gemm"]
        assert digits.facts("int8", "dynamic", gemms[:1])["num_changed"] == 1


class TestStatic:
    @pytest.mark.parametrize("method", STATIC)
    @pytest.mark.parametrize("net", ["digits", "encoder", "convolutions"])
    def test_every_calibration_is_near(self, net: str, method: str, request: pytest.FixtureRequest) -> None:
        """Each method gives a graph that is right: of an encoder whose masks are minus infinity too, and where silence
        comes before sound, for which plain histograms would need billions of bins."""
        made: Candidates = request.getfixturevalue(net)
        assert made.error(made.path("int8", method)) < 0.1
        assert made.facts("int8", method)["num_changed"] >= 2

    def test_norms_and_softmax_stay_in_floats(self, encoder: Candidates, tmp_path: Path) -> None:
        """Quantising every operator of an encoder costs several times the error of those with weights alone."""
        from onnxruntime.quantization import quantize_static

        from naiad.export._precision.integers import _OneByOne

        everything = tmp_path / "everything.onnx"
        with warnings.catch_warnings(action="ignore"):
            quantize_static(str(encoder.source), str(everything), _OneByOne([encoder.inputs]))
        assert encoder.error(everything) > 3 * encoder.error(encoder.path("int8", "static minmax"))

    def test_weights_have_seven_bits(self, digits: Candidates) -> None:
        """Sums of full 8-bit products overflow on processors without VNNI; the file must be right on those too."""
        for method in ("dynamic", "static minmax"):
            graph = onnx.load(digits.path("int8", method)).graph
            weights = [onnx.numpy_helper.to_array(item) for item in graph.initializer if item.data_type == 3]
            large = [array for array in weights if array.size > 100]
            assert large
            assert all(array.min() >= -64 and array.max() <= 64 for array in large)


class TestInt4:
    def test_gemm_counts_as_matmul(self, encoder: Candidates) -> None:
        """Linear layers that the exporter wrote as Gemm are quantised as well."""
        plain = sum(node.op_type in {"MatMul", "Gemm"} for node in onnx.load(encoder.source).graph.node)
        blocks = encoder.operators("int4", "weights").count(("com.microsoft", "MatMulNBits"))
        assert 0 < blocks <= plain
        assert not {"Gemm"} & {kind for _, kind in encoder.operators("int4", "weights")}

    def test_nothing_to_change_is_said(self, convolutions: Candidates) -> None:
        """The quantiser reports success on a graph without MatMul; the count of changed nodes is 0."""
        assert convolutions.facts("int4", "weights")["num_changed"] == 0


class TestFiles:
    @pytest.mark.parametrize("net", ["digits", "encoder", "recurrent", "spoilt"])
    def test_only_operators_that_every_runtime_knows(self, net: str, request: pytest.FixtureRequest) -> None:
        """No candidate has operators for one kind of hardware or one version, nor a newer format than the source."""
        made: Candidates = request.getfixturevalue(net)
        source = onnx.load(made.source)
        for conversion in conversions("auto"):
            if conversion.method == "fused":
                continue
            foreign = {kind for domain, kind in made.operators(conversion.precision, conversion.method) if domain}
            assert foreign <= {"MatMulNBits", "DynamicQuantizeLSTM"}
            facts = made.facts(conversion.precision, conversion.method)
            assert facts["opset"] == source.opset_import[0].version
            assert facts["ir_version"] <= source.ir_version

    def test_attention_of_this_exporter_is_not_fused(self, encoder: Candidates) -> None:
        """Where nothing can be fused the candidate is refused in words instead of being a copy."""
        with pytest.raises(ConversionFailed, match="no attention was recognised"):
            encoder.path("fp32", "fused")


class TestSensitivity:
    @pytest.mark.parametrize("method", ["dynamic", "static minmax"])
    def test_names_the_layer_that_spoils_the_rest(self, spoilt: Candidates, method: str) -> None:
        """The layer that reads the outliers comes first, and without it the candidate is near."""
        conversion = Conversion(precision="int8", method=method)
        worst = spoilt.path("int8", method)
        ranking = spoilt.converter.rank(conversion, worst)
        assert ranking[0] == ["node_linear_2"]
        assert len(ranking) == 5
        assert spoilt.error(worst) > 0.2
        assert spoilt.error(spoilt.path("int8", method, ranking[0])) < 0.05

    def test_a_fused_convolution_is_left_out_with_its_activation(self, digits: Candidates) -> None:
        """A convolution whose ReLU the quantiser takes away is named together with it, and both stay in fp32."""
        conversion = Conversion(precision="int8", method="static minmax")
        ranking = digits.converter.rank(conversion, digits.path("int8", "static minmax"))
        (fused,) = [names for names in ranking if len(names) == 2 and any("conv" in name.lower() for name in names)][:1]
        assert any("relu" in name for name in fused)
        whole = digits.facts("int8", "static minmax")["num_changed"]
        assert digits.facts("int8", "static minmax", fused)["num_changed"] < whole


class TestProcess:
    def test_a_crash_costs_one_candidate(self, digits: Candidates, tmp_path: Path) -> None:
        """A converter that dies is an error in words, and the next candidate gets a new one."""
        write = digits.directory / "feeds.npz"
        (tmp_path / "feeds.npz").write_bytes(write.read_bytes())
        conversion = Conversion(precision="int8", method="dynamic")
        with Converter(digits.source, tmp_path) as converter:
            converter.convert(conversion, tmp_path / "1" / "model.onnx")
            assert converter._process is not None
            os.kill(converter._process.pid, signal.SIGKILL)
            with pytest.raises(ConversionFailed, match="ended with code -9"):
                converter.convert(conversion, tmp_path / "2" / "model.onnx")
            assert converter.convert(conversion, tmp_path / "3" / "model.onnx")["num_changed"] == 2

    def test_a_slow_conversion_is_given_up(self, digits: Candidates, tmp_path: Path) -> None:
        """Past its limit of time the converter is ended, and its process is gone."""
        with Converter(digits.source, tmp_path, time_limit_s=0.01) as converter:
            with pytest.raises(ConversionFailed, match=r"took more than 0\.01 s"):
                converter.convert(Conversion(precision="fp16"), tmp_path / "1" / "model.onnx")
            assert converter._process is None

    def test_every_precision_has_its_candidates(self) -> None:
        """What can be asked for is tried: auto tries whatever the others do."""
        everything = set(conversions("auto"))
        for precision in PRECISIONS:
            assert set(conversions(precision)) <= everything
            assert all(
                conversion.precision == precision.partition("-")[0] for conversion in conversions(precision)
            ) or (precision == "auto")
